"""Runs a suite of benchmarks, writes ``results/<date>-<suite>.json`` and its table in ``docs/performance.md``.

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
SUITES = {
    "figures": (
        "training_overhead",
        "invoke",
        "transform",
        "transform_memory",
        "application",
        "model",
        "page",
        "s3",
        "startup",
    ),
    "docker-figures": ("containers",),
}


def main() -> None:
    """Run a suite, or only the benchmarks named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help="only these, printed")
    parser.add_argument("--suite", choices=SUITES, default="figures", help="written to docs/performance.md")
    chosen = parser.parse_args()
    wanted = chosen.modules or SUITES[chosen.suite]
    # Programs are measured as they run where they are installed, which is with compiled modules.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    figures: dict[str, Any] = {}
    for name in wanted:
        print(f"== {name}", file=sys.stderr)
        figures[name] = importlib.import_module(f"benchmarks.{name}").figures()
    moment = datetime.now(UTC)
    document = {"when": moment.isoformat(timespec="seconds"), "machine": machine(), "figures": figures}
    text = json.dumps(document, indent=2) + "\n"
    if chosen.modules:
        print(text)
        return
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / f"{moment:%Y-%m-%d}-{chosen.suite}.json").write_text(text)
    publish(document, chosen.suite)


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


def publish(document: dict[str, Any], suite: str) -> None:
    """Put the figures between the suite's marks in docs/performance.md."""
    begin, end = f"<!-- {suite} -->", f"<!-- end of {suite} -->"
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
    before, rest = DOCUMENT.read_text().split(begin)
    after = rest.split(end)[1]
    DOCUMENT.write_text(before + "\n".join([begin, "", *lines, "", end]) + after)


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
