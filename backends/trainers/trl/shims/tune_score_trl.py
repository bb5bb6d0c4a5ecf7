"""What TRL's own transformers and PEFT say with what it left; see tune_score.py."""

import sys

import tune_score
import tune_score_hf

if __name__ == "__main__":
    sys.exit(tune_score.main(sys.argv[1], "TRL", tune_score_hf.load))
