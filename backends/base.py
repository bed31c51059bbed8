"""The four rooms of a backend, as the pipeline sees them.

``ObjectStore`` holds bytes, ``TrainingJobs`` and ``TransformJobs`` run programs over them,
``Endpoints`` keep one running. A ``Backend`` only holds the four and closes them.

A job is *planned* (pure: spec in, native requests out), then *submitted*; it lives in the world,
not in this object: any other process finds it by its name, and it goes on after :meth:`Backend.close`.
"""

import io
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Generic, Protocol, Self, TypeVar, runtime_checkable

from backends.errors import AlreadyExists, JobFailed, NotFound, NotSupported
from backends.specs import (
    EndpointSpec,
    EndpointState,
    EndpointStatus,
    JobState,
    JobStatus,
    ObjectInfo,
    Plan,
    Reply,
    TrainingSpec,
    TransformSpec,
)
from backends.waiting import SYSTEM_CLOCK, Clock, wait_until

SpecT = TypeVar("SpecT", TrainingSpec, TransformSpec)


class ObjectStore(ABC):
    """A flat namespace of byte objects addressed as ``s3://bucket/key``.

    A write is atomic: a reader sees the old bytes or the new, never a mix. Of two writers at once
    one wins whole. What was written is seen by every later read and listing.
    """

    @abstractmethod
    def ensure_bucket(self, bucket: str) -> None:
        """Make *bucket* unless it exists."""

    @abstractmethod
    def write(self, uri: str, source: BinaryIO, *, content_type: str = "application/octet-stream") -> ObjectInfo:
        """Replace the whole object by what *source* yields until its end, streamed.

        Raises:
            NotFound: the bucket does not exist.
        """

    @abstractmethod
    def reader(self, uri: str) -> BinaryIO:
        """Open the object for streaming; the caller closes it. It stays whole if replaced meanwhile.

        Raises:
            NotFound: nothing is stored at *uri*.
        """

    @abstractmethod
    def stat(self, uri: str) -> ObjectInfo:
        """Describe the object without reading it.

        Raises:
            NotFound: nothing is stored at *uri*.
        """

    @abstractmethod
    def delete(self, uri: str) -> None:
        """Remove the object; do nothing if it is already gone, as S3 does."""

    @abstractmethod
    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose URI starts with *prefix*, in UTF-8 byte order of their keys.

        *prefix* is a string prefix, not a folder. Objects written meanwhile may or may not appear.

        Raises:
            NotFound: the bucket does not exist.
        """

    # Derived: correct everywhere; override only where a cheaper way exists.
    def put(self, uri: str, data: bytes, *, content_type: str = "application/octet-stream") -> ObjectInfo:
        """Replace the whole object by *data*."""
        return self.write(uri, io.BytesIO(data), content_type=content_type)

    def get(self, uri: str) -> bytes:
        """Return the whole object. Raises NotFound as :meth:`reader` does."""
        with self.reader(uri) as stream:
            return stream.read()

    def exists(self, uri: str) -> bool:
        """True if something is stored at *uri*."""
        try:
            self.stat(uri)
        except NotFound:
            return False
        return True

    def upload(self, path: Path, uri: str, *, content_type: str = "application/octet-stream") -> ObjectInfo:
        """Store the file *path* at *uri*."""
        with path.open("rb") as source:
            return self.write(uri, source, content_type=content_type)

    def download(self, uri: str, path: Path) -> None:
        """Write the object to *path*, which is replaced; its folder must exist."""
        with self.reader(uri) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)

    def delete_prefix(self, prefix: str) -> int:
        """Remove every object whose URI starts with *prefix*; return how many there were."""
        doomed = [info.uri for info in self.list_objects(prefix)]
        for uri in doomed:
            self.delete(uri)
        return len(doomed)

    def close(self) -> None:  # noqa: B027  most stores hold nothing open
        """Let go of connections; objects stay."""


class Jobs(ABC, Generic[SpecT]):
    """Jobs of one kind. Names are unique for ever within a backend."""

    kind: str
    poll_seconds: float = 0.25

    @abstractmethod
    def plan(self, spec: SpecT) -> Plan:
        """Work out the native requests. Pure: no network, no clock, no disk.

        Raises:
            InvalidSpec: the spec can never be carried out.
        """

    @abstractmethod
    def submit(self, plan: Plan) -> None:
        """Send *plan*; returns as soon as the job is accepted.

        Raises:
            AlreadyExists: a job of that name exists or has existed.
            InvalidSpec: inputs, image or model are not there; nothing was created.
        """

    @abstractmethod
    def status(self, name: str) -> JobStatus:
        """What is known of the job. Raises NotFound."""

    @abstractmethod
    def stop(self, name: str) -> None:
        """Ask the job to stop; quiet if it has already ended. Raises NotFound."""

    @abstractmethod
    def names(self) -> Iterator[str]:
        """Yield the names of the known jobs, newest first."""

    @abstractmethod
    def discard(self, name: str) -> None:
        """Forget an ended job and the model made for it, as far as the place can; quiet if gone."""

    # Derived: correct everywhere.
    def start(self, spec: SpecT) -> str:
        """Plan and submit *spec*; return the job's name."""
        self.submit(self.plan(spec))
        return spec.name

    def wait(self, name: str, *, timeout_seconds: float | None = None, clock: Clock = SYSTEM_CLOCK) -> JobStatus:
        """Wait until the job has ended, whichever way, and return its last status.

        Raises:
            NotFound: no such job.
            WaitTimeout: it is still running; nothing was stopped.
        """
        return wait_until(
            lambda: self.status(name),
            lambda status: status.state.is_terminal,
            what=f"{self.kind} {name!r} to end",
            timeout_seconds=timeout_seconds,
            longest_pause_seconds=self.poll_seconds,
            clock=clock,
        )

    def finish(self, name: str, *, timeout_seconds: float | None = None) -> JobStatus:
        """Wait until the job has completed.

        Raises:
            JobFailed: it ended in another way; ``reason`` says why.
            WaitTimeout: it is still running.
        """
        status = self.wait(name, timeout_seconds=timeout_seconds)
        if status.state is JobState.COMPLETED:
            return status
        reason = status.reason or f"it was {status.state} ({status.phase or 'no reason given'})"
        raise JobFailed(
            f"{self.kind} {name!r} did not complete: {reason} (its log says more)",
            kind=self.kind,
            name=name,
            reason=reason,
        )


