"""MaxText's own config: what only the host knows is written by the plan's own step, then pyconfig merges, checks and resolves."""

import os

os.environ |= {"DECOUPLE_GCLOUD": "TRUE", "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}  # before JAX is imported

import omegaconf
from maxtext.configs import pyconfig, types

WITHOUT_JAX = ("skip_jax_distributed_system=true", "log_config=false")
"""What a look at a config must not start or print."""


def load(job):
    """What is said of a config that MaxText takes; it raises on those that it refuses."""
    import tune_maxtext  # noqa: PLC0415  # it lies in the plan's folder

    if tune_maxtext.main("maxtext.json"):
        raise ValueError("the prepare step refused the model folder")
    merged = pyconfig._load_config(job["config"])
    unknown = {key for key in merged if not pyconfig._check_for_invalid_keys(key, types.MaxTextConfig.model_fields)}
    taken = pyconfig._initialize_pydantic(["", job["config"], *WITHOUT_JAX], config_class=types.MaxTextConfig)
    written = omegaconf.OmegaConf.to_container(merged, resolve=True)
    return unknown, {key: plain(getattr(taken, key), written[key]) for key in written if key not in unknown}


def plain(value, written):
    """Pydantic models as mappings, and null as it was written: `none` is one of MaxText's words for it (pyconfig.py)."""
    if value is None and written == "none":
        return written
    return value.model_dump() if hasattr(value, "model_dump") else value
