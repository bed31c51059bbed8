"""Runs every benchmark, writes ``results/<date>.json`` and the table in ``docs/performance.md``.

Each module beside this one has ``figures() -> list[Figure]``: what was measured, beside its peer or limit from the same
run. Absolute numbers are of the machine named; the ratios are what is claimed.
"""

import argparse
import importlib
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "performance.md"
MODULES = (
    "training_overhead",
    "invoke",
    "transform",
    "transform_memory",
    "application",
    "model",
    "page",
    "s3",
    "startup",
)
MARKS = ("<!-- figures -->", "<!-- end of figures -->")


def main() -> None:
    """Run the benchmarks named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help="only these")
    wanted = parser.parse_args().modules or MODULES
    figures: dict[str, Any] = {}
    for name in wanted:
        print(f"== {name}", file=sys.stderr)
        figures[name] = importlib.import_module(f"benchmarks.{name}").figures()
    moment = datetime.now(UTC)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    document = {"when": moment.isoformat(timespec="seconds"), "machine": machine(), "figures": figures}
    if set(wanted) == set(MODULES):
        (results / f"{moment:%Y-%m-%d}.json").write_text(json.dumps(document, indent=2) + "\n")
        publish(document)
    else:
        print(json.dumps(document, indent=2))


def machine() -> dict[str, Any]:
    """What was measured on."""
    model = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def publish(document: dict[str, Any]) -> None:
    """Put the figures between the marks of docs/performance.md."""
    described = document["machine"]
    cores = f"{described['cores']} cores ({described['cpu']})"
    lines = [
        f"Measured {document['when'][:10]} on {cores}, {described['memory_gb']} GB, Python {described['python']}.",
        "",
        "| what | ours | beside | ratio | target |",
        "|---|---|---|---|---|",
    ]
    for rows in document["figures"].values():
        lines += [
            f"| {row['what']} | {row['ours']} | {row['peer']} | {row['ratio']} | {row['target']} |" for row in rows
        ]
    before, rest = DOCUMENT.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    DOCUMENT.write_text(before + "\n".join([MARKS[0], "", *lines, "", MARKS[1]]) + after)


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
