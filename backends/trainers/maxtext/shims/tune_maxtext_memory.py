"""What a training takes of a TPU's memory, as XLA's own compiler says it: nothing is trained, and no TPU is needed.

    python tune_maxtext_memory.py memory.json      prints one JSON document as its last line

memory.json: `{"topology": "v5e-16", "kind": sft|pretrain, "length": tokens of a row, "shape": fields of tune_shape.Shape}`; maxtext.yml is
the plan's, beside it. The document has bytes of one device: `{"arguments": weights, optimizer and batch, "temporary": all else, "outputs": not
counting what takes the place of arguments, "code": the program}`, or `{"over": what the compiler says that it takes too much}`.

The step is compiled ahead of time for the topology by MaxText's functions (trainers/pre_train/train_compile.py), which is the step that its own loop runs:
https://github.com/AI-Hypercomputer/maxtext/blob/maxtext-v0.2.5/src/maxtext/trainers/pre_train/train_compile.py
libtpu compiles without a chip (`jax.experimental.topologies`).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tune_maxtext
import tune_maxtext_mends
import tune_shape
import tune_shared

if TYPE_CHECKING:
    from collections.abc import Mapping

STEPS = 10
"""Of the schedule, which takes no memory."""


def main(spec: str) -> int:
    """0, or 1 with a message and reason.json."""
    return tune_shared.guarded("bad_spec", lambda: _tell(json.loads(Path(spec).read_text())))


def _tell(wish: Mapping[str, Any]) -> None:
    for name in [name for name in os.environ if name.startswith("M_")]:
        del os.environ[name]
    # no chip is touched: no question to the cloud's metadata, and no lock of the chips that a training here may have
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_LIBRARY_PATH": _libtpu()}
    os.environ |= {"DECOUPLE_GCLOUD": "TRUE", "JAX_PLATFORMS": "cpu"}
    shape = tune_shape.Shape(**wish["shape"])
    keys = {
        "base_config": tune_maxtext.BASES[wish["kind"]],
        **tune_maxtext.architecture(shape),
        "max_target_length": wish["length"],
        "steps": STEPS,
        **tune_maxtext.schedule(STEPS, "constant", 0),
    }
    Path("job.yml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items()))  # JSON is YAML
    if shape.tied:
        tune_maxtext_mends.tied_head()
    print(json.dumps(_compiled(wish["topology"])))


def _libtpu() -> str:
    import libtpu  # noqa: PLC0415 - of the environment for TPUs

    return str(Path(libtpu.__file__).with_name("libtpu.so"))


def _compiled(topology: str) -> dict[str, Any]:
    """As main of train_compile.py, which tells the compiler's figures in a line of its log alone."""
    import jax  # noqa: PLC0415
    from maxtext.configs import pyconfig  # noqa: PLC0415
    from maxtext.trainers.pre_train import train, train_compile  # noqa: PLC0415
    from maxtext.utils import maxtext_utils, sharding  # noqa: PLC0415

    jax.config.update("jax_default_prng_impl", "unsafe_rbg")
    words = ("compile_topology_num_slices=1", "enable_checkpointing=false", "jax_cache_dir=")
    config = pyconfig.initialize(["", "maxtext.yml", f"compile_topology={topology}", *words])
    mesh = train_compile.get_topology_mesh(config)
    inputs, named, states, _, model = train_compile.get_shaped_inputs(mesh, config)
    weights, states = sharding.maybe_update_params_sharding_with_opt(config, states)
    before = sharding.build_zero1_input_state_mesh_shardings(config, states, weights)
    rows = sharding.get_input_data_sharding(config, mesh)
    step, *rest = maxtext_utils.get_functional_train_with_signature(train.train_step, rows, before, model, config, weights)
    rules = train_compile.axis_rules(config.logical_axis_rules)
    try:
        made = train_compile.jit_and_compile(step, inputs, named, mesh, *rest, config, rules)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"over": str(error).splitlines()[0]}
    found = made.memory_analysis()
    return {
        "arguments": found.argument_size_in_bytes,
        "temporary": found.temp_size_in_bytes,
        "outputs": found.output_size_in_bytes - found.alias_size_in_bytes,
        "code": found.generated_code_size_in_bytes,
    }


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
