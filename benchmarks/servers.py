"""The emulator and its peers as servers of their own, and a client that costs next to nothing."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil

from benchmarks.places import free_port

LOCALSTACK = Path(__file__).parents[1] / "scripts" / "localstack.sh"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"HTTP/1\.0|\r\nconnection: *close", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_PIECE_BYTES = 1 << 20
_START_SECONDS = 60


def authorization(service: str) -> str:
    """The header of a request to *service* that looks signed; no server here checks more."""
    scope = f"Credential=test/20260101/us-east-1/{service}/aws4_request"
    return f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature={'0' * 64}"


class Server(NamedTuple):
    """Where it listens, and its process."""

    url: str
    process: psutil.Process


class Client:
    """One client, with a connection that it keeps if the server does; of a reply it reads the status and the length.

    ``http.client`` takes longer to read a reply's head than the emulator to make it, which would hide the servers.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        """*headers* go with every request."""
        address = urlsplit(url)
        self._address = (address.hostname, address.port)
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in {"Host": address.netloc, **headers}.items())
        self._buffer = bytearray(_PIECE_BYTES)
        self._socket: socket.socket | None = None

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        """Send one request; the first megabyte of the answer's body. Raises AssertionError: the status is not 200."""
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"{method} {path} HTTP/1.1\r\n{self._headers}{more}Content-Length: {len(body)}\r\n\r\n".encode()
        if self._socket is None:
            self._socket = socket.create_connection(self._address)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(body) < _PIECE_BYTES:
            self._socket.sendall(head + body)
        else:
            self._socket.sendall(head)
            self._socket.sendall(body)
        return self._answer(self._socket, f"{method} {path}")

    def close(self) -> None:
        """Give the connection up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _answer(self, sock: socket.socket, what: str) -> bytes:
        received = b""
        while b"\r\n\r\n" not in received:
            piece = sock.recv(_PIECE_BYTES)
            assert piece, f"{what}: no answer"
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        left = int(length[1]) - len(body) if length else sys.maxsize
        while left > 0 and (length or not body.endswith(_LAST_CHUNK)):
            count = sock.recv_into(self._buffer, min(left, _PIECE_BYTES))
            if not count:
                break
            left -= count
            if length is None or len(body) < _PIECE_BYTES:
                body += self._buffer[:count]
        if _CLOSES.search(head):
            self.close()
        assert head.split(b" ", 2)[1] == b"200", (what, head, body[:500])
        return body


@contextmanager
def greenroom(place: Path | None = None, settings: str = "") -> Iterator[Server]:
    """``greenroom serve`` with its home in the folder *place*, else in a new one; *settings* are lines of TOML."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "greenroom.toml"
        config.write_text(f'home = "{place or folder}/home"\n{settings}')
        port = free_port()
        program = str(Path(sys.executable).with_name("greenroom"))
        with _running([program, "serve", "--port", str(port), "--config", str(config)], port) as server:
            yield server


@contextmanager
def moto() -> Iterator[Server]:
    """Moto's server."""
    port = free_port()
    with _running([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port) as server:
        yield server


@contextmanager
def localstack() -> Iterator[Server | None]:
    """LocalStack as a process of this machine; None where scripts/localstack.sh has not installed it."""
    if subprocess.run([LOCALSTACK, "is_installed"], check=False).returncode:
        print("   LocalStack is left out: make test-localstack installs it", file=sys.stderr)
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PORT": "0"}
        started = subprocess.run(
            [LOCALSTACK, "start", folder], env=environment, stdout=subprocess.PIPE, check=True, text=True
        )
        try:
            process = psutil.Process(int((Path(folder) / "localstack" / "pid").read_text()))
            yield Server(started.stdout.strip(), process)
        finally:
            subprocess.run([LOCALSTACK, "stop", folder], check=True)


@contextmanager
def _running(program: list[str], port: int) -> Iterator[Server]:
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(10 * _START_SECONDS):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, program
                time.sleep(0.1)
        yield Server(f"http://127.0.0.1:{port}", psutil.Process(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
