"""One batch transform, carried out from its container's start to its end (contract C). Runs in a supervisor process.

    inputs ─► batches, in order ─► at most MaxConcurrentTransforms at each server ─► answers, in order ─► outputs

One window runs over all objects, so many small objects keep the model as busy as one large one. Memory holds the
window's batches, never an object. An output appears in the store only when all its records have succeeded.
Each of several instances is a server of its own; the objects are dealt out to them in turn.
"""

import json
import os
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

from backends.engine import channels, layout, records
from backends.engine.exchange import Exchange
from backends.engine.filters import DataProcessing
from backends.engine.logs import masked
from backends.engine.records import Batch, Packing, Span
from backends.engine.relay import Relay
from backends.engine.reply import Answer, NoAnswer
from backends.engine.runners import ImageMissing, RunnerFailed
from backends.engine.serving import GivenUp, NotHealthy, ServingContainer
from backends.engine.site import ENDED, Site
from backends.engine.state import Document, Resource
from backends.engine.transform import data_processing
from backends.errors import BackendError
from backends.naming import join_uri, split_uri
from backends.specs import Split, Strategy
from backends.stores import pieces

_OK = range(200, 300)
_SERVER_ERROR = 500
_STOP_LOOK_SECONDS = 0.2
_LAST_LOOK_SECONDS = 0.5
_RETRY_PAUSE_SECONDS = 0.1  # Longer each time; SageMaker's own pauses are not known.
# Small answers may wait for a slow one before them, so that it does not leave the model idle.
_WINDOW_FACTOR = 16
_REASON_LIMIT_CHARS = 1024
_BATCH_STRATEGIES = {"SINGLE_RECORD": "SingleRecord", "MULTI_RECORD": "MultiRecord"}
_SPELLED = {native: spelled for spelled, native in _BATCH_STRATEGIES.items()}
_CLIENT_ERROR_REASON = "ClientError: See job logs for more information"
_SERVER_ERROR_REASON = "AlgorithmError: See job logs for more information"


def run(site: Site, job: Resource) -> None:
    """Carry *job* to a terminal status. Whatever happens, it ends with a reason."""
    _TransformRun(site, job).carry_out()


class _Refused(Exception):
    """The model refused or failed one batch; *reason* is the job's FailureReason, *lines* the data log's."""

    def __init__(self, reason: str, lines: list[str]) -> None:
        super().__init__(lines[0])
        self.reason = reason
        self.lines = lines


@dataclass
class _Output:
    """One output object in the making."""

    input_uri: str
    uri: str
    model: "_Model"
    draft: BinaryIO
    source: BinaryIO | None = None
    failed: bool = False
    streamed: bool = False


@dataclass(frozen=True)
class _Whole:
    """An object that travels in one request of any size, chunk by chunk."""

    site: Site
    uri: str
    gzipped: bool

    def chunks(self) -> Iterator[bytes]:
        with self.site.store.reader(self.uri) as stream:
            yield from records.gunzip(stream) if self.gzipped else pieces(stream)


@dataclass
class _Work:
    """A step towards one output: a request to the model, what prevents it, or None at the object's end.

    What is *asked* is given away by whoever acts on it, so that memory holds no batch that was answered.
    """

    output: _Output
    asked: Batch | Span | _Whole | BackendError | None
    is_last: bool = False


