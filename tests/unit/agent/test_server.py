"""What goes through a channel to a host's server."""

import json
import os

from orchestrator.agent import server


def test_no_answer_hides_behind_the_number_of_its_frame(monkeypatch):
    """A frame has an `id`: an answer with one of its own would reach the asker with the frame's, so it is refused aloud."""
    monkeypatch.setitem(server.QUESTIONS, "which", lambda home, request: {"id": "4711"})
    asks, answers = os.pipe(), os.pipe()
    text = json.dumps({"op": "which", "id": 3}).encode()
    os.write(asks[1], server.LENGTHS.pack(len(text), 0) + text)
    assert server.Server(asks[0], answers[1]).turn()
    header, _ = server.LENGTHS.unpack(os.read(answers[0], server.LENGTHS.size))
    answer = json.loads(os.read(answers[0], header))
    assert answer["id"] == 3
    assert answer["refused"]
    assert "which" in answer["message"]
