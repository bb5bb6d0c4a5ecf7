"""Are two runs the same training, and how fast is each? Figures and verdicts from plans, points and what jobs leave. Pure."""

from orchestrator.verification.configs import accepted, round_trip
from orchestrator.verification.counts import Evidence, counts, parameters, parity, rates
from orchestrator.verification.curves import LOSS, Curve, Gap, Spread, Tolerance, agree, curve, gap, middle, spread
from orchestrator.verification.levels import LEVELS, Verdict
from orchestrator.verification.race import Lap, Run, laps, left_out, ties, unsteady, winner, yardstick
from orchestrator.verification.tokens import EXPECTED, tokens, unseen, witness_file, witnessed

__all__ = [
    "EXPECTED",
    "LEVELS",
    "LOSS",
    "Curve",
    "Evidence",
    "Gap",
    "Lap",
    "Run",
    "Spread",
    "Tolerance",
    "Verdict",
    "accepted",
    "agree",
    "counts",
    "curve",
    "gap",
    "laps",
    "left_out",
    "middle",
    "parameters",
    "parity",
    "rates",
    "round_trip",
    "spread",
    "ties",
    "tokens",
    "unseen",
    "unsteady",
    "winner",
    "witness_file",
    "witnessed",
    "yardstick",
]
