"""A local server for tests of downloads, which can break off and change its files."""

import http.server
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Server(http.server.ThreadingHTTPServer):
    """Args: files: name -> content."""

    def __init__(self, files: Mapping[str, bytes]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(files)
        self.requests: list[tuple[str, str | None]] = []  # name, and its Range header
        self.stop_after: int | None = None  # bytes of an answer
        self.changed = False  # since the download began
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, name, span = self.server, self.path[1:], self.headers.get("Range")
        server.requests.append((name, span))
        if name not in server.files:
            return self.send_error(404)
        if server.changed and self.headers.get("If-Unmodified-Since"):
            return self.send_error(412)
        start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        body = server.files[name][start:]
        if span and not body:
            return self.send_error(416)
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.stop_after])

    def log_message(self, *arguments) -> None:
        pass


@contextmanager
def file_server(files: Mapping[str, bytes]) -> Iterator[Server]:
    """Serves the files inside the ``with`` block."""
    server = Server(files)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
