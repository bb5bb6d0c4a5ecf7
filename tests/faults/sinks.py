"""Services to send notices to: an HTTP server and a mail server of this process, which keep what they got."""

import asyncio
import json
import re
import threading
import time
from contextlib import contextmanager
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aiosmtpd.smtp import SMTP


class Sink:
    """What arrived."""

    def __init__(self, port=0):
        self.port, self.texts, self.times = port, [], []
        self.fails, self.hangs = 0, threading.Event()
        self.hangs.set()

    def take(self, text):
        self.times.append(time.time())
        self.texts.append(text)

    def numbers(self):
        """Numbers of events in the order in which they arrived."""
        return [int(number) for text in self.texts for number in re.findall(r"^\[(\d+)\]", text, re.MULTILINE)]


@contextmanager
def http_sink():
    """Takes what Apprise's `json://` sends. The next `fails` calls get status 503; while `hangs` is not set, calls get no answer."""
    sink = Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            sink.hangs.wait()
            if sink.fails:
                sink.fails -= 1
                self.send_response(503)
            else:
                sink.take(body["message"])
                self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        sink.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield sink
        sink.hangs.set()
        server.shutdown()


class _Mail:
    def __init__(self, sink):
        self.sink = sink

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802 - aiosmtpd's name
        parts = [part for part in message_from_bytes(envelope.content).walk() if part.get_content_type() == "text/plain"]
        self.sink.take(parts[0].get_payload(decode=True).decode().replace("\r\n", "\n"))
        return "250 taken"


@contextmanager
def smtp_sink():
    """Takes mail."""
    sink, loop = Sink(), asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: SMTP(_Mail(sink)), "127.0.0.1", 0))
    sink.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield sink
    server.close()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
