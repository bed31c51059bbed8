"""A local backend in a folder of its own, and images made of a few lines of Python, for the benchmarks."""

import io
import socket
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backends import Backend, open_backend
from backends.config import BackendConfig
from backends.local.backend import remove_home

BUCKET = "benchmark"

# A server with a thread for each connection that answers each line with a number: at once, or after the time that
# a small model would take (MODEL_US microseconds for a request and MODEL_ROW_US for each of its lines).
SERVE = """
import os, signal, socket, time
from socketserver import BaseRequestHandler, ThreadingTCPServer

BUSY = int(os.environ.get("MODEL_US", 0)), int(os.environ.get("MODEL_ROW_US", 0))

class Handler(BaseRequestHandler):
    def setup(self):
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle(self):
        file = self.request.makefile("rb")
        while first := file.readline():
            length = 0
            while (line := file.readline()) not in (b"\\r\\n", b""):
                if line[:15].lower() == b"content-length:":
                    length = int(line[15:])
            body = file.read(length)
            answer = self.answer(first, body)
            status = b"200 OK" if b"execution-parameters" not in first else b"404 Not Found"
            head = b"HTTP/1.1 %s\\r\\nContent-Type: text/csv\\r\\nContent-Length: %d\\r\\n\\r\\n"
            self.request.sendall(head % (status, len(answer)) + answer)

    def answer(self, first, body):
        if not first.startswith(b"POST"):
            return b""
        rows = body.count(b"\\n") + (not body.endswith(b"\\n"))
        if BUSY[0]:
            time.sleep((BUSY[0] + rows * BUSY[1]) / 1e6)
        return b"1\\n" * rows

class Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # A container's first process has to ask for it.
PORT = os.environ.get("SAGEMAKER_BIND_TO_PORT")
Server(("127.0.0.1", int(PORT)) if PORT else ("", 8080), Handler).serve_forever()
"""


@contextmanager
def backend_with(**programs: str) -> Iterator[tuple[Backend, Path]]:
    """An open local backend whose image ``image`` has *programs* (name → Python source), and the image's folder."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image"
        image.mkdir()
        for name, source in programs.items():
            (image / name).write_text(f"#!{sys.executable}\n{source}")
            (image / name).chmod(0o755)
        config = BackendConfig(home=Path(folder) / "home", images={"image": image})
        with open_backend(config) as backend:
            backend.store.ensure_bucket(BUCKET)
            yield backend, image
        remove_home(config)  # It waits for supervisors that are about to end.


def plant_model(backend: Backend) -> str:
    """Store an empty model; its URI."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz"):
        pass
    uri = f"s3://{BUCKET}/model.tar.gz"
    backend.store.put(uri, buffer.getvalue())
    return uri


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
