"""MaxText's keys for the optimizer and its rate."""

from __future__ import annotations

from backends.mapping.rows import Context, Row, Unsupported, Value, Values, const, couple, handled_by_us, same
from backends.mapping.schedule import rates
from backends.trainers.maxtext.data import JOB
from backends.trainers.maxtext.method import SEE

OPTIMIZERS = SEE + "optimizers/optimizers.py"
MOMENTS = "https://github.com/google-deepmind/optax/blob/v0.2.6/optax/tree_utils/_tree_math.py"
MUON = "https://github.com/google-deepmind/optax/blob/v0.2.6/optax/contrib/_muon.py"


_LACKS = {
    **dict.fromkeys(("adamw_8bit", "paged_adamw_8bit", "adafactor"), ("MaxText has adamw, adam_pax, sgd and muon", OPTIMIZERS)),
    "muon": ("Optax's Muon corrects the bias of its momentum and multiplies in the weights' type; torch's does neither", MUON),
}
"""Our word -> why there is none, and upstream's word on it."""


def _name() -> Row:
    """The optimizer and its decay, which MaxText's SGD has not."""
    keys = ("opt_type", "adam_weight_decay")

    def to(name: str, decay: float, _: Context) -> Values:
        if name in _LACKS:
            why, see = _LACKS[name]
            raise Unsupported("optim.name", why, see=see, fallback=dict(zip(keys, ("adamw", decay), strict=True)))
        if name == "sgd" and decay:
            why = "MaxText's SGD has no decay"
            raise Unsupported("optim.weight_decay", why, see=OPTIMIZERS, fallback=dict(zip(keys, (name, 0.0), strict=True)))
        return name, decay

    def back(name: str, decay: Value, _: Context) -> Values:
        return name, decay

    return couple(("optim.name", "optim.weight_decay"), keys, to, back, status="same")


def optimizer() -> tuple[Row, ...]:
    """The section optim."""
    spared = [".*norm.*", ".*bias.*"]
    return (
        _name(),
        handled_by_us("optim.fused", "XLA compiles the whole step"),
        rates("learning_rate", "learning_rate_final_fraction"),
        couple(
            ("optim.betas",),
            ("adam_b1", "adam_b2"),
            lambda v, _: tuple(v),
            lambda one, two, _: ([one, two],),
            status="approximated",
            why="rounded to the type of the optimizer's state: 0.9 is 0.8984 with train.precision bf16, and 0.9 with the others",
            see=MOMENTS,
        ),
        same("optim.eps", "adam_eps"),
        const("adam_eps_root", 0.0, "no setting asks for it"),
        couple(
            ("optim.decay_on",),
            ("adamw_mask",),
            lambda on, _: ([] if on == "all" else spared,),
            lambda mask, _: ("matrices" if mask else "all",),
            why="patterns of what is spared",
        ),
        couple(
            ("optim.schedule",),
            ("lr_schedule_type", "wsd_decay_style", f"{JOB}:schedule"),
            lambda kind, _: ("cosine" if kind == "cosine" else "wsd", "linear", kind),
            lambda *values: (values[2],),
            why="linear and constant are warm-up, stable, decay",
        ),
        couple(
            ("optim.warmup_steps", "optim.warmup_share"),
            (f"{JOB}:warmup_steps", f"{JOB}:warmup_share"),
            lambda count, share, _: (count, share),
            lambda count, share, _: (count, share),
            why="warmup_steps_fraction: written on the host, which knows the steps",
        ),
    )
