"""Setting right what a crash has left, whenever an engine is opened.

A resource that should be carried but whose supervisor is dead: what it started is ended; a job becomes ``Failed``
with a reason, an endpoint is started again by a new supervisor, an endpoint on its way out is gone.
"""

import shutil
import time

from backends.engine.hosting import IN_PROGRESS
from backends.engine.site import ENDPOINT, TRAINING, TRANSFORM, Site
from backends.engine.state import Document, Resource
from backends.engine.supervision import Supervisor, clear_seats, is_alive
from backends.engine.training import TERMINAL
from backends.engine.training_run import label

_REASON = (
    "InternalServerError: the process that carried this job was killed, or the machine was restarted. Nothing was "
    "uploaded after that; run it again under a new name."
)


def recover(site: Site) -> None:
    """Leave nothing InProgress for ever and no orphan process."""
    for kind in (TRAINING, TRANSFORM):
        for job in site.state.every(kind):
            if job.facts["status"] not in TERMINAL and not _has_supervisor(site, job):
                _bury(site, job)
    for endpoint in site.state.every(ENDPOINT):
        if endpoint.facts["status"] != "Failed" and not _has_supervisor(site, endpoint):
            _take_over(site, endpoint)
    clear_seats(site.settings.home)


def is_carried(site: Site, resource: Resource) -> bool:
    """True while something runs for *resource*."""
    status = resource.facts["status"]
    return status not in TERMINAL and status != "Failed" and _has_supervisor(site, resource)


def _has_supervisor(site: Site, resource: Resource) -> bool:
    return is_alive(site.settings.home, resource.facts["seat"])


def _bury(site: Site, job: Resource) -> None:
    site.runner.sweep(label(job))
    now = time.time()

    def change(facts: Document) -> bool:
        if facts["status"] in TERMINAL:
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

    site.state.edit(job.kind, job.name, change)
    for leftover in ("ml", "tmp", "container"):
        shutil.rmtree(site.folder(job.kind, job.name) / leftover, ignore_errors=True)


def _take_over(site: Site, endpoint: Resource) -> None:
    """Hand the endpoint to a new supervisor; of several engines that try, one does it."""
    site.runner.sweep(label(endpoint))
    if endpoint.facts["status"] == "Deleting":
        site.state.remove(ENDPOINT, endpoint.name)
        shutil.rmtree(site.folder(ENDPOINT, endpoint.name), ignore_errors=True)
        return
    supervisor = Supervisor(site.settings)

    def change(facts: Document) -> bool:
        if facts["seat"] != endpoint.facts["seat"]:
            return False
        facts["seat"] = supervisor.seat
        if facts["status"] not in IN_PROGRESS:
            facts["status"] = "SystemUpdating"
        return True

    facts = site.state.edit(ENDPOINT, endpoint.name, change)
    if facts is not None and facts["seat"] == supervisor.seat:
        supervisor.carry(ENDPOINT, endpoint.name)
    else:
        supervisor.dismiss()
