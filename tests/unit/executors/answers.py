"""An HTTP server that gives set answers, for what a real engine cannot be made to say."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def answering(answers):
    """Its URL. `answers`: beginning of a path, or `METHOD PATH`, -> a document, a text, or (status, text); anything else is 404."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            keys = [key for key in answers if f"{self.command} {self.path}" == key or self.path.startswith(key)]
            said = answers[keys[0]] if keys else (404, "there is no such thing")
            status, body = said if isinstance(said, tuple) else (200, said)
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815  # the names that http.server looks for

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
