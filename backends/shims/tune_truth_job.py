"""The truth beside a job: `python tune_truth_job.py truth.json`, in the job's folder after the training.

truth.json is that of tune_truth.py, with the data step's spec and the LoRA step's as the recipe means them, whatever the job's own files
say: `data_spec`, and `lora_spec` or null. Ends with 0 in any case: a job is not judged by its yardstick.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tune_data
import tune_lora
import tune_truth

_DRAWN = "truth-lora"


def main(path: str) -> int:
    """Render, draw, train."""
    wish = json.loads(Path(path).read_text())
    try:
        aside = Path("truth-data.json")
        aside.write_text(json.dumps(wish["data_spec"]))
        wish["data"] = str(tune_data.ready(tune_data.read_spec(str(aside))))
        if wish["lora_spec"]:
            tune_lora.start(wish["lora_spec"], _DRAWN)
            wish["adapter"]["start"] = f"{_DRAWN}/start.safetensors"
    except Exception as error:  # the job that this belongs to has ended well, and stays so
        Path(wish["out"]).write_text(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 0
    whole = Path("truth-wish.json")
    whole.write_text(json.dumps(wish))
    return tune_truth.main(str(whole))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
