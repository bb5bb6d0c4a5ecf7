"""MaxText 0.2.5 on several hosts, one process each: how they find each other, and what they leave. Put in before its program runs.

By itself each host writes its part of a checkpoint into a folder that all have to share. Here the first host gathers the weights and
writes them on its own disk, whole, and the state of the optimizer with them: what is exported there needs no other host, and an
attempt that goes on needs the checkpoint on its first host only, which gives the values to the others.
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
    from collections.abc import Callable, Iterator, Mapping, Sequence

FOLDER = Path("out/run/checkpoints")
WEIGHTS = "params.safetensors"
"""Of a checkpoint of several hosts: weights by their path in MaxText's tree."""
OPTIMIZER = "optimizer.safetensors"
"""The state of the optimizer, its count of steps included, by the path there."""
WHOLE = "commit_success.txt"
"""Written last, as Orbax does."""


def join(wish: Mapping[str, Any], head: str, port: str, rank: str) -> None:
    """Meet the other hosts, by JAX's own rules: on TPUs all that it asks for stands in their metadata, elsewhere the plan says it.

    https://docs.jax.dev/en/latest/multi_process.html
    """
    slices = wish.get("slices", 1)
    if slices > 1:
        os.environ |= megascale(head, slices, int(rank) * slices // wish["hosts"])
    import jax

    if wish["accelerator"] == "tpu":
        jax.distributed.initialize()
    else:
        if name := os.environ.get("GLOO_SOCKET_IFNAME"):
            _by_interface(name)
        address = f"[{head}]:{port}" if ":" in head else f"{head}:{port}"
        jax.distributed.initialize(address, num_processes=wish["hosts"], process_id=int(rank))
        _slices_of_cpus(slices)
    if jax.process_count() != wish["hosts"]:
        raise RuntimeError(f"{jax.process_count()} processes met, the plan has {wish['hosts']} hosts")


def megascale(head: str, slices: int, place: int) -> dict[str, str]:
    """What JAX and libtpu read of several slices; VMs that were asked for together have it in their metadata, too.

    https://github.com/jax-ml/jax/blob/jax-v0.11.0/jax/_src/clusters/cloud_tpu_cluster.py
    """
    return {"MEGASCALE_COORDINATOR_ADDRESS": head, "MEGASCALE_NUM_SLICES": str(slices), "MEGASCALE_SLICE_ID": str(place)}


def _slices_of_cpus(slices: int) -> None:
    """CPUs are all of one slice to JAX, which has no setting for it: the mesh of several is made of the processes by their number."""
    import numpy as np
    from jax.experimental import mesh_utils

    def hybrid(inner: Sequence[int], outer: Sequence[int], devices: Sequence[Any], **_: Any) -> Any:
        count = len(inner)
        pairs = [axis for pair in zip(range(count), range(count, 2 * count), strict=True) for axis in pair]
        sizes = [one * other for one, other in zip(outer, inner, strict=True)]
        return np.array(devices).reshape(*outer, *inner).transpose(pairs).reshape(sizes)

    if slices > 1:
        mesh_utils.create_hybrid_device_mesh = hybrid


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


def gather(keep: int | None, lacks: str) -> None:
    """Have the first host write the weights of all, after each `checkpoint_period` steps and at the end, and all begin with what it has
    where they go on. `keep` and `lacks` as for one host (tune_maxtext_checkpoints.on_time).
    """
    FOLDER.mkdir(parents=True, exist_ok=True)  # without a manager of checkpoints nobody makes it
    _from_maxtext(partial(_complete, keep=keep, lacks=lacks))
    _from_tunix(partial(_complete, keep=keep, lacks=lacks))


def _complete(place: Path, step: int, **words: Any) -> None:
    if is_first():
        tune_checkpoints.complete(place, step, **words)


def _from_maxtext(complete: Callable[[Path, int], None]) -> None:
    from maxtext.common import checkpointing
    from maxtext.utils import train_utils

    plain = train_utils.setup_train_loop
    saved = set()  # the same on all hosts, which wait for each other: what lies on a disk is not

    def set_up(*args: Any, **kw: Any) -> Any:
        made = plain(*args, **kw)
        if tune_checkpoints.begun(here=False):
            _put_back(made[-1].model, made[-1].optimizer)
        return made

    def save(_manager: Any, state: Any, config: Any, _iterator: Any, step: int | None = None) -> None:
        if step is not None and (step + 1) % config.checkpoint_period:
            return
        done = config.steps if step is None else step + 1
        place = FOLDER / str(done - 1)
        if done not in saved:
            saved.add(done)
            _write(place, *_parts(state))
        if step is not None:
            complete(place, done)

    train_utils.setup_train_loop, checkpointing.maybe_save_checkpoint = set_up, save


def _from_tunix(complete: Callable[[Path, int], None]) -> None:
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
        self: Any,
        step: int,
        model: Any,
        optimizer: Any = None,
        save_only_lora_params: bool = False,
        force: bool = False,
        **_: Any,
    ) -> bool:
        due = step % self.period == 0
        if step in saved or not (due or force):
            return False
        saved.add(step)
        state = nnx.state(model, nnx.LoRAParam if save_only_lora_params else nnx.Param)
        optimizer_state = nnx.state(optimizer, nnx.optimizer.OptState) if optimizer else {}
        _write(FOLDER / str(step), *(nnx.to_pure_dict(each) for each in (state, optimizer_state)))
        if due:
            complete(FOLDER / str(step), step)
        return True

    def restore(_self: Any, model: Any, optimizer: Any = None, *_: Any, restore_only_lora_params: bool = False, **__: Any) -> Any:
        step = tune_checkpoints.begun(here=False)
        if step:
            _put_back(model, optimizer, nnx.LoRAParam if restore_only_lora_params else nnx.Param)
            saved.add(step)
        return step, {}

    CheckpointManager.__init__, CheckpointManager.save, CheckpointManager.maybe_restore = begin, save, restore


