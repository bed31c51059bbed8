"""What there is on a backend, for people: a listing of jobs and endpoints, and the log of any of them."""

from collections.abc import Iterator
from typing import Any

from backends.base import Backend, SupportsLogs
from backends.errors import NotFound, NotSupported
from backends.specs import EndpointStatus, JobStatus

_SHOWN = 100


def overview(backend: Backend) -> list[dict[str, str]]:
    """Every job and endpoint, newest first within its kind: kind, name, state, seconds and reason."""
    rows = []
    for room in (backend.endpoints, backend.training, backend.transform):
        for number, name in enumerate(room.names()):
            if number == _SHOWN:
                break
            rows.append(_row(room.kind, room.status(name)))
    return rows


def overview_table(place: str, rows: list[dict[str, str]]) -> str:
    """The listing as text."""
    if not rows:
        return f"nothing on {place} yet; `sentiment run` makes a start"
    widths = {key: max(len(row[key]) for row in rows) for key in ("kind", "name", "state", "created")}
    lines = [f"on {place}:"]
    lines += [
        "  ".join(row[key].ljust(width) for key, width in widths.items()) + f"  {row['reason']}".rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def find_logs(backend: Backend, name: str, *, follow: bool) -> Iterator[str]:
    """The log of the job or endpoint called *name*.

    Raises:
        NotFound: there is none.
        NotSupported: the backend keeps no logs.
    """
    for room in (backend.endpoints, backend.training, backend.transform):
        try:
            room.status(name)
        except NotFound:
            continue
        if not isinstance(room, SupportsLogs):
            raise NotSupported(f"the backend {backend.name} keeps no logs of a {room.kind}.", kind=room.kind, name=name)
        return room.log_lines(name, follow=follow)
    raise NotFound(
        f"no job and no endpoint on {backend.place} is called {name!r}; `sentiment status` lists them.", name=name
    )


def _row(kind: str, status: JobStatus | EndpointStatus | Any) -> dict[str, str]:
    return {
        "kind": kind,
        "name": status.name,
        "state": str(status.state),
        "created": status.created.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        "reason": status.reason.partition("\n")[0],
    }
