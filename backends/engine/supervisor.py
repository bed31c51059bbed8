"""The program of a supervisor process: carry one job or one endpoint to its end.

Started by :mod:`backends.engine.supervision`; reads one JSON order from its standard input. An empty input
means that it is not needed.
"""

import json
import resource
import sys
import time
from pathlib import Path

# Loaded before the order is read, while the parent still checks the request.
from backends.engine import training_run
from backends.engine.runners import Runner, RunnerFailed
from backends.engine.settings import EngineSettings
from backends.engine.site import ENDPOINT, TRAINING, TRANSFORM, Site, open_site
from backends.engine.supervision import vacate

_SWEEP_SECONDS = 60.0
_SWEEP_PAUSE_SECONDS = 1.0


def main() -> None:
    """Read the order and carry it out. An exception leaves the seat behind, for the next engine to sweep."""
    home, seat = Path(sys.argv[1]), sys.argv[2]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    text = sys.stdin.read()
    if text:
        order = json.loads(text)
        site = open_site(EngineSettings.from_json(order["settings"]))
        _carry(site, order["kind"], order["name"])
        _sweep(site.runner, seat)
        site.close()  # Whoever sees the seat empty may remove the whole home.
    vacate(home, seat)


def _sweep(runner: Runner, seat: str) -> None:
    """End what is still there: a program may have put processes into sessions of their own, a runner been lost."""
    deadline = time.monotonic() + _SWEEP_SECONDS
    while True:
        try:
            runner.sweep(seat)
        except RunnerFailed:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_SWEEP_PAUSE_SECONDS)
        else:
            return


def _carry(site: Site, kind: str, name: str) -> None:
    found = site.state.find(kind, name)
    if found is None:
        return
    if kind == TRAINING:
        training_run.run(site, found)
    elif kind == TRANSFORM:
        from backends.engine import transform_run  # noqa: PLC0415  an HTTP client is needed only here

        transform_run.run(site, found)
    elif kind == ENDPOINT:
        from backends.engine import hosting_run  # noqa: PLC0415

        hosting_run.run(site, found)
