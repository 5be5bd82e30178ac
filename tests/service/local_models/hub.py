"""A model hub on loopback that serves one file with ranges and can be told to break off."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """Serves `content`; each of `breaks` ends one answer after so many bytes; `asked` holds Range headers."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.breaks: list[int] = []
        self.asked: list[str | None] = []
        self.paths: list[str] = []
        self.status: int | None = None
        self.linked_etag: str | None = None
        self.tells_length = True
        self.knows_ranges = True
        self.endpoint = ""


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/file"):
                self._send_file()
                return
            hub.paths.append(self.path)
            # As the real hub: the resolve address redirects to the storage and names the content's sha256.
            self.send_response(302)
            self.send_header("Location", "/file")
            if hub.linked_etag:
                self.send_header("X-Linked-Etag", f'"{hub.linked_etag}"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send_file(self) -> None:
            asked = self.headers.get("Range")
            hub.asked.append(asked)
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and hub.knows_ranges else 0
            body = hub.content[start:]
            self.send_response(hub.status or (206 if start else 200))
            if hub.tells_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: hub.breaks.pop(0)] if hub.breaks else body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
