"""Pairs for a reward model as axolotl renders them: its type `bradley_terry.chat_template`, for rows as they are.

Its docs say that `system` may be missing. Its code looks it up in each row (prompt_strategies/bradley_terry/chat_template.py), and of one that
is there and empty makes an empty turn (prompt_strategies/chat_template.py, get_conversation_thread). A module of its own, since the processes
that render rows import it by name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from axolotl.prompt_strategies.bradley_terry.chat_template import BTChatTemplateStrategy


class Row(dict[str, Any]):
    """A row that answers with None where it is asked for what it has not."""

    def __missing__(self, key: str) -> None:
        return None


class Pairs(BTChatTemplateStrategy):
    """Goes in the place of axolotl's own class. Columns that are called otherwise are named in trainer.json."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.columns = json.loads(Path("trainer.json").read_text()).get("columns")

    def _tokenize_single_prompt(self, prompt: Any) -> dict[str, Any]:
        """The ids of both answers, each with what was asked before it."""
        columns = self.columns or {name: name for name in ("input", "chosen", "rejected")}
        row = Row({theirs: prompt[ours] for ours, theirs in columns.items()})
        if prompt.get("system"):
            row["system"] = prompt["system"]
        return super()._tokenize_single_prompt(row)
