"""The emulator, or another application, on a free port of this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from backends.http_server import Server


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """*app* on a free port, in a thread."""
    ready = threading.Event()
    server = Server(app, on_ready=lambda url: ready.set())  # noqa: ARG005  the URL is known
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        assert ready.wait(20), "the server did not start"
        yield server.url
    finally:
        server.should_exit = True
        thread.join()
