"""A small real HTTP server: the page's files, and replies to ``predict`` and ``about`` as a test scripts them."""

import json
import math
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WEB = Path(__file__).resolve().parents[2] / "web"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
WEIGHTS = {
    "beautiful": 0.71, "superb": 0.94, "haunting": 0.38, "perfect": 0.66, "excellent": 0.9, "lovely": 0.5,
    "simply": 0.12, "quiet": 0.09, "good": 0.3, "great": 0.62, "film": 0.02, "scene": -0.05, "two": -0.04,
    "bad": -0.8, "dull": -0.92, "mess": -0.75, "flat": -0.4, "worst": -1.4, "no": -0.3, "but": -0.12, "last": -0.09,
}  # fmt: skip
BIAS = 0.03


@dataclass(frozen=True)
class Reply:
    """One scripted answer.

    ``released`` holds it back, ``hangs_up`` closes the connection without a word, ``is_cut_off`` before the last byte.
    """

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    hangs_up: bool = False
    is_cut_off: bool = False
    released: threading.Event | None = None


def reply(document: object, status: int = 200, released: threading.Event | None = None) -> Reply:
    """Reply with *document* as JSON."""
    return Reply(json.dumps(document).encode(), status, released=released)


def raw(body: bytes, status: int = 200, content_type: str = "application/json") -> Reply:
    """Reply with exactly these bytes."""
    return Reply(body, status, content_type)


HANG_UP = Reply(b"", hangs_up=True)
CUT_OFF = Reply(b'{"label": "positive", "probability": 0.9}', is_cut_off=True)


def verdict(text: str, probability: float | None = None) -> dict[str, Any]:
    """Answer as the handler does, from a handful of weighed words; *probability* overrides what they say."""
    words = [{"text": run, "weight": WEIGHTS.get(run.lower(), 0.0)} for run in re.findall(r"\w+|\W+", text)]
    margin = BIAS + sum(word["weight"] for word in words)
    chance = 1 / (1 + math.exp(-1.6 * margin)) if probability is None else probability
    label = "positive" if chance >= 0.5 else "negative"
    origin = {"endpoint": "imdb-sentiment", "variant": "AllTraffic", "backend": "local"}
    return {"label": label, "probability": chance, "bias": BIAS, "margin": margin, "words": words, **origin}


@dataclass
class Stage:
    """What a test holds: where the page is, what it was asked, and what it will answer.

    ``expects_failures`` and ``expects_violations`` say which complaints of the browser are the test's own doing.
    """

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    script: deque[Reply] = field(default_factory=deque)
    about: Reply = field(default_factory=lambda: reply({"endpoint": "imdb-sentiment", "backend": "local"}))
    sends_csp: bool = True
    expects_failures: bool = False
    expects_violations: bool = False
    held: list[threading.Event] = field(default_factory=list)

    def says(self, *replies: Reply) -> None:
        """Answer the next questions with *replies*, in order; after them the words decide again."""
        self.script.extend(replies)
        self.held += [each.released for each in replies if each.released is not None]
        self.expects_failures |= any(each.status >= 400 or each.hangs_up or each.is_cut_off for each in replies)

    def next_reply(self, question: dict[str, Any]) -> Reply:
        """Note *question* and take its answer."""
        self.asked.append(question)
        return self.script.popleft() if self.script else reply(verdict(question["text"]))


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = "/index.html" if self.path == "/" else self.path
        file = WEB / path.removeprefix("/")
        if path == "/about":
            self._send(self.server.stage.about)
        elif file.is_file() and file.parent == WEB:
            self._send(raw(file.read_bytes(), content_type=CONTENT_TYPES[file.suffix]))
        else:
            self._send(reply({"message": "Not Found"}, 404))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self._send(self.server.stage.next_reply(json.loads(body)))

    def _send(self, answer: Reply) -> None:
        if answer.released is not None:
            answer.released.wait(timeout=20)
        self.close_connection = answer.hangs_up or answer.is_cut_off
        if answer.hangs_up:
            return
        self.send_response(answer.status)
        self.send_header("content-type", answer.content_type)
        self.send_header("content-length", str(len(answer.body) + answer.is_cut_off))
        self.send_header("x-content-type-options", "nosniff")
        self.send_header("referrer-policy", "no-referrer")
        if self.server.stage.sends_csp:
            self.send_header("content-security-policy", CSP)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's parameter name
        """Stay quiet; pytest shows what matters."""


class _Server(ThreadingHTTPServer):
    stage: Stage

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that cancels a request resets its connection; that is no error here."""


@contextmanager
def open_stage() -> Iterator[Stage]:
    """Serve on a free port of 127.0.0.1 until the block ends."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.stage = Stage(url=f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.stage
        finally:
            for event in server.stage.held:
                event.set()
            server.shutdown()
            thread.join()
