"""A complete backend in this process's memory: for unit tests of pipelines, without disk, processes or time.

It is held to the same conformance suite as the real ones. An image is a pair of Python functions.
"""

import hashlib
import io
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import BinaryIO

from backends.base import Backend, Endpoints, ObjectStore, TrainingJobs, TransformJobs
from backends.engine import filters, records
from backends.errors import AlreadyExists, BackendError, InvalidSpec, ModelError, NotFound, Throttled
from backends.naming import check_name, join_uri, split_uri, training_output_uri
from backends.sagemaker.plans import check_endpoint, check_spot
from backends.specs import (
    EndpointSpec,
    EndpointState,
    EndpointStatus,
    JobState,
    JobStatus,
    ModelSpec,
    ObjectInfo,
    Plan,
    Reply,
    Request,
    Split,
    Strategy,
    TrainingSpec,
    TransformSpec,
)

Files = Mapping[str, bytes]
# (body, content type, accept) → (HTTP status, body, content type)
Model = Callable[[bytes, str | None, str | None], tuple[int, bytes, str]]


class ProgramFailed(Exception):
    """A training function ended as a program would with *exit_code*; the text is its failure file."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass
class TrainingRun:
    """What a training function sees: files of its channels and checkpoints by relative name; whether it shall stop."""

    channels: Mapping[str, Files]
    hyperparameters: Mapping[str, str]
    stopping: threading.Event = field(default_factory=threading.Event)
    log: list[str] = field(default_factory=list)
    model: dict[str, bytes] = field(default_factory=dict)
    checkpoints: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class MemoryImage:
    """*train* fills ``run.model`` or raises ProgramFailed; *serve* turns a model's files into a Model."""

    train: Callable[[TrainingRun], None]
    serve: Callable[[Files], Model]


def open_memory(images: Mapping[str, MemoryImage]) -> Backend:
    """A fresh, empty backend that knows *images*."""
    world = _World(images, MemoryStore())
    return Backend(
        name="memory",
        place="memory",
        store=world.store,
        training=_Training(world),
        transform=_Transform(world),
        endpoints=_Endpoints(world),
    )


class MemoryStore(ObjectStore):
    """Objects in a dictionary."""

    def __init__(self) -> None:
        self._buckets: dict[str, dict[str, tuple[ObjectInfo, bytes]]] = {}
        self._lock = threading.Lock()

    def ensure_bucket(self, bucket: str) -> None:
        split_uri(f"s3://{bucket}/", key_required=False)
        self._buckets.setdefault(bucket, {})

    def write(self, uri: str, source: BinaryIO, *, content_type: str = "application/octet-stream") -> ObjectInfo:
        bucket, key = split_uri(uri)
        data = source.read()
        info = ObjectInfo(
            uri=uri,
            size_bytes=len(data),
            etag=hashlib.md5(data, usedforsecurity=False).hexdigest(),
            modified=datetime.now(UTC),
            content_type=content_type,
        )
        with self._lock:
            self._bucket(bucket)[key] = (info, data)
        return info

    def reader(self, uri: str) -> BinaryIO:
        return io.BytesIO(self._entry(uri)[1])

    def stat(self, uri: str) -> ObjectInfo:
        return self._entry(uri)[0]

    def delete(self, uri: str) -> None:
        bucket, key = split_uri(uri)
        with self._lock:
            self._buckets.get(bucket, {}).pop(key, None)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        bucket, start = split_uri(prefix, key_required=False)
        with self._lock:
            found = [(key.encode(), info) for key, (info, _) in self._bucket(bucket).items() if key.startswith(start)]
        return (info for _, info in sorted(found, key=lambda pair: pair[0]))

    def _bucket(self, bucket: str) -> dict[str, tuple[ObjectInfo, bytes]]:
        try:
            return self._buckets[bucket]
        except KeyError:
            raise NotFound(f"bucket {bucket!r} does not exist in memory.", kind="bucket", name=bucket) from None

    def _entry(self, uri: str) -> tuple[ObjectInfo, bytes]:
        bucket, key = split_uri(uri)
        try:
            return self._buckets[bucket][key]
        except KeyError:
            raise NotFound(f"nothing is stored at {uri} in memory.", kind="object", name=uri) from None


