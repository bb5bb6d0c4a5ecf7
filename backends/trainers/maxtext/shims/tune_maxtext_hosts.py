"""MaxText 0.2.5 on several hosts, one process each: how they find each other, and what they leave. Put in before its program runs.

By itself each host writes its part of a checkpoint into a folder that all have to share. Here the first host gathers the weights and
writes them on its own disk, whole: what is exported there needs no other host. The state of the optimizer is not kept, so that a
training over several hosts begins anew when it is tried again.
"""
# ruff: noqa: PLC0415 - JAX must not be imported before its environment is set

from __future__ import annotations

import os
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tune_checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

FOLDER = Path("out/run/checkpoints")
WEIGHTS = "params.safetensors"
"""Of a checkpoint of several hosts: weights by their path in MaxText's tree."""
WHOLE = "commit_success.txt"
"""Written last, as Orbax does."""
LACKS = "it has the weights of all hosts, and not the state of the optimizer"


def join(wish: Mapping[str, Any], head: str, port: str, rank: str) -> None:
    """Meet the other hosts, by JAX's own rules: on TPUs all that it asks for stands in their metadata, elsewhere the plan says it.

    https://docs.jax.dev/en/latest/multi_process.html
    """
    import jax

    if wish["accelerator"] == "tpu":
        jax.distributed.initialize()
    else:
        if name := os.environ.get("GLOO_SOCKET_IFNAME"):
            _by_interface(name)
        address = f"[{head}]:{port}" if ":" in head else f"{head}:{port}"
        jax.distributed.initialize(address, num_processes=wish["hosts"], process_id=int(rank))
    if jax.process_count() != wish["hosts"]:
        raise RuntimeError(f"{jax.process_count()} processes met, the plan has {wish['hosts']} hosts")


def at_once(run: Callable[[], int]) -> int:
    """What a program returns; where it went wrong, end this process at once. JAX would first wait at a barrier for the other hosts,
    which wait for this one.
    """
    try:
        code = run()
    except SystemExit as error:  # also absl's end of a run that went well
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    if code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _by_interface(name: str) -> None:
    """JAX on CPUs takes the interface that the host's own name leads to, on many hosts the loopback.

    https://github.com/jax-ml/jax/blob/jax-v0.11.0/jax/_src/xla_bridge.py (make_cpu_client)
    """
    from jax._src.lib import _jax

    _jax.make_gloo_tcp_collectives = partial(_jax.make_gloo_tcp_collectives, interface=name)


def gather() -> None:
    """Have the first host write the weights of all, after each `checkpoint_period` steps and at the end."""
    FOLDER.mkdir(parents=True, exist_ok=True)  # without a manager of checkpoints nobody makes it
    _from_maxtext()
    _from_tunix()


def _from_maxtext() -> None:
    from maxtext.common import checkpointing

    saved = set()  # the same on all hosts, which wait for each other: what lies on a disk is not

    def save(_manager: Any, state: Any, config: Any, _iterator: Any, step: int | None = None) -> None:
        if step is not None and (step + 1) % config.checkpoint_period:
            return
        done = config.steps if step is None else step + 1
        place = FOLDER / str(done - 1)
        if done not in saved:
            saved.add(done)
            _write(place, _weights(state))
        if step is not None and _first():
            tune_checkpoints.complete(place, done, lacks=LACKS)

    checkpointing.maybe_save_checkpoint = save


def _from_tunix() -> None:
    """What google-tunix 0.1.7 would keep: an adapter's matrices where there is one, else all weights. Its own manager would have all
    hosts write into one folder.

    https://github.com/google/tunix/blob/v0.1.7/tunix/sft/checkpoint_manager.py
    """
    from flax import nnx
    from tunix.sft.checkpoint_manager import CheckpointManager

    plain, saved = CheckpointManager.__init__, set()

    def begin(self: Any, root_directory: str | None = None, options: Any = None) -> None:  # noqa: ARG001 - nothing is written there
        plain(self, None)
        self.period = options.save_interval_steps

    def save(
        self: Any, step: int, model: Any, *_: Any, save_only_lora_params: bool = False, force: bool = False, **__: Any
    ) -> bool:
        due = step % self.period == 0
        if step in saved or not (due or force):
            return False
        saved.add(step)
        state = nnx.state(model, nnx.LoRAParam if save_only_lora_params else nnx.Param)
        _write(FOLDER / str(step), _whole(nnx.to_pure_dict(state)))
        if due and _first():
            tune_checkpoints.complete(FOLDER / str(step), step, lacks=LACKS)
        return True

    CheckpointManager.__init__, CheckpointManager.save = begin, save


def _first() -> bool:
    import jax

    return jax.process_index() == 0


def _weights(state: Any) -> dict[str, Any]:
    """All weights of MaxText's loop, as `_whole` has them."""
    from flax import nnx
    from maxtext.common import train_state_nnx

    plain = nnx.state(state) if isinstance(state, train_state_nnx.TrainStateNNX) else state
    tree = train_state_nnx.to_checkpoint_dict(plain)["params"]["params"]
    return _whole(tree)


def _whole(tree: Any) -> dict[str, Any]:
    """Weights by their path, whole in the main memory of each host. All hosts have to ask for them, in the same order."""
    from jax.experimental.multihost_utils import process_allgather

    return {path: process_allgather(value, tiled=True) for path, value in sorted(_flat(tree))}


def _flat(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if hasattr(tree, "items"):
        for name, value in tree.items():
            yield from _flat(value, f"{path}/{name}" if path else str(name))
    else:
        yield path, getattr(tree, "value", tree)


def _write(place: Path, weights: dict[str, Any]) -> None:
    import jax.numpy as jnp
    from safetensors.flax import save_file

    if _first():
        place.mkdir(parents=True, exist_ok=True)
        save_file({name: jnp.asarray(value) for name, value in weights.items()}, place / WEIGHTS)
        (place / WHOLE).write_text("")


def read(place: Path) -> dict[str, Any] | None:
    """MaxText's tree of a checkpoint that `gather` wrote; None where it is none."""
    if not (place / WEIGHTS).exists():
        return None
    import numpy as np
    from safetensors.flax import load_file

    tree: dict[str, Any] = {}
    for path, value in load_file(place / WEIGHTS).items():
        *folders, name = path.split("/")
        branch = tree
        for folder in folders:
            branch = branch.setdefault(folder, {})
        branch[name] = np.asarray(value)
    return tree
