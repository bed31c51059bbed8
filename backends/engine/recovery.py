"""Setting right what a crash has left, whenever an engine is opened.

A resource that should be carried but whose supervisor is dead: what it started is ended; a job becomes ``Failed``
with a reason, an endpoint is started again by a new supervisor, an endpoint on its way out is gone. Several engines
may do this at once: every step can be repeated, and of several new supervisors the first one recorded stays.
"""

import time
from dataclasses import replace

from backends.engine import layout
from backends.engine.hosting import IN_PROGRESS, forget
from backends.engine.runners import RunnerFailed, make_runner
from backends.engine.site import ENDED, ENDPOINT, TRAINING, TRANSFORM, Site
from backends.engine.state import Document, Resource
from backends.engine.supervision import Supervisor, is_alive, runner_of, seats, vacate
from backends.errors import NotSupported

_REASON = (
    "InternalServerError: the process that carried this job was killed, or the machine was restarted. Nothing was "
    "uploaded after that; run it again under a new name."
)


def recover(site: Site) -> None:
    """Leave nothing InProgress for ever and no orphan process."""
    for kind in (TRAINING, TRANSFORM):
        for job in site.state.every(kind):
            if job.facts["status"] not in ENDED and not _is_carried(site, job):
                _bury(site, job)
    for endpoint in site.state.every(ENDPOINT):
        if endpoint.facts["status"] not in ENDED and not _is_carried(site, endpoint):
            _take_over(site, endpoint)
    for seat in seats(site.settings.home):
        if not is_alive(site.settings.home, seat) and _sweep(site, seat):
            vacate(site.settings.home, seat)


def _is_carried(site: Site, resource: Resource) -> bool:
    return is_alive(site.settings.home, resource.facts["seat"])


def _sweep(site: Site, seat: str) -> bool:
    """End what is left of *seat*; False if its runner cannot be reached now, so that the next engine tries again."""
    try:
        make_runner(replace(site.settings, runner=runner_of(seat))).sweep(seat)
    except (RunnerFailed, NotSupported):
        return False
    return True


def _bury(site: Site, job: Resource) -> None:
    _sweep(site, job.facts["seat"])
    now = time.time()

    def change(facts: Document) -> bool:
        if facts["status"] in ENDED:
            return False
        facts |= {"status": "Failed", "FailureReason": _REASON}
        if job.kind == TRAINING:
            facts["TrainingEndTime"] = now
            facts["transitions"][-1].setdefault("EndTime", now)
            facts["transitions"].append(
                {"Status": "Failed", "StartTime": now, "EndTime": now, "StatusMessage": _REASON}
            )
        else:
            facts["TransformEndTime"] = now
        return True

    site.state.edit(job, change)
    folder = site.folder(job)
    for leftover in folder.iterdir() if folder.exists() else ():
        if leftover.is_dir():
            layout.remove(leftover)


def _take_over(site: Site, endpoint: Resource) -> None:
    """Hand the endpoint to a new supervisor with the dead one's runner; of several engines that try, one does it."""
    dead = endpoint.facts["seat"]
    if not _sweep(site, dead):
        return
    supervisor = Supervisor(site.nursery, runner=runner_of(dead))

    def change(facts: Document) -> bool:
        if facts["seat"] != dead or facts["status"] == "Deleting":
            return False
        facts["seat"] = supervisor.seat
        if facts["status"] not in IN_PROGRESS:
            facts["status"] = "SystemUpdating"
        facts.pop("shift", None)
        facts.get("pending", {})["stage"] = "Creating"
        for variant in facts["variants"]:
            variant.pop("address", None)
        return True

    facts = site.state.edit(endpoint, change)
    if facts is not None and facts["seat"] == supervisor.seat:
        supervisor.carry(ENDPOINT, endpoint.name)
        return
    supervisor.dismiss()
    if facts is not None and facts["seat"] == dead:
        forget(site, endpoint)
