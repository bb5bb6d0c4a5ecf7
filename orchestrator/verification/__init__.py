"""Are two runs the same training, and how fast is each? Figures and verdicts from plans, points and what jobs leave. Pure."""

from orchestrator.verification.configs import accepted, round_trip
from orchestrator.verification.counts import Evidence, counts, parameters, parity, rates
from orchestrator.verification.curves import LOSS, Curve, Gap, Spread, Tolerance, agree, curve, gap, middle, spread
from orchestrator.verification.levels import LEVELS, Verdict
from orchestrator.verification.race import Lap, Run, laps, left_out, ties, unsteady, winner, yardstick
from orchestrator.verification.tokens import EXPECTED, tokens, unseen, witness_file, witnessed
from orchestrator.verification.truth import FOUND, truth, with_truth
from orchestrator.verification.tuning import Trial, fastest, next_choice

__all__ = [
    "EXPECTED",
    "FOUND",
    "LEVELS",
    "LOSS",
    "Curve",
    "Evidence",
    "Gap",
    "Lap",
    "Run",
    "Spread",
    "Tolerance",
    "Trial",
    "Verdict",
    "accepted",
    "agree",
    "counts",
    "curve",
    "fastest",
    "gap",
    "laps",
    "left_out",
    "middle",
    "next_choice",
    "parameters",
    "parity",
    "rates",
    "round_trip",
    "spread",
    "ties",
    "tokens",
    "truth",
    "unseen",
    "unsteady",
    "winner",
    "with_truth",
    "witness_file",
    "witnessed",
    "yardstick",
]
