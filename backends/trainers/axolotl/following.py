"""axolotl's rows in the other release that a recipe may ask for (`release.NEXT`): the same keys, with that release's source as evidence.

What the two differ in (utils/schemas of both wheels) is no key that our rows write: gone are `fsdp`, `fsdp_config.sync_module_states` and
`.use_orig_params`; what is new is off unless it is asked for. keys-next.txt holds those that `native.axolotl` may have there.
"""

from __future__ import annotations

from collections.abc import Callable

from backends.mapping.rows import Context, Row, Unsupported, Value, Values, Variant
from backends.records import replace
from backends.trainers.axolotl.method import TRL
from backends.trainers.axolotl.release import NEXT, RELEASE

Rows = Callable[[Variant], tuple[Row, ...]]

_MOVED = {RELEASE.source(): NEXT.source(), TRL: TRL.replace("v1.9.0", "v1.14.1")}


def next_rows(rows: Rows) -> Rows:
    """A table of rows whose addresses of upstream source are those of the other release."""
    return lambda variant: tuple(map(_moved, rows(variant)))


def _moved(row: Row) -> Row:
    def to(*values: Value | Context) -> Values:
        try:
            return row.to(*values)
        except Unsupported as lost:
            lost.see = _address(lost.see)
            raise

    return replace(row, to=to, see=_address(row.see))


def _address(see: str) -> str:
    for here, there in _MOVED.items():
        see = see.replace(here, there)
    return see
