"""How long a person waits for help, and how heavy the framework's import is, beside a bare interpreter."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.figures import Figure

_ROUNDS = 15


def figures() -> list[Figure]:
    """Whole processes, in turns with `python -c pass`; medians."""
    sentiment = str(Path(sys.executable).with_name("sentiment"))
    commands = {
        "sentiment --help": [sentiment, "--help"],
        "import backends": [sys.executable, "-c", "import backends"],
        "bare": [sys.executable, "-c", "pass"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(_ROUNDS):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - started)
    bare = statistics.median(seconds["bare"])
    rows = []
    for name, limit in (("sentiment --help", 0.3), ("import backends", 0.1)):
        ours = statistics.median(seconds[name])
        shown = ours if name.startswith("sentiment") else ours - bare
        rows.append(
            Figure(
                what=f"`{name}`",
                ours=f"{shown * 1000:.0f} ms",
                peer=f"bare interpreter {bare * 1000:.0f} ms",
                ratio=f"{ours / bare:.1f}",
                target=f"≤ {limit:g} s",
            )
        )
    return rows
