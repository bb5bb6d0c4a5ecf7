"""TRL 1.16.0's trainers, made to do what the recipe means: each with a class of tune_hf_trainer.py before it."""

from __future__ import annotations

import tune_hf_losses
from trl import DPOTrainer, GRPOTrainer, KTOTrainer, RewardTrainer, SFTTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.gkd import GKDTrainer
from trl.experimental.orpo import ORPOTrainer
from tune_hf_answers import Answering
from tune_hf_heads import Scoring
from tune_hf_trainer import Prepared, Ready, TokenMean
from tune_trl_teacher import Taught


class Sft(TokenMean, SFTTrainer):
    """Next-token loss, a mean over all tokens with loss: of the micro-batches of a step, of the processes, of an evaluation."""


class Dpo(Prepared, DPOTrainer):
    """dpo and ipo."""


class Kto(tune_hf_losses.StepKto, Prepared, KTOTrainer):
    """kto."""


class Reward(Scoring, RewardTrainer):
    """reward: takes chosen_ids and rejected_ids as they are."""


class Orpo(tune_hf_losses.StepOrpo, Ready, ORPOTrainer):
    """orpo."""


class Simpo(Ready, CPOTrainer):
    """simpo."""


class Distill(Taught, TokenMean, GKDTrainer):
    """distill, over the answers of the rows."""


class Grpo(Answering, GRPOTrainer):
    """grpo."""


TRAINERS = {
    **dict.fromkeys(("sft", "pretrain"), Sft),
    **dict.fromkeys(("dpo", "ipo"), Dpo),
    **{"kto": Kto, "orpo": Orpo, "simpo": Simpo, "reward": Reward, "grpo": Grpo, "distill": Distill},
}
"""method.kind -> its trainer."""
