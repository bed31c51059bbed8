"""CloudWatch Logs over the output of the engine's programs (contract D.1). Nothing can be written, only deleted.

A program's output has no times of its own here: an event bears the time at which its stream began.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from backends.emulator.protocol.models import Members
from backends.emulator.services import Service
from backends.engine import Engine
from backends.engine.logs import masked
from backends.engine.site import ENDPOINT, TRAINING, TRANSFORM
from backends.engine.state import Resource
from backends.sagemaker.readings import ServiceError

_JOB_GROUPS = {"/aws/sagemaker/TrainingJobs": TRAINING, "/aws/sagemaker/TransformJobs": TRANSFORM}
_ENDPOINT_GROUP = "/aws/sagemaker/Endpoints/"
_MOST_EVENTS = 10_000
_MOST_BYTES = 1 << 20
_LONGEST_EVENT_BYTES = 256 * 1024
_TOKEN = re.compile(r"[fb]/(\d{1,20})")


@dataclass(frozen=True)
class _Stream:
    name: str
    path: Path
    began_ms: int

    def described(self) -> Members:
        return {
            "logStreamName": self.name,
            "creationTime": self.began_ms,
            "firstEventTimestamp": self.began_ms,
            "lastEventTimestamp": self.began_ms,
            "lastIngestionTime": self.began_ms,
            "storedBytes": 0,
        }


class Logs(Service):
    """One group for each kind of job and for each endpoint, one stream for each of their log files."""

    name = "logs"

    def __init__(self, engine: Engine) -> None:
        self._site = engine.site

    def describe_log_groups(self, request: Members) -> Members:
        """DescribeLogGroups."""
        endpoints = [_ENDPOINT_GROUP + endpoint.name for endpoint in self._site.state.every(ENDPOINT)]
        groups = sorted([*_JOB_GROUPS, *endpoints])
        wanted = [
            name
            for name in groups
            if name.startswith(request.get("logGroupNamePrefix", "")) and request.get("logGroupNamePattern", "") in name
        ]
        return {"logGroups": [{"logGroupName": name, "storedBytes": 0} for name in wanted]}

    def describe_log_streams(self, request: Members) -> Members:
        """DescribeLogStreams, by name or by their last event, a page at a time."""
        prefix = request.get("logStreamNamePrefix", "")
        found = [stream for stream in self._streams(request["logGroupName"]) if stream.name.startswith(prefix)]
        if request.get("orderBy") == "LastEventTime":
            found.sort(key=lambda stream: (stream.began_ms, stream.name))
        else:
            found.sort(key=lambda stream: stream.name)
        if request.get("descending"):
            found.reverse()
        start, size = int(request.get("nextToken", "0")), request.get("limit", 50)
        answer: Members = {"logStreams": [stream.described() for stream in found[start : start + size]]}
        if start + size < len(found):
            answer["nextToken"] = str(start + size)
        return answer

    def get_log_events(self, request: Members) -> Members:
        """GetLogEvents from the head or onward from a token; a token comes back as it was when there is nothing new."""
        stream = self._stream(request["logGroupName"], request["logStreamName"])
        size = stream.path.stat().st_size
        limit = request.get("limit", _MOST_EVENTS)
        token = request.get("nextToken")
        if token is not None:
            found = _TOKEN.fullmatch(token)
            if not found:
                raise ServiceError("InvalidParameterException", "The specified nextToken is invalid.")
            start = min(int(found[1]), size)
        elif request.get("startFromHead"):
            start = 0
        else:
            start = _last_lines(stream.path, limit)
        events, end = _read(stream, start, limit)
        if stream.began_ms < request.get("startTime", 0) or stream.began_ms >= request.get("endTime", 1 << 62):
            events = []
        return {"events": events, "nextForwardToken": f"f/{end}", "nextBackwardToken": f"b/{start}"}

    def filter_log_events(self, request: Members) -> Members:
        """FilterLogEvents: the events whose text holds the pattern, streams one after the other."""
        wanted = request.get("logStreamNames")
        prefix = request.get("logStreamNamePrefix", "")
        pattern = request.get("filterPattern", "").strip().strip('"')
        limit = request.get("limit", _MOST_EVENTS)
        position, offset = (int(part) for part in request.get("nextToken", "0/0").split("/"))
        streams = sorted(self._streams(request["logGroupName"]), key=lambda stream: stream.name)
        streams = [s for s in streams if s.name.startswith(prefix) and (wanted is None or s.name in wanted)]
        streams = [s for s in streams if request.get("startTime", 0) <= s.began_ms < request.get("endTime", 1 << 62)]
        events: list[Members] = []
        while position < len(streams) and len(events) < limit:
            stream = streams[position]
            found, end = _read(stream, offset, limit - len(events))
            events += [
                {**event, "logStreamName": stream.name, "eventId": f"{position}/{offset}/{number}"}
                for number, event in enumerate(found)
                if pattern in event["message"]
            ]
            position, offset = (position + 1, 0) if end == offset else (position, end)
        answer: Members = {"events": events, "searchedLogStreams": []}
        if position < len(streams):
            answer["nextToken"] = f"{position}/{offset}"
        return answer

    def delete_log_stream(self, request: Members) -> Members:
        """DeleteLogStream."""
        self._stream(request["logGroupName"], request["logStreamName"]).path.unlink(missing_ok=True)
        return {}

    def delete_log_group(self, request: Members) -> Members:
        """DeleteLogGroup: the streams go. The group itself is there as long as what it belongs to."""
        for stream in self._streams(request["logGroupName"]):
            stream.path.unlink(missing_ok=True)
        return {}

    def _stream(self, group: str, name: str) -> _Stream:
        for stream in self._streams(group):
            if stream.name == name:
                return stream
        raise ServiceError("ResourceNotFoundException", "The specified log stream does not exist.")

    def _streams(self, group: str) -> Iterator[_Stream]:
        if group in _JOB_GROUPS:
            for job in self._site.state.every(_JOB_GROUPS[group]):
                yield from self._of(job)
            return
        endpoint = group.startswith(_ENDPOINT_GROUP) and self._site.state.find(
            ENDPOINT, group.removeprefix(_ENDPOINT_GROUP)
        )
        if not endpoint:
            raise ServiceError("ResourceNotFoundException", "The specified log group does not exist.")
        yield from self._of(endpoint)

    def _of(self, resource: Resource) -> Iterator[_Stream]:
        began = int(resource.created)
        instance = "i-" + sha256(f"{resource.name}@{resource.created}".encode()).hexdigest()[:17]
        for path in sorted(self._site.folder(resource).glob("*.log")):
            if resource.kind == TRAINING:
                name = f"{resource.name}/{path.stem}-{began}"
            elif resource.kind == ENDPOINT:
                name = f"{path.stem.partition('@')[0]}/{instance}" + path.stem.partition("@")[2]
            else:
                name = f"{resource.name}/{instance}-{began}" + ("/data-log" if path.stem == "data" else "")
            yield _Stream(name, path, began * 1000)


def _read(stream: _Stream, start: int, limit: int) -> tuple[list[Members], int]:
    """Whole lines from the byte *start* on, and the byte after the last of them."""
    events: list[Members] = []
    with stream.path.open("rb") as file:
        file.seek(start)
        end = start
        while len(events) < limit and end - start < _MOST_BYTES:
            line = file.readline(_LONGEST_EVENT_BYTES)
            if not line or (not line.endswith(b"\n") and len(line) < _LONGEST_EVENT_BYTES):
                break  # The rest of it is still to come.
            end += len(line)
            text = masked(line.decode(errors="replace").rstrip("\r\n"))
            events.append({"timestamp": stream.began_ms, "ingestionTime": stream.began_ms, "message": text})
    return events, end


def _last_lines(path: Path, limit: int) -> int:
    """Where the last *limit* lines begin, within the last megabyte."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(start := max(0, size - _MOST_BYTES))
        tail = file.read()
    if start:
        start += tail.find(b"\n") + 1
        tail = tail[tail.find(b"\n") + 1 :]
    ends = [match.end() for match in re.finditer(rb"\n", tail)]
    return start if len(ends) <= limit else start + ends[-limit - 1]
