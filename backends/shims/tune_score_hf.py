"""What transformers and PEFT of a trainer's environment say with what the trainer left; see tune_score.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load(spec: dict[str, Any]) -> tuple[Any, str]:
    """The start model with the adapter beside it, as it was trained; or the trained weights."""
    import torch  # noqa: PLC0415  # seconds
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    trained = Path(spec["trained"])
    adapted = (trained / "adapter_config.json").exists()
    model = AutoModelForCausalLM.from_pretrained(spec["base"] if adapted else trained, dtype="auto")
    if adapted:
        from peft import PeftModel  # noqa: PLC0415

        model = PeftModel.from_pretrained(model, trained)
    dtype = str(model.dtype).removeprefix("torch.")
    model = model.to(torch.float32).eval()
    return lambda ids: model(input_ids=ids).logits, dtype