@dataclass
class _World:
    images: Mapping[str, MemoryImage]
    store: ObjectStore

    def image(self, name: str) -> MemoryImage:
        if name not in self.images:
            raise InvalidSpec(
                f"image {name!r} is not known (known: {', '.join(self.images)}).", kind="image", name=name
            )
        return self.images[name]

    def require_objects(self, uri: str) -> None:
        try:
            if next(self.store.list_objects(uri), None) is not None:
                return
        except NotFound:
            pass
        raise InvalidSpec(f"no object lies below {uri}.", kind="input", name=uri)

    def model(self, spec: ModelSpec) -> Model:
        files: Files = {}
        if spec.artifact_uri:
            prefix = spec.artifact_uri + "/"
            files = {
                info.uri.removeprefix(prefix): self.store.get(info.uri) for info in self.store.list_objects(prefix)
            }
        return self.image(spec.image).serve(files)

    def check_model(self, spec: ModelSpec) -> None:
        self.image(spec.image)
        if spec.artifact_uri and not self.store.exists(spec.artifact_uri):
            raise InvalidSpec(f"no model lies at {spec.artifact_uri}.", kind="model", name=spec.artifact_uri)


@dataclass
class _Job:
    status: JobStatus
    thread: threading.Thread
    stopping: threading.Event
    log: list[str]


