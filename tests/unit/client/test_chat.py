"""A conversation with a server: the key that it is given, and a reply that does not come to its end."""

import http.server
import threading

import pytest

from backends.plan import Input
from backends.stages.registry import STAGES
from backends.stages.stage import HubModel, StageContext
from orchestrator.client.chat import Endpoint, key_of, reply
from orchestrator.client.errors import MissingSecret, Unreachable
from orchestrator.client.stages import checked
from orchestrator.home import Home

PIECE = b'data: {"choices": [{"delta": {"content": "half"}}]}\n\n'


def served(context, **settings):
    """The plan of a server."""
    return STAGES["serve"].plan(checked("serve", settings), context)


def test_the_key_is_the_one_that_the_server_asks_for(home, monkeypatch):
    """By the name in its settings: the hub's token, with which a private model is fetched, is told to no server."""
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    monkeypatch.setenv("SERVE_KEY", "canary-key")
    private = StageContext("tiny", hub=HubModel("org/private"), token=True)
    found = Home.find()
    assert key_of(served(private, key_name="SERVE_KEY"), found) == "canary-key"
    assert key_of(served(private), found) == ""
    monkeypatch.delenv("HF_TOKEN")
    here = StageContext("tiny", model=Input("inputs/model", "checkpoint"))
    assert key_of(served(here, key_name="SERVE_KEY"), found) == "canary-key"
    monkeypatch.delenv("SERVE_KEY")
    with pytest.raises(MissingSecret, match="SERVE_KEY"):
        key_of(served(here, key_name="SERVE_KEY"), found)


class Broken(http.server.BaseHTTPRequestHandler):
    """Ends in the midst of a reply, in one of three ways."""

    protocol_version = "HTTP/1.1"
    way = ""

    def do_POST(self):
        """Half a reply."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.close_connection = True
        if self.way == "at once":
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(f"{len(PIECE):x}\r\n".encode() + PIECE + b"\r\n")
        if self.way == "without its end":
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        """Nothing."""


@pytest.mark.parametrize("way", ["at once", "in a piece", "without its end"])
def test_a_reply_that_does_not_come_to_its_end_is_told(way):
    """What came is given, and that the server ended is an error of the domain, never a reply that looks whole."""
    handler = type("Handler", (Broken,), {"way": way})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = Endpoint(f"http://127.0.0.1:{server.server_port}/v1", ("tiny",), "")
        found = []
        with pytest.raises(Unreachable) as told:
            found.extend(reply(where, [{"role": "user", "content": "hello"}]))
        server.shutdown()
    if way != "at once":
        assert "ended before its reply did" in str(told.value)