class _TransformRun:
    def __init__(self, site: Site, job: Resource) -> None:
        self._site = site
        self._request = job.request
        self._job = job
        self._folder = site.folder(job)
        self._containers = [
            ServingContainer(
                site=site,
                label=job.facts["seat"],
                name=job.name,
                instance_type=job.request["TransformResources"].get("InstanceType", ""),
                folder=self._folder / name,
                log_path=self._folder / f"{name}.log",
                model=job.facts["model"],
                environment=_environment(job.request),
            )
            for name in _container_names(job.request["TransformResources"]["InstanceCount"])
        ]
        self._processing = data_processing(job.request)
        self._assemble = Split(job.request["TransformOutput"].get("AssembleWith", "None"))
        self._reason = ""
        self._next_stop_look = 0.0
        self._stop_seen = False

    def carry_out(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._update(TransformStartTime=time.time())
        try:
            status, reason = self._outcome()
        finally:
            for container in self._containers:
                container.end()
            layout.remove(self._folder / "tmp")
        self._end(status, reason)

    def _outcome(self) -> tuple[str, str]:
        """The job's last status and its FailureReason."""
        try:
            self._start_containers()
            self._transform()
            return self._judged()
        except GivenUp:
            return "Stopped", ""
        except NotHealthy as exc:
            return "Failed", f"AlgorithmError: the container did not pass the ping health check: {exc}"
        except RunnerFailed as exc:
            return "Failed", f"InternalServerError: {exc}"
        except (BackendError, ImageMissing) as exc:
            return "Failed", f"ClientError: {exc}"
        except Exception as exc:  # noqa: BLE001  whatever it is, the job must end and say why
            with suppress(OSError):  # Its log may lie on a full disk.
                traceback.print_exc()
            return "Failed", f"InternalServerError: {self._site.complaint(exc)}"

    def _judged(self) -> tuple[str, str]:
        if not self._reason:
            return "Completed", ""
        if self._reason == _SERVER_ERROR_REASON:
            # Who ends closes its connections first.
            for container in self._containers:
                container.has_ended_within(_LAST_LOOK_SECONDS)
        epitaph = next(filter(None, (container.epitaph() for container in self._containers)), "")
        return "Failed", self._reason + (f" ({epitaph})" if epitaph else "")

    def _start_containers(self) -> None:
        for container in self._containers:
            container.prepare()
            container.start()
        for container in self._containers:
            container.wait_healthy(self._site.settings.startup_timeout_seconds, self._stop_requested)

    def _transform(self) -> None:
        # Listed once, before anything is written: the output may lie below the same prefix.
        inputs = self._inputs()
        packing, concurrency = self._negotiate()
        self._say(
            f"MaxConcurrentTransforms={concurrency}, "
            f"MaxPayloadInMB={packing.max_payload_bytes // records.MEBIBYTE}, "
            f"BatchStrategy={_SPELLED[str(packing.strategy)]}"
        )
        models = [
            _Model(container.exchange, self._request, self._processing, most_at_once=concurrency)
            for container in self._containers
        ]
        shares = [self._work(inputs[number :: len(models)], model, packing) for number, model in enumerate(models)]
        window = concurrency * _WINDOW_FACTOR if packing.strategy is Strategy.SINGLE_RECORD else concurrency + 1
        relay = Relay(
            _in_turn(shares),
            lambda work: work.output.model.act(work),
            concurrency=concurrency * len(models),
            window=window * len(models),
        )
        with relay:
            try:
                for work, result in relay.results(self._raise_if_stopped):
                    self._take(work, result)
            except BaseException:
                # Requests in flight may take as long as the client's time-out, which nobody wants to wait for.
                for model in models:
                    model.give_up()
                for container in self._containers:
                    container.kill()
                raise

    def _inputs(self) -> list[tuple[str, str]]:
        """The URI of every input object, and the key of its output below S3OutputPath."""
        source = self._request["TransformInput"]["DataSource"]["S3DataSource"]
        if source["S3DataType"] == "ManifestFile":
            named = channels.in_manifest(self._site.store, source["S3Uri"])
            return [(uri, f"{suffix}.out") for uri, suffix, _ in named]
        _, prefix = split_uri(source["S3Uri"], key_required=False)
        found = []
        for info in self._site.store.list_objects(source["S3Uri"]):
            _, key = split_uri(info.uri)
            if not key.endswith("/") or info.size_bytes:
                found.append((info.uri, records.output_key(prefix, key)))
        return found

    def _work(self, inputs: list[tuple[str, str]], model: "_Model", packing: Packing) -> Iterator[_Work]:
        """Every batch of every object, and where each object ends or cannot be read further. Runs in any thread."""
        for uri, output_key in inputs:
            target = join_uri(self._request["TransformOutput"]["S3OutputPath"], output_key)
            draft = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  closed when the object is finished
            output = _Output(uri, target, model, draft)
            try:
                for batch in self._batches(output, packing):
                    yield _Work(output, batch)
                    del batch
                    if output.failed:
                        break
            except BackendError as exc:  # Bad records, or an object that is gone or cannot be read.
                yield _Work(output, exc)
            yield _Work(output, None, is_last=True)

    def _batches(self, output: _Output, packing: Packing) -> Iterator[Batch | Span | _Whole]:
        uri, is_gzipped = output.input_uri, self._is_gzipped()
        if packing.sends_whole and self._processing.passes_through:
            yield _Whole(self._site, uri, is_gzipped)
            return
        stream = self._site.store.reader(uri)
        if records.is_file(stream) and self._processing.passes_through and not (packing.sends_lines or is_gzipped):
            output.source = stream
            yield from records.split_file(stream, packing)
            return
        with stream:
            yield from records.split_batches(records.gunzip(stream) if is_gzipped else stream, packing)

    def _take(self, work: _Work, result: bytes | Exception) -> None:
        """Add one answer to its output, or finish the output."""
        output = work.output
        if isinstance(result, _Refused):
            self._lose(output, result.reason, result.lines)
        elif isinstance(result, BackendError):
            self._lose(output, _CLIENT_ERROR_REASON, [str(result)])
        elif isinstance(result, Exception):
            raise result
        elif work.is_last:
            self._finish(output)
        elif result and not output.failed:
            output.draft.writelines(records.assemble([result], self._assemble))

    def _finish(self, output: _Output) -> None:
        with output.draft as draft, output.source or nullcontext():
            if output.failed:
                return
            if output.streamed and self._assemble is Split.LINE:
                _end_line(draft)
            draft.seek(0)
            accept = self._request["TransformOutput"].get("Accept", "application/octet-stream")
            self._site.store.write(output.uri, draft, content_type=accept)

    def _lose(self, output: _Output, reason: str, lines: list[str]) -> None:
        """Give the object up, say why in the data log, go on with the others."""
        if not output.failed:
            self._say(*(f"{output.input_uri.removeprefix('s3://')}: {line}" for line in lines))
            self._reason = self._reason or reason
        output.failed = True

    def _negotiate(self) -> tuple[Packing, int]:
        """The request's word, else the container's, else SageMaker's default, member by member (C.2)."""
        offered = _execution_parameters(self._containers[0].exchange, self._site.settings.ping_timeout_seconds)
        payload = self._request.get("MaxPayloadInMB")
        payload = offered.get("MaxPayloadInMB", 6) if payload is None else payload
        strategy = self._request.get("BatchStrategy") or offered.get("BatchStrategy", "MultiRecord")
        concurrency = self._request.get("MaxConcurrentTransforms") or offered.get("MaxConcurrentTransforms", 1)
        packing = Packing(
            split=Split(self._request["TransformInput"].get("SplitType", "None")),
            strategy=Strategy(strategy),
            max_payload_bytes=payload * records.MEBIBYTE,
        )
        return packing, concurrency

    def _is_gzipped(self) -> bool:
        return bool(self._request["TransformInput"].get("CompressionType") == "Gzip")

    def _say(self, *lines: str) -> None:
        """Write to the data log in AWS's form (C.5)."""
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        with (self._folder / "data.log").open("a", encoding="utf-8", errors="replace") as log:
            log.writelines(f"{moment}:[sagemaker logs]: {masked(line)}\n" for line in lines)

    def _raise_if_stopped(self) -> None:
        if self._stop_requested():
            raise GivenUp

    def _stop_requested(self) -> bool:
        if not self._stop_seen and time.monotonic() >= self._next_stop_look:
            self._next_stop_look = time.monotonic() + _STOP_LOOK_SECONDS
            job = self._site.state.again(self._job)
            self._stop_seen = job is not None and job.facts["status"] == "Stopping"
        return self._stop_seen

    def _end(self, status: str, reason: str = "") -> None:
        facts: Document = {"status": status, "TransformEndTime": time.time()}
        if reason:
            facts["FailureReason"] = masked(reason)[:_REASON_LIMIT_CHARS]
        self._update(**facts)

    def _update(self, **more: object) -> None:
        def change(facts: Document) -> bool:
            if facts["status"] in ENDED:
                return False  # Somebody took this run for dead; what they wrote stands.
            facts |= more
            return True

        self._site.state.edit(self._job, change)


class _Model:
    """The model at work on one instance: filters, request, retries, join."""

    def __init__(self, exchange: Exchange, request: Document, processing: DataProcessing, *, most_at_once: int) -> None:
        client = request.get("ModelClientConfig", {})
        self._exchange = exchange
        self._places = threading.Semaphore(most_at_once)
        self._processing = processing
        self._timeout_seconds = client.get("InvocationsTimeoutInSeconds", 600)
        self._tries = 1 + client.get("InvocationsMaxRetries", 3)
        headers = {
            "Content-Type": request["TransformInput"].get("ContentType"),
            "Accept": request["TransformOutput"].get("Accept"),
            "User-Agent": "Go-http-client/1.1",
        }
        self._headers = {name: value for name, value in headers.items() if value is not None}

    def give_up(self) -> None:
        """Try nothing again."""
        self._tries = 0

    def act(self, work: _Work) -> bytes:
        """What belongs into the output for one step; the answer to a whole object goes there by itself.

        Raises:
            _Refused: the model answered other than 2xx, or not at all.
            BackendError: the records cannot be read, or the filters do not fit them or the answer.
        """
        asked, work.asked = work.asked, None
        if asked is None or work.output.failed:
            return b""
        if isinstance(asked, BackendError):
            raise asked
        with self._places:
            if isinstance(asked, _Whole):
                work.output.streamed = True
                self.stream(asked, work.output.draft)
                return b""
            if isinstance(asked, Span):
                return self._ask(lambda: self._send(asked)).body
            return self.answer(asked)

    def answer(self, batch: Batch) -> bytes:
        """The records as they go into the output: asked, filtered and joined."""
        body = self._processing.request_body(batch.body, first_record=batch.first_record)
        answer = self._ask(lambda: self._send(body))
        return self._processing.output(batch.body, answer.body, first_record=batch.first_record)

    def stream(self, whole: _Whole, draft: BinaryIO) -> None:
        """Send the object and write the answer to *draft*, piece by piece. Raises _Refused, BackendError."""

        def send() -> Answer:
            draft.seek(0)
            draft.truncate()  # What an earlier try has left.
            return self._send(whole.chunks(), draft)

        self._ask(send)

    def _send(self, body: bytes | Span | Iterator[bytes], sink: BinaryIO | None = None) -> Answer:
        return self._exchange.send(
            "POST",
            "/invocations",
            body=body,
            headers=self._headers,
            timeout_seconds=self._timeout_seconds,
            sink=sink,
        )

    def _ask(self, send: Callable[[], Answer]) -> Answer:
        """A 2xx answer; server errors and silence are tried again, client errors are not (C.5)."""
        tried = 0
        while True:
            try:
                answer = send()
            except NoAnswer as exc:
                lost = _Refused(_SERVER_ERROR_REASON, [f"Unable to get response from algorithm: {exc}"])
            else:
                if answer.status in _OK:
                    return answer
                lost = _refusal(answer)
                if answer.status < _SERVER_ERROR:
                    raise lost
            tried += 1
            if tried >= self._tries:
                raise lost
            time.sleep(_RETRY_PAUSE_SECONDS * tried)


def _container_names(count: int) -> list[str]:
    return ["container", *(f"container-{number}" for number in range(2, count + 1))]


def _in_turn(shares: list[Iterator[_Work]]) -> Iterator[_Work]:
    """One piece of work of each share after the other, until all are used up."""
    waiting = deque(shares)
    while waiting:
        share = waiting.popleft()
        if (work := next(share, None)) is not None:
            yield work
            del work
            waiting.append(share)


def _end_line(draft: BinaryIO) -> None:
    """End a streamed answer as :func:`records.assemble` ends others."""
    size = draft.seek(0, os.SEEK_END)
    if size:
        draft.seek(-1, os.SEEK_END)
    if not size or draft.read(1) != b"\n":
        draft.write(b"\n")


def _refusal(answer: Answer) -> _Refused:
    body = answer.body.decode(errors="replace").splitlines()
    if answer.status < _SERVER_ERROR:
        return _Refused(_CLIENT_ERROR_REASON, [f"ClientError: {answer.status}", "", "Message:", *body])
    return _Refused(
        _SERVER_ERROR_REASON, [f"Bad HTTP status received from algorithm: {answer.status}", "", "Message:", *body]
    )


def _execution_parameters(exchange: Exchange, timeout_seconds: float) -> Document:
    """What the container offers; anything but a 200 with sound values counts as no offer."""
    try:
        answer = exchange.send("GET", "/execution-parameters", timeout_seconds=timeout_seconds)
        offered = json.loads(answer.body) if answer.status == 200 else {}
    except (NoAnswer, ValueError):
        return {}
    if not isinstance(offered, dict):
        return {}
    sound: Document = {}
    for member, smallest in (("MaxConcurrentTransforms", 1), ("MaxPayloadInMB", 0)):
        value = offered.get(member)
        if type(value) is int and value >= smallest:
            sound[member] = value
    if offered.get("BatchStrategy") in _BATCH_STRATEGIES:
        sound["BatchStrategy"] = _BATCH_STRATEGIES[offered["BatchStrategy"]]
    return sound


def _environment(request: Document) -> dict[str, str]:
    """The variables of a transform container; the batch ones only if they are in the request (C.2)."""
    environment = {"SAGEMAKER_BATCH": "true", **request.get("Environment", {})}
    for member, variable in (
        ("MaxPayloadInMB", "SAGEMAKER_MAX_PAYLOAD_IN_MB"),
        ("MaxConcurrentTransforms", "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"),
    ):
        if member in request:
            environment[variable] = str(request[member])
    if "BatchStrategy" in request:
        environment["SAGEMAKER_BATCH_STRATEGY"] = _SPELLED[request["BatchStrategy"]]
    return environment
