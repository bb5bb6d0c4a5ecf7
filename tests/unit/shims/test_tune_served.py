"""Is what is served what was trained? What a server says of rows, held against the trainer's figures."""

import json
import math

import pytest
import tune_apart
import tune_served

IDS = [5, 9, 200, 31]
SAID = [-1.0, -2.0, -3.0]


@pytest.fixture
def spec(tmp_path):
    """A server's settings, with the figures of one row."""
    scores = {"framework": "LitGPT", "dtype": "float32", "rows": [{"ids": IDS, "logprobs": SAID}]}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    models = [{"name": "tiny", "folder": "model"}, {"name": "base", "folder": "base"}]
    more = {"program": "tune_server.py", "engine": "tune_server.py", "dtype": "auto", "max_length": None, "models": models}
    return {"check": str(tmp_path / "scores.json"), **more}


def answering(told):
    """A server that tells these log-probabilities of whatever it is asked."""
    return lambda _: {"choices": [{"logprobs": {"token_logprobs": told}}]}


def test_the_distance_and_its_place_are_told(spec):
    """The largest one over every model that is the trained one; vLLM's token more than was asked for is none of the row's."""
    found = tune_served.compared(spec, answering([None, -1.0, -2.5, -3.0, -9.0]))
    assert (found.distance, found.where, found.tolerance) == (0.5, "tiny, row 1, token 3", 1e-5)
    assert tune_served.compared({**spec, "max_length": 3}, answering([None, -1.0])).distance == 0


@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_nan_is_no_agreement(spec, place):
    """Wherever it stands, also before figures that are right."""
    told = [None, *SAID]
    told[place] = math.nan
    found = tune_served.compared(spec, answering(told))
    assert not found.distance <= found.tolerance
    assert found.where.endswith(f"token {place + 1}")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ([], "tiny tells 0 of the 3 log-probabilities of row 1"),
        ([None, -1.0], "tiny tells 1 of the 3 log-probabilities of row 1"),
        (None, "tiny tells no log-probabilities of row 1"),
        ([None, None, None, None], "no log-probability of it is known"),
    ],
)
def test_a_server_that_tells_nothing_does_not_agree(spec, told, said):
    """What was not compared is not the same."""
    with pytest.raises(ValueError, match=said):
        tune_served.compared(spec, answering(told))


def test_what_nobody_told_is_passed_over():
    """A None is no distance, and the rest decides."""
    assert tune_apart.farthest([(1.0, None, "a"), (1.0, 1.25, "b"), (1.0, 1.0, "c")]) == (0.25, "b")
