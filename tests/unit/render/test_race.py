"""The table of a race."""

from orchestrator.render.race import document, race_text
from orchestrator.verification import Lap, Spread


def lap(trainer, mfu):
    """A lap that succeeded."""
    speed = Spread(80_000.0, 79_000.0, 81_000.0, 20)
    return Lap(trainer, f"j-{trainer}", "SUCCEEDED", "", 30, speed, 27.0, 24.0, None, None, (), mfu=mfu)


def test_mfu_is_shown_where_a_peak_is_known():
    """The share of the peak is a column when one lap has it, and none where no device's peak is known."""
    shown = race_text("r", "local", 1, 30, [lap("torchtune", 0.437), lap("litgpt", None)], {}, None)
    assert "MFU" in shown and "44%" in shown and "not reported" in shown
    hidden = race_text("r", "local", 1, 30, [lap("torchtune", None)], {}, None)
    assert "MFU" not in hidden and "80,000" in hidden
    assert document([lap("torchtune", 0.437)], {}, None)["trainers"][0]["mfu"] == 0.437