def is_first() -> bool:
    """Whether this is the first host, or the only one."""
    import jax

    return jax.process_index() == 0


def _parts(state: Any) -> tuple[Any, Any]:
    """Weights and optimizer of MaxText's loop, as trees."""
    from flax import nnx
    from maxtext.common import train_state_nnx

    plain = nnx.state(state) if isinstance(state, train_state_nnx.TrainStateNNX) else state
    return train_state_nnx.to_checkpoint_dict(plain)["params"]["params"], nnx.to_pure_dict(plain.optimizer)


def _whole(tree: Any) -> dict[str, Any]:
    """Values by their path, whole in the main memory of the first host; nothing on the others. All have to ask, in the same order."""
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather

    kept = {}
    for path, value in sorted(_flat(tree)):
        apart = not getattr(value, "is_fully_addressable", True)  # else each host has it, such as a count of steps
        whole = process_allgather(value, tiled=True) if apart else value
        if is_first():
            kept[path] = np.asarray(whole)
    return kept


def _flat(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if hasattr(tree, "items"):
        for name, value in tree.items():
            yield from _flat(value, f"{path}/{name}" if path else str(name))
    else:
        yield path, getattr(tree, "value", tree)


def _write(place: Path, weights: Any, optimizer: Any) -> None:
    import jax
    import jax.numpy as jnp
    from safetensors.flax import save_file

    files = {WEIGHTS: _whole(weights), OPTIMIZER: _whole(optimizer)}
    if is_first():
        place.mkdir(parents=True, exist_ok=True)
        with jax.default_device(jax.local_devices(backend="cpu")[0]):  # a chip has no room for all of it
            for name, values in files.items():
                save_file({path: jnp.asarray(value) for path, value in values.items()}, place / name)
        (place / WHOLE).write_text("")


def _put_back(model: Any, optimizer: Any, kind: Any = None) -> None:
    """Begin with the weights and the state that the checkpoint has, which the first host reads and gives to the others.

    Args:
        model: whose weights of a kind are replaced.
        optimizer: whose state is.
        kind: of nnx's variables; None: all weights.
    """
    from flax import nnx

    for module, variables, file in ((model, kind or nnx.Param, WEIGHTS), (optimizer, nnx.optimizer.OptState, OPTIMIZER)):
        state = nnx.state(module, variables)
        nnx.replace_by_pure_dict(state, _given(nnx.to_pure_dict(state), _stored(tune_checkpoints.RESUME / file)))
        nnx.update(module, state)


def _stored(file: Path) -> dict[str, Any]:
    """Values of a file by their path; on the first host alone."""
    import jax
    from safetensors.flax import load_file

    if not is_first():
        return {}
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return load_file(file)


def _given(tree: Any, stored: Mapping[str, Any], path: str = "") -> Any:
    """A tree of the same form, each value split over the devices as the one that it replaces."""
    import jax
    import numpy as np
    from jax.experimental.multihost_utils import broadcast_one_to_all

    if hasattr(tree, "items"):
        return {name: _given(tree[name], stored, f"{path}/{name}" if path else str(name)) for name in sorted(tree, key=str)}
    mine = np.asarray(stored[path], tree.dtype) if is_first() else np.zeros(tree.shape, tree.dtype)
    whole = np.asarray(broadcast_one_to_all(mine))
    return jax.make_array_from_callback(tree.shape, tree.sharding, lambda part: whole[part])


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
