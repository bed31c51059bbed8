"""Objects over HTTP, against moto's S3 server and LocalStack's: the same plain client, in turns, in one run."""

import http.client
import os
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.figures import Figure
from benchmarks.servers import Client, authorization, greenroom, localstack, moto

SIZES = {"1 KB": (1000, 300), "1 MB": (10**6, 20), "100 MB": (10**8, 2)}
ROUNDS = 5
HEADERS = {"x-amz-content-sha256": "UNSIGNED-PAYLOAD", "Authorization": authorization("s3")}
BUCKET = "benchmark"
SERVERS = {"greenroom": greenroom, "moto": moto, "LocalStack": localstack}
PEERS = {"moto": "moto server", "LocalStack": "LocalStack"}
TARGETS = {("moto", "1 KB"): "≥ 5", ("moto", "100 MB"): "≥ 2"}


def figures() -> list[Figure]:
    """The rows for the table."""
    measured = measure()
    rows: list[Figure] = []
    for size, (size_bytes, _) in SIZES.items():
        for verb in ("PUT", "GET"):
            ours = measured[f"greenroom {verb} {size}"]
            for name, shown in PEERS.items():
                peer = measured.get(f"{name} {verb} {size}")
                if peer is not None:
                    rows.append(
                        Figure(
                            what=f"S3 {verb} of {size}, one client",
                            ours=_shown(ours, size_bytes),
                            peer=f"{shown} {_shown(peer, size_bytes)}",
                            ratio=f"{ours / peer:.1f}",
                            target=TARGETS.get((name, size), "-"),
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
        started = {name: opened.enter_context(of()) for name, of in SERVERS.items()}
        servers = {name: server for name, server in started.items() if server is not None}
        clients = {name: Client(server.url, HEADERS) for name, server in servers.items()}
        rates: dict[str, list[float]] = {}
        for client in clients.values():
            client.ask("PUT", f"/{BUCKET}")
        for size, (size_bytes, count) in SIZES.items():
            body = os.urandom(size_bytes)
            for _ in range(ROUNDS):
                for name, client in clients.items():
                    for verb in ("PUT", "GET"):
                        rates.setdefault(f"{name} {verb} {size}", []).append(_rate(client, verb, body, count))
        measured = {what: statistics.median(values) for what, values in rates.items()}
        url, process = servers["greenroom"]
        measured["greenroom peak MB before 1 GB"] = _peak_bytes(process) / 1e6
        _round_trip_of_1_gb(url)
        measured["greenroom peak MB after 1 GB"] = _peak_bytes(process) / 1e6
    return measured


def _rate(client: Client, verb: str, body: bytes, count: int) -> float:
    began = time.perf_counter()
    for number in range(count):
        client.ask(verb, f"/{BUCKET}/{len(body)}/{number % 100}", body if verb == "PUT" else b"")
    return count / (time.perf_counter() - began)


def _round_trip_of_1_gb(url: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    piece, count = os.urandom(10**6), 1000
    headers = HEADERS | {"Content-Length": str(len(piece) * count)}
    connection.request("PUT", f"/{BUCKET}/large", body=(piece for _ in range(count)), headers=headers)
    assert connection.getresponse().read() == b""
    connection.close()
    client = Client(url, HEADERS)
    client.ask("GET", f"/{BUCKET}/large")
    client.close()


def _peak_bytes(process: psutil.Process) -> int:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(process)


def _shown(rate: float, size_bytes: int) -> str:
    return f"{rate:.0f} requests/s" if size_bytes < 10**6 else f"{rate * size_bytes / 1e6:.0f} MB/s"


if __name__ == "__main__":
    for what, value in measure().items():
        print(f"{what:40} {value:10.1f}")