class TrainingJobs(Jobs[TrainingSpec]):
    """Training jobs: a program reads channels and leaves artifacts."""

    kind = "training job"


class TransformJobs(Jobs[TransformSpec]):
    """Batch transforms: a model answers every record of every input object."""

    kind = "transform job"


class Endpoints(ABC):
    """Models that stay up and answer."""

    kind = "endpoint"
    poll_seconds: float = 0.25

    @abstractmethod
    def plan(self, spec: EndpointSpec) -> Plan:
        """Work out the native requests that create the endpoint. Pure. Raises InvalidSpec."""

    @abstractmethod
    def plan_update(self, spec: EndpointSpec) -> Plan:
        """Work out those that change the endpoint of that name into *spec*. Pure. Raises InvalidSpec."""

    def plan_scaling(self, spec: EndpointSpec) -> Plan:
        """Work out those that let its instances follow the traffic, once it is in service. Pure.

        Raises:
            NotSupported: a variant is to scale, and this place has no number of instances.
        """
        if any(variant.scaling for variant in spec.variants):
            raise NotSupported(
                f"endpoint {spec.name!r} is to scale with its traffic, but here each variant is one container, so "
                "there is nothing to scale. Leave the scaling out, or use the AWS backend.",
                kind=self.kind,
                name=spec.name,
            )
        return Plan("scaling", spec.name, ())

    @abstractmethod
    def submit(self, plan: Plan) -> None:
        """Send *plan*; returns as soon as it is accepted. Callers are answered throughout an update.

        Raises:
            AlreadyExists: the name is taken.
            NotFound: the endpoint to be changed does not exist.
            Conflict: it is being created or changed.
            InvalidSpec: an image or a model is not there, or the endpoint cannot be changed so; nothing was created.
        """

    @abstractmethod
    def serves(self, spec: EndpointSpec) -> bool:
        """True if what the endpoint of that name answers with now is *spec*. Raises NotFound."""

    @abstractmethod
    def tidy(self, name: str) -> None:
        """Remove configurations and models of the endpoint that it does not use, as changes leave them."""

    @abstractmethod
    def status(self, name: str) -> EndpointStatus:
        """What is known of the endpoint. Raises NotFound, also once it is deleted."""

    @abstractmethod
    def invoke(
        self,
        name: str,
        body: bytes,
        *,
        content_type: str | None = None,
        accept: str | None = None,
        variant: str | None = None,
    ) -> Reply:
        """Send *body* to the model and return what it answered.

        Raises:
            NotFound: no such endpoint in service.
            Throttled: a serverless variant is in the middle of as many requests as it takes.
            ModelError: the container answered other than 2xx, too late or not at all.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Begin to remove the endpoint, its configurations and its models; quiet if gone.

        Raises:
            Conflict: it is being created or changed.
        """

    @abstractmethod
    def names(self) -> Iterator[str]:
        """Yield the names of the endpoints that exist, newest first."""

    # Derived: correct everywhere.
    def start(self, spec: EndpointSpec) -> str:
        """Plan and submit *spec*; return the endpoint's name."""
        self.submit(self.plan(spec))
        return spec.name

    def deploy(self, spec: EndpointSpec, *, timeout_seconds: float | None = None) -> bool:
        """Have the endpoint of that name serve *spec*: create it, or change it while it goes on answering.

        One that failed is made anew. Returns whether there was anything to do; *timeout_seconds* holds for each wait.

        Raises:
            JobFailed: it did not come into service, or went back to what it served before; ``reason`` says why.
            InvalidSpec: as :meth:`submit`; an endpoint on instances cannot become serverless.
            NotSupported: as :meth:`plan_scaling`; nothing was done.
            WaitTimeout: it has not settled yet.
        """
        scaling, name = self.plan_scaling(spec), spec.name
        state = self._settled(name, timeout_seconds)
        if state in {EndpointState.FAILED, EndpointState.OUT_OF_SERVICE}:
            self.delete(name)
            self.wait_deleted(name, timeout_seconds=timeout_seconds)
            state = None
        differs = state is None or not self.serves(spec)
        if differs:
            try:
                self.submit(self.plan(spec) if state is None else self.plan_update(spec))
            except AlreadyExists:
                if state is not None:
                    raise
                # Somebody else has just created it: change that one, if need be.
                return self.deploy(spec, timeout_seconds=timeout_seconds)
            status = self.wait_in_service(name, timeout_seconds=timeout_seconds)
            if not self.serves(spec):
                self.tidy(name)
                reason = status.reason or "no reason given"
                text = f"endpoint {name!r} goes on serving what it served before the change: {reason}"
                raise JobFailed(text, kind=self.kind, name=name, reason=reason)
        self.submit(scaling)
        self.tidy(name)
        return differs

    def wait_in_service(
        self, name: str, *, timeout_seconds: float | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> EndpointStatus:
        """Wait until the endpoint answers.

        Raises:
            JobFailed: it settled in another state; ``reason`` says why.
            WaitTimeout: it has not settled yet.
        """
        status = wait_until(
            lambda: self.status(name),
            lambda seen: seen.state.is_settled,
            what=f"endpoint {name!r} to be in service",
            timeout_seconds=timeout_seconds,
            longest_pause_seconds=self.poll_seconds,
            clock=clock,
        )
        if status.state is EndpointState.IN_SERVICE:
            return status
        raise JobFailed(
            f"endpoint {name!r} is {status.state}: {status.reason or 'no reason given'}. "
            "Its log says more; delete it before deploying again.",
            kind=self.kind,
            name=name,
            reason=status.reason,
        )

    def wait_deleted(self, name: str, *, timeout_seconds: float | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        """Wait until the endpoint is gone. Raises WaitTimeout."""
        wait_until(
            lambda: self._state(name),
            lambda seen: seen is None,
            what=f"endpoint {name!r} to be deleted",
            timeout_seconds=timeout_seconds,
            longest_pause_seconds=self.poll_seconds,
            clock=clock,
        )

    def _settled(self, name: str, timeout_seconds: float | None) -> EndpointState | None:
        """The state in which the endpoint stays; None if there is none."""
        return wait_until(
            lambda: self._state(name),
            lambda seen: seen is None or seen.is_settled,
            what=f"endpoint {name!r} to settle",
            timeout_seconds=timeout_seconds,
            longest_pause_seconds=self.poll_seconds,
        )

    def _state(self, name: str) -> EndpointState | None:
        try:
            return self.status(name).state
        except NotFound:
            return None


@runtime_checkable
class SupportsLogs(Protocol):
    """A room whose programs' output can be read."""

    def log_lines(self, name: str, *, follow: bool = False) -> Iterator[str]:
        """Yield the lines so far, without line ends; with *follow* go on until the job has ended.

        Raises:
            NotFound: no such job or endpoint.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One place where the pipeline can run. Closing it stops nothing that runs there."""

    name: str
    place: str
    store: ObjectStore
    training: TrainingJobs
    transform: TransformJobs
    endpoints: Endpoints
    closing: Callable[[], None] = field(default=lambda: None, repr=False)

    def close(self) -> None:
        """Let go of connections; jobs, endpoints and objects stay."""
        self.store.close()
        self.closing()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
