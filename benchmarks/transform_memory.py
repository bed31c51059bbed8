"""The memory of a batch transform: the largest resident size of its supervisor, by size of the input (Linux)."""

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from backends.base import Backend
from backends.specs import ModelSpec, Split, TransformSpec
from backends.stores import stream_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.figures import Figure
from benchmarks.places import BUCKET, SERVE, backend_with, plant_model

MEGABYTE = 1_000_000
SIZES_MB = (10, 100, 1000)
PAYLOADS_MB = (1, 6)
ROW = b"a film like any other, " * 40 + b"\n"
LOOK_SECONDS = 0.01


def figures() -> list[Figure]:
    """The rows for the table."""
    measured = measure()
    rows = []
    for payload_mb in PAYLOADS_MB:
        peaks = {size: measured[f"payload_{payload_mb}_input_{size}_mb_peak_mb"] for size in SIZES_MB}
        smallest, largest = min(SIZES_MB), max(SIZES_MB)
        rows.append(
            Figure(
                what=f"memory of a transform of {largest} MB, {payload_mb} MB a request",
                ours=f"{peaks[largest]:.0f} MB",
                peer=f"of {smallest} MB: {peaks[smallest]:.0f} MB",
                ratio=f"{peaks[largest] / peaks[smallest]:.2f}",
                target="0.8 to 1.2, under 150 MB",
            )
        )
    return rows


def measure(sizes_mb: tuple[int, ...] = SIZES_MB) -> dict[str, float]:
    """Megabytes for each size of input and of payload."""
    figures: dict[str, float] = {}
    with backend_with(serve=SERVE) as (backend, image):
        home = image.parent / "home"
        for payload_mb in PAYLOADS_MB:
            peaks = {size_mb: _peak(backend, home, size_mb, payload_mb) for size_mb in sizes_mb}
            figures |= {f"payload_{payload_mb}_input_{size_mb}_mb_peak_mb": peak for size_mb, peak in peaks.items()}
            figures[f"payload_{payload_mb}_largest_over_smallest"] = max(peaks.values()) / min(peaks.values())
    return figures


def _peak(backend: Backend, home: Path, size_mb: int, payload_mb: int) -> float:
    prefix = f"s3://{BUCKET}/{size_mb}"
    backend.store.write(f"{prefix}/in", stream_of(_rows(size_mb)))
    peaks: list[int] = []
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(home, peaks, over))
    watcher.start()
    try:
        name = f"job-{payload_mb}-{size_mb}"
        backend.transform.start(
            TransformSpec(
                name=name,
                model=ModelSpec(image="image", artifact_uri=plant_model(backend)),
                input_uri=f"{prefix}/",
                output_uri=f"{prefix}-out",
                content_type="text/csv",
                accept="text/csv",
                split=Split.LINE,
                assemble=Split.LINE,
                max_payload_mb=payload_mb,
            )
        )
        backend.transform.finish(name, timeout_seconds=1200)
    finally:
        over.set()
        watcher.join()
        backend.store.delete(f"{prefix}/in")
    return max(peaks) / MEGABYTE


def _rows(size_mb: int) -> Iterator[bytes]:
    block = ROW * (MEGABYTE // len(ROW))
    return (block for _ in range(size_mb))


def _watch(home: Path, peaks: list[int], over: threading.Event) -> None:
    supervisor: psutil.Process | None = None
    while not over.wait(LOOK_SECONDS):
        supervisor = supervisor or next(filter(_keeps_a_seat_in(home), psutil.process_iter()), None)
        if supervisor is not None:
            try:
                status = Path(f"/proc/{supervisor.pid}/status").read_text()
            except OSError:  # The one of the job before.
                supervisor = None
            else:
                peaks += [1024 * int(kibibytes) for kibibytes in re.findall(r"VmHWM:\s*(\d+)", status)]


def _keeps_a_seat_in(home: Path) -> Callable[[psutil.Process], bool]:
    def keeps_a_seat(process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if str(home) in command and "backends.engine.supervisor" in command:
                return any(Path(file.path).parent == home / "supervisors" for file in process.open_files())
        return False

    return keeps_a_seat


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:44} {value:10.2f}")
