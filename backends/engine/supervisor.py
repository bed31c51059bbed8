"""The program of the nursery, and of the supervisors that are forked from it: carry one job or endpoint to its end.

Started by :mod:`backends.engine.supervision`. Orders, each with the descriptor of a locked seat, come through the
socket that is its standard input; the socket's end means that the engine is closed, or dead.
"""

import gc
import json
import os
import resource
import signal
import socket
import sys
import time
from dataclasses import replace
from importlib import import_module

# Loaded before the first order is read, while the parent still checks the request.
from backends.engine import training_run  # noqa: F401
from backends.engine.runners import Runner, RunnerFailed, make_runner
from backends.engine.settings import EngineSettings
from backends.engine.site import ENDPOINT, TRAINING, TRANSFORM, Site, open_site
from backends.engine.supervision import ORDER_BYTES, runner_of, vacate

_CARRIERS = {
    TRAINING: "backends.engine.training_run",
    TRANSFORM: "backends.engine.transform_run",
    ENDPOINT: "backends.engine.hosting_run",
}
_SWEEP_SECONDS = 60.0
_SWEEP_PAUSE_SECONDS = 1.0


def main() -> None:
    """Fork a supervisor for each order. An exception in one leaves its seat behind, for the next engine to sweep."""
    settings = EngineSettings.from_json(json.loads(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    make_runner(settings)
    order = _next_order(settings)
    if order is None:
        return
    site = open_site(replace(settings, runner=runner_of(order["seat"])))
    _carry(site, order["kind"], order["name"])
    _sweep(site.runner, order["seat"])
    site.close()  # Whoever sees the seat empty may remove the whole home.
    vacate(settings.home, order["seat"])


def _next_order(settings: EngineSettings) -> dict[str, str] | None:
    """Return an order in the process that was forked for it and keeps its seat locked; None in the nursery, at last."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Its children leave no zombies behind.
    with socket.socket(fileno=os.dup(0)) as door:
        while True:
            text, locks, _, _ = socket.recv_fds(door, ORDER_BYTES, 1)
            text += door.recv(ORDER_BYTES - len(text), socket.MSG_WAITALL)
            if len(text) < ORDER_BYTES:
                return None
            if os.fork() == 0:
                _stand_alone()
                os.set_inheritable(locks[0], False)  # noqa: FBT003  what it starts must not keep its seat
                order: dict[str, str] = json.loads(text)
                return order
            os.close(locks[0])
            _load(settings)


def _stand_alone() -> None:
    """Become a process like any other, which the end of the nursery or of a terminal does not reach."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _load(settings: EngineSettings) -> None:
    """Load what any supervisor may need, so that the next ones need not; the first one is on its way already."""
    for module in (*_CARRIERS.values(), "backends.engine.archives", "backends.engine.metrics"):
        import_module(module)
    import_module("backends.stores.s3" if settings.s3_endpoint_url else "backends.stores.files")
    gc.freeze()  # Forked processes share what no collection touches.


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
    if found is not None:
        import_module(_CARRIERS[kind]).run(site, found)
