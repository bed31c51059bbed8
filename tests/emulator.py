"""The emulator: an application on a free port of this process, or ``greenroom serve`` as users start it."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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


@contextmanager
def served(folder: Path, *options: str, port: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``greenroom serve`` over the state in *folder*: its URL and its process."""
    command = [str(Path(sys.executable).with_name("greenroom")), "serve", "--port", str(port), *options]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = re.search(r"http://[^ ]+", process.stderr.readline())
        assert found
        threading.Thread(target=process.stderr.read, daemon=True).start()  # Lest its log fill the pipe.
        try:
            yield found.group(), process
        finally:
            process.terminate()
            process.wait(30)