class _Shelf:
    """Jobs by name, oldest first."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._jobs: dict[str, _Job] = {}

    def begin(self, name: str, work: Callable[[_Job], JobStatus]) -> None:
        if name in self._jobs:
            raise AlreadyExists(f"{self.kind} {name!r} exists in memory.", kind=self.kind, name=name)
        status = JobStatus(name=name, state=JobState.IN_PROGRESS, created=datetime.now(UTC), phase="Training")

        def run() -> None:
            try:
                done = work(job)
            except BackendError as exc:
                done = replace(job.status, state=JobState.FAILED, reason=str(exc), phase="Failed")
            job.status = replace(done, ended=datetime.now(UTC))

        job = _Job(status, threading.Thread(target=run, daemon=True), threading.Event(), [])
        self._jobs[name] = job
        job.thread.start()

    def find(self, name: str) -> _Job:
        try:
            return self._jobs[name]
        except KeyError:
            raise NotFound(f"{self.kind} {name!r} does not exist in memory.", kind=self.kind, name=name) from None

    def stop(self, name: str) -> None:
        job = self.find(name)
        if not job.status.state.is_terminal:
            job.status = replace(job.status, state=JobState.STOPPING)
            job.stopping.set()

    def names(self) -> Iterator[str]:
        return reversed(list(self._jobs))

    def forget(self, name: str) -> None:
        self._jobs.pop(name, None)

    def log_lines(self, name: str, *, follow: bool) -> Iterator[str]:
        job = self.find(name)

        def lines() -> Iterator[str]:
            seen = 0
            while True:
                ended = not follow or not job.thread.is_alive()
                yield from job.log[seen : (seen := len(job.log))]
                if ended:
                    return
                job.thread.join(0.01)

        return lines()


class _Training(TrainingJobs):
    poll_seconds = 0.01

    def __init__(self, world: _World) -> None:
        self._world = world
        self._shelf = _Shelf(self.kind)

    def plan(self, spec: TrainingSpec) -> Plan:
        check_name(self.kind, spec.name)
        split_uri(spec.output_uri, key_required=False)
        check_spot(spec)
        return Plan(self.kind, spec.name, (Request("train", {"spec": spec}),))

    def submit(self, plan: Plan) -> None:
        spec = plan.requests[0].document["spec"]
        assert isinstance(spec, TrainingSpec)
        image = self._world.image(spec.image)
        for channel in spec.channels:
            self._world.require_objects(channel.uri)
        self._shelf.begin(spec.name, lambda job: self._train(spec, image, job))

    def _train(self, spec: TrainingSpec, image: MemoryImage, job: _Job) -> JobStatus:
        store = self._world.store
        channels = {
            channel.name: {info.uri.rpartition("/")[2]: store.get(info.uri) for info in store.list_objects(channel.uri)}
            for channel in spec.channels
        }
        run = TrainingRun(channels, spec.hyperparameters, job.stopping, job.log)
        artifact = training_output_uri(spec.output_uri, spec.name, "model.tar.gz")
        kept = f"{(spec.checkpoint_uri or '').rstrip('/')}/"
        if spec.checkpoint_uri:
            run.checkpoints |= {info.uri.removeprefix(kept): store.get(info.uri) for info in store.list_objects(kept)}
        try:
            image.train(run)
        except ProgramFailed as exc:
            reason = f"AlgorithmError: {exc}, exit code: {exc.exit_code}"
            return replace(job.status, state=JobState.FAILED, reason=reason, phase="Failed", artifact_uri=artifact)
        finally:
            if spec.checkpoint_uri:
                store.delete_prefix(kept)
                for name, data in run.checkpoints.items():
                    store.put(kept + name, data)
        store.put(artifact, b"")
        for name, data in run.model.items():
            store.put(f"{artifact}/{name}", data)
        state = JobState.STOPPED if job.stopping.is_set() else JobState.COMPLETED
        return replace(job.status, state=state, phase=state.name.title(), artifact_uri=artifact)

    def status(self, name: str) -> JobStatus:
        return self._shelf.find(name).status

    def stop(self, name: str) -> None:
        self._shelf.stop(name)

    def names(self) -> Iterator[str]:
        return self._shelf.names()

    def discard(self, name: str) -> None:
        self._shelf.forget(name)

    def log_lines(self, name: str, *, follow: bool = False) -> Iterator[str]:
        return self._shelf.log_lines(name, follow=follow)


class _Transform(TransformJobs):
    poll_seconds = 0.01

    def __init__(self, world: _World) -> None:
        self._world = world
        self._shelf = _Shelf(self.kind)

    def plan(self, spec: TransformSpec) -> Plan:
        check_name(self.kind, spec.name)
        split_uri(spec.output_uri, key_required=False)
        return Plan(self.kind, spec.name, (Request("transform", {"spec": spec}),))

    def submit(self, plan: Plan) -> None:
        spec = plan.requests[0].document["spec"]
        assert isinstance(spec, TransformSpec)
        self._world.check_model(spec.model)
        processing = _processing(spec)
        self._world.require_objects(spec.input_uri)
        self._shelf.begin(spec.name, lambda job: self._transform(spec, processing, job))

    def _transform(self, spec: TransformSpec, processing: filters.DataProcessing, job: _Job) -> JobStatus:
        model, reason = self._world.model(spec.model), ""
        _, prefix = split_uri(spec.input_uri, key_required=False)
        for info in list(self._world.store.list_objects(spec.input_uri)):
            if job.stopping.is_set():
                return replace(job.status, state=JobState.STOPPED)
            _, key = split_uri(info.uri)
            try:
                data = b"".join(self._answers(spec, processing, model, info.uri))
            except (ModelError, records.BadObject) as exc:
                server = isinstance(exc, ModelError) and exc.status >= 500
                reason = reason or f"{'Algorithm' if server else 'Client'}Error: See job logs for more information"
                job.log.append(f"{info.uri}: {exc}")
            else:
                self._world.store.put(join_uri(spec.output_uri, records.output_key(prefix, key)), data)
        state = JobState.FAILED if reason else JobState.COMPLETED
        return replace(job.status, state=state, reason=reason, output_uri=spec.output_uri)

    def _answers(
        self, spec: TransformSpec, processing: filters.DataProcessing, model: Model, uri: str
    ) -> Iterator[bytes]:
        limit = (
            records.DEFAULT_MAX_PAYLOAD_BYTES if spec.max_payload_mb is None else spec.max_payload_mb * records.MEBIBYTE
        )
        packing = records.Packing(
            split=spec.split, strategy=spec.strategy or Strategy.MULTI_RECORD, max_payload_bytes=limit
        )
        with self._world.store.reader(uri) as stream:
            source = records.gunzip(stream) if spec.gzip_input else stream
            for batch in records.split_batches(source, packing):
                body = processing.request_body(batch.body, first_record=batch.first_record)
                answer = _ask(model, spec.name, body, spec.content_type, spec.accept)[0]
                answer = processing.output(batch.body, answer, first_record=batch.first_record)
                yield from records.assemble([answer], spec.assemble)

    def status(self, name: str) -> JobStatus:
        return self._shelf.find(name).status

    def stop(self, name: str) -> None:
        self._shelf.stop(name)

    def names(self) -> Iterator[str]:
        return self._shelf.names()

    def discard(self, name: str) -> None:
        """The record stays, as on SageMaker."""

    def log_lines(self, name: str, *, follow: bool = False) -> Iterator[str]:
        return self._shelf.log_lines(name, follow=follow)


@dataclass
class _Endpoint:
    """An endpoint as it is now; *asked* counts the requests that each variant is in the middle of."""

    spec: EndpointSpec
    status: EndpointStatus
    models: Mapping[str, Model]
    asked: Counter[str] = field(default_factory=Counter)


class _Endpoints(Endpoints):
    poll_seconds = 0.01

    def __init__(self, world: _World) -> None:
        self._world = world
        self._known: dict[str, _Endpoint] = {}
        self._lock = threading.Lock()

    def plan(self, spec: EndpointSpec) -> Plan:
        check_endpoint(spec)
        return Plan(self.kind, spec.name, (Request("deploy", {"spec": spec}),))

    def plan_update(self, spec: EndpointSpec) -> Plan:
        """A canary has nothing to try here: the change is there at once."""
        check_endpoint(spec)
        return Plan(self.kind, spec.name, (Request("change", {"spec": spec}),))

    def submit(self, plan: Plan) -> None:
        for request in plan.requests:
            spec = request.document["spec"]
            assert isinstance(spec, EndpointSpec)
            for variant in spec.variants:
                self._world.check_model(variant.model)
            if request.operation == "change":
                self._change(spec)
            elif spec.name in self._known:
                raise AlreadyExists(f"endpoint {spec.name!r} exists in memory.", kind=self.kind, name=spec.name)
            else:
                self._known[spec.name] = self._started(spec)

    def _started(self, spec: EndpointSpec) -> _Endpoint:
        models, state, reason = {}, EndpointState.IN_SERVICE, ""
        try:
            models = {variant.name: self._world.model(variant.model) for variant in spec.variants}
        except ProgramFailed as exc:
            state, reason = EndpointState.FAILED, f"did not pass the ping health check ({exc})"
        status = EndpointStatus(
            name=spec.name,
            state=state,
            reason=reason,
            created=datetime.now(UTC),
            weights={variant.name: variant.weight for variant in spec.variants},
            serverless={variant.name: variant.serverless for variant in spec.variants if variant.serverless},
        )
        return _Endpoint(spec, status, models)

    def _change(self, spec: EndpointSpec) -> None:
        before, after = self._find(spec.name), self._started(spec)
        if after.status.serverless and not before.status.serverless:
            raise InvalidSpec(
                f"endpoint {spec.name!r} is on instances; it cannot be updated to serverless.",
                kind=self.kind,
                name=spec.name,
            )
        if after.status.state is EndpointState.FAILED:
            before.status = replace(before.status, reason=after.status.reason)
            return
        after.status = replace(after.status, created=before.status.created)
        self._known[spec.name] = after

    def serves(self, spec: EndpointSpec) -> bool:
        return self._find(spec.name).spec.variants == spec.variants

    def tidy(self, name: str) -> None:
        """Nothing is left of what was served before."""

    def status(self, name: str) -> EndpointStatus:
        return self._find(name).status

    def invoke(
        self,
        name: str,
        body: bytes,
        *,
        content_type: str | None = None,
        accept: str | None = None,
        variant: str | None = None,
    ) -> Reply:
        endpoint = self._find(name)
        status, models = endpoint.status, endpoint.models
        if status.state is not EndpointState.IN_SERVICE:
            raise NotFound(f"endpoint {name!r} is {status.state}.", kind=self.kind, name=name)
        if variant is not None and variant not in models:
            raise InvalidSpec(f"endpoint {name!r} has no variant {variant!r}.", kind=self.kind, name=name)
        weights = status.weights
        chosen = variant or random.choices(list(weights), list(weights.values()))[0]  # noqa: S311
        with self._counted(endpoint, chosen):
            answer, answer_type = _ask(models[chosen], name, body, content_type, accept)
        return Reply(body=answer, content_type=answer_type, variant=chosen)

    @contextmanager
    def _counted(self, endpoint: _Endpoint, variant: str) -> Iterator[None]:
        serverless = endpoint.status.serverless.get(variant)
        with self._lock:
            if serverless and endpoint.asked[variant] >= serverless.max_concurrency:
                name = endpoint.spec.name
                text = f"endpoint {name!r} answers {serverless.max_concurrency} requests at once; try again."
                raise Throttled(text, kind=self.kind, name=name)
            endpoint.asked[variant] += 1
        try:
            yield
        finally:
            with self._lock:
                endpoint.asked[variant] -= 1

    def delete(self, name: str) -> None:
        self._known.pop(name, None)

    def names(self) -> Iterator[str]:
        return reversed(list(self._known))

    def log_lines(self, name: str, *, follow: bool = False) -> Iterator[str]:  # noqa: ARG002  nothing more comes
        self._find(name)
        return iter(())

    def _find(self, name: str) -> _Endpoint:
        try:
            return self._known[name]
        except KeyError:
            raise NotFound(f"endpoint {name!r} does not exist in memory.", kind=self.kind, name=name) from None


def _ask(model: Model, name: str, body: bytes, content_type: str | None, accept: str | None) -> tuple[bytes, str]:
    status, answer, answer_type = model(body, content_type, accept)
    if not 200 <= status < 300:
        text = answer.decode(errors="replace")
        raise ModelError(f"the model of {name!r} answered {status}: {text}", name=name, status=status, reason=text)
    return answer, answer_type


def _processing(spec: TransformSpec) -> filters.DataProcessing:
    return filters.DataProcessing(
        input_filter=spec.input_filter,
        output_filter=spec.output_filter,
        join_source="Input" if spec.join_input else "None",
        content_type=spec.content_type,
        accept=spec.accept,
        split=Split(spec.split),
        assemble=Split(spec.assemble),
    )
