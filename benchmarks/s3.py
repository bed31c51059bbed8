"""Objects over HTTP, against moto's S3 server: the same plain client, in turns, in one run."""

import http.client
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.figures import Figure

SIZES = {"1 KB": (1000, 300), "1 MB": (10**6, 40), "100 MB": (10**8, 4)}
ROUNDS = 5
# Neither checks the signature; moto wants to see one.
SCOPE = "Credential=test/20260101/us-east-1/s3/aws4_request"
HEADERS = {
    "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
    "Authorization": f"AWS4-HMAC-SHA256 {SCOPE}, SignedHeaders=host, Signature={'0' * 64}",
}
BUCKET = "benchmark"
TARGETS = {"1 KB": 5, "1 MB": None, "100 MB": 2}


def figures() -> list[Figure]:
    """The rows for the table."""
    measured = measure()
    rows: list[Figure] = []
    for size, (size_bytes, _) in SIZES.items():
        for verb in ("PUT", "GET"):
            ours, peer = measured[f"greenroom {verb} {size}"], measured[f"moto {verb} {size}"]
            target = TARGETS[size]
            rows.append(
                Figure(
                    what=f"S3 {verb} of {size}, one client",
                    ours=_shown(ours, size_bytes),
                    peer=f"moto server {_shown(peer, size_bytes)}",
                    ratio=f"{ours / peer:.1f}",
                    target=f"≥ {target}" if target else "",
                )
            )
    before, after = measured["greenroom peak MB before 1 GB"], measured["greenroom peak MB after 1 GB"]
    rows.append(
        Figure(
            what="S3: peak memory of the server after a PUT and a GET of 1 GB",
            ours=f"{after:.0f} MB",
            peer=f"before them {before:.0f} MB",
            ratio=f"{after / before:.2f}",
            target="flat",
        )
    )
    return rows


def measure() -> dict[str, float]:
    """Requests per second for each server, verb and size: the median of rounds in turns."""
    with ExitStack() as opened:
        servers = {"greenroom": opened.enter_context(_greenroom()), "moto": opened.enter_context(_moto())}
        rates: dict[str, list[float]] = {}
        for url, _ in servers.values():
            _request(http.client.HTTPConnection(urlsplit(url).netloc), "PUT", f"/{BUCKET}")
        for size, (size_bytes, count) in SIZES.items():
            body = os.urandom(size_bytes)
            for _ in range(ROUNDS):
                for name, (url, _process) in servers.items():
                    for verb in ("PUT", "GET"):
                        rates.setdefault(f"{name} {verb} {size}", []).append(_rate(url, verb, body, count))
        measured = {what: statistics.median(values) for what, values in rates.items()}
        url, process = servers["greenroom"]
        measured["greenroom peak MB before 1 GB"] = _peak_bytes(process) / 1e6
        _round_trip_of_1_gb(url)
        measured["greenroom peak MB after 1 GB"] = _peak_bytes(process) / 1e6
    return measured


def _rate(url: str, verb: str, body: bytes, count: int) -> float:
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    began = time.perf_counter()
    for number in range(count):
        _request(connection, verb, f"/{BUCKET}/{len(body)}/{number % 100}", body if verb == "PUT" else None)
    passed = time.perf_counter() - began
    connection.close()
    return count / passed


def _request(connection: http.client.HTTPConnection, verb: str, path: str, body: bytes | None = None) -> None:
    connection.request(verb, path, body=body, headers=HEADERS)
    response = connection.getresponse()
    buffer = bytearray(1 << 20)
    while response.readinto(buffer):
        pass
    assert response.status == 200, (verb, path, response.status)


def _round_trip_of_1_gb(url: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    piece, count = os.urandom(10**6), 1000
    headers = HEADERS | {"Content-Length": str(len(piece) * count)}
    connection.request("PUT", f"/{BUCKET}/large", body=(piece for _ in range(count)), headers=headers)
    assert connection.getresponse().read() == b""
    _request(connection, "GET", f"/{BUCKET}/large")
    connection.close()


def _peak_bytes(process: psutil.Process) -> int:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(process)


@contextmanager
def _greenroom() -> Iterator[tuple[str, psutil.Process]]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "greenroom.toml"
        config.write_text(f'home = "{folder}/home"\n')
        port = _free_port()
        program = [
            str(Path(sys.executable).with_name("greenroom")),
            "serve",
            "--port",
            str(port),
            "--config",
            str(config),
        ]
        with _running(program, port) as process:
            yield f"http://127.0.0.1:{port}", process


@contextmanager
def _moto() -> Iterator[tuple[str, psutil.Process]]:
    port = _free_port()
    with _running([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port) as process:
        yield f"http://127.0.0.1:{port}", process


@contextmanager
def _running(program: list[str], port: int) -> Iterator[psutil.Process]:
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, program
                time.sleep(0.1)
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _shown(rate: float, size_bytes: int) -> str:
    return f"{rate:.0f} requests/s" if size_bytes < 10**6 else f"{rate * size_bytes / 1e6:.0f} MB/s"


if __name__ == "__main__":
    for what, value in measure().items():
        print(f"{what:40} {value:10.1f}")
