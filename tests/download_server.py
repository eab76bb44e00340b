"""A server of one file that misbehaves as it is told."""

import hashlib
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from skill.utils.download import Remote

CONTENT = random.Random(0).randbytes(1_000_017)
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content`; `behave(handler, first)` may do something else and return True."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag, self.ranges = CONTENT, '"one"', True
        self.requests: list[int] = []  # the first byte that each request gets
        self.behave: Callable[[Handler, int], bool] = lambda *_: False

    @property
    def remote(self) -> Remote:
        return Remote(f"http://127.0.0.1:{self.server_port}/a.tar.gz", len(CONTENT), SHA)

    def handle_error(self, *_: object) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", self.server.tag) == self.server.tag
        ranged = asked is not None and self.server.ranges and same
        first = int(asked[1]) if asked and ranged else 0
        self.server.requests.append(first)
        if self.server.behave(self, first):
            self.close_connection = True
            return
        self.head(first)
        self.wfile.write(self.server.content[first:])

    def head(self, first: int) -> None:
        total = len(self.server.content)
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        self.send_header("ETag", self.server.tag)
        self.send_header("Content-Length", str(total - first))
        self.end_headers()

    def part(self, first: int, size: int) -> bool:
        """Promise all, send `size` bytes."""
        self.head(first)
        self.wfile.write(self.server.content[first : first + size])
        self.wfile.flush()
        return True


@contextmanager
def serving() -> Iterator[Server]:
    """A server that runs."""
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}
