"""What LitGPT's own model says with LitGPT's own checkpoint; see tune_score.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import tune_score


def load(spec: dict[str, Any]) -> tuple[Any, str]:
    """The model that LitGPT left, an adapter merged by LitGPT itself."""
    import torch  # noqa: PLC0415  # seconds, and refusals come before it
    from litgpt import GPT, Config  # noqa: PLC0415

    folder = Path(spec["trained"])
    state = torch.load(folder / "lit_model.pth", map_location="cpu", weights_only=True)
    state = state.get("model", state)
    model = GPT(Config.from_file(folder / "model_config.yaml"))
    model.load_state_dict(state, assign=True)
    return model.eval(), tune_score.dtype_of(state)


if __name__ == "__main__":
    sys.exit(tune_score.main(sys.argv[1], "LitGPT", load))
