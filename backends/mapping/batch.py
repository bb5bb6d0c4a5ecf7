"""The named couple batch: sequences a step, a device and a micro-batch. Written once, used by several trainers."""

from __future__ import annotations

from backends.mapping.rows import Context, Row, Unsupported, Values, couple


def batch_per_device(size: str, accumulation: str, *also: str) -> Row:
    """Trainers that count sequences per device and accumulate: global = size x accumulation x devices. `also` are keys that
    get the global batch.
    """

    def to(total: int, micro: int | None, context: Context) -> Values:
        one, times = split(total, micro, context)
        return one, times, *(total for _ in also)

    return couple(
        ("train.batch.global", "train.batch.micro"),
        (size, accumulation, *also),
        to,
        lambda one, times, *rest: (one * times * rest[-1].devices, one),
        why=f"{size} x {accumulation} x devices = train.batch.global",
    )


def batch_global(size: str, micro_size: str, *also: str) -> Row:
    """Trainers that count sequences per step over all devices and derive the accumulation."""

    def to(total: int, micro: int | None, context: Context) -> Values:
        return total, split(total, micro, context)[0], *(total for _ in also)

    return couple(
        ("train.batch.global", "train.batch.micro"),
        (size, micro_size, *also),
        to,
        lambda total, one, *_: (total, one),
        why=f"{micro_size} is per device; unset means the whole share of a device",
    )


def split(total: int, micro: int | None, context: Context) -> tuple[int, int]:
    """Sequences that a device takes at once, and how often per step."""
    if total % context.devices:
        raise Unsupported("train.batch.global", f"{total} sequences cannot be split over {context.devices} devices")
    share = total // context.devices
    one = micro or share
    if share % one:
        raise Unsupported("train.batch.micro", f"{one} does not divide the {share} sequences of each device")
    return one, share // one
