"""One batch transform, carried out from its container's start to its end (contract C). Runs in a supervisor process.

    inputs ─► batches, in order ─► at most MaxConcurrentTransforms at the model ─► answers, in order ─► outputs

One window runs over all objects, so many small objects keep the model as busy as one large one. Memory holds the
window's batches, never an object. An output appears in the store only when all its records have succeeded.
"""

import json
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

from backends.engine import records
from backends.engine.channels import UnusableKey
from backends.engine.exchange import Answer, Exchange, NoAnswer
from backends.engine.filters import DataProcessing
from backends.engine.logs import masked
from backends.engine.records import BadObject, Batch, Packing
from backends.engine.runners import ImageMissing
from backends.engine.serving import GivenUp, NotHealthy, ServingContainer
from backends.engine.site import TRANSFORM, Site
from backends.engine.state import Document, Resource
from backends.engine.training import TERMINAL
from backends.engine.training_run import label
from backends.engine.transform import data_processing
from backends.errors import BackendError
from backends.naming import join_uri, split_uri
from backends.specs import Split, Strategy
from backends.stores import pieces

_OK = range(200, 300)
_SERVER_ERROR = 500
_STOP_LOOK_SECONDS = 0.2
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
    draft: BinaryIO
    failed: bool = False


class _TransformRun:
    def __init__(self, site: Site, job: Resource) -> None:
        self._site = site
        self._request = job.request
        self._name = job.name
        self._folder = site.folder(TRANSFORM, job.name)
        self._container = ServingContainer(
            site=site,
            label=label(job),
            folder=self._folder / "container",
            log_path=self._folder / "container.log",
            model=job.facts["model"],
            environment=_environment(job.request),
        )
        self._processing = data_processing(job.request)
        self._reason = ""
        self._next_stop_look = 0.0
        self._stop_seen = False

    def carry_out(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700, parents=True)
        self._update(TransformStartTime=time.time())
        try:
            self._start_container()
            self._transform()
            self._end("Failed" if self._reason else "Completed", self._reason)
        except GivenUp:
            self._end("Stopped")
        except NotHealthy as exc:
            self._end("Failed", f"AlgorithmError: the container did not pass the ping health check: {exc}")
        except (UnusableKey, BackendError, ImageMissing) as exc:
            self._end("Failed", f"ClientError: {exc}")
        except Exception as exc:
            self._end("Failed", f"InternalServerError: {type(exc).__name__}: {exc}")
            raise
        finally:
            self._container.end()
            shutil.rmtree(self._folder / "tmp", ignore_errors=True)

    def _start_container(self) -> None:
        self._container.prepare()
        self._container.start()
        self._container.wait_healthy(self._site.settings.startup_timeout_seconds, self._stop_requested)

    def _transform(self) -> None:
        packing, concurrency = self._negotiate()
        self._say(
            f"MaxConcurrentTransforms={concurrency}, "
            f"MaxPayloadInMB={packing.max_payload_bytes // records.MEBIBYTE}, "
            f"BatchStrategy={_SPELLED[str(packing.strategy)]}"
        )
        model = _Model(self._container.exchange, self._request, self._processing)
        with ThreadPoolExecutor(concurrency) as pool:
            window: deque[tuple[_Output, Future[bytes] | None]] = deque()
            try:
                for output, batch in self._work(packing):
                    if batch is not None and output.failed:
                        continue
                    window.append((output, None if batch is None else pool.submit(model.answer, batch)))
                    while len(window) > concurrency:
                        self._take(*window.popleft())
                    if self._stop_requested():
                        raise GivenUp
                while window:
                    self._take(*window.popleft())
            finally:
                for _, future in window:
                    if future is not None:
                        future.cancel()

    def _work(self, packing: Packing) -> Iterator[tuple[_Output, "Batch | _Whole | None"]]:
        """Every batch of every object, and None where an object ends."""
        source = self._request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
        _, prefix = split_uri(source, key_required=False)
        # Listed once, before anything is written: the output may lie below the same prefix.
        for info in list(self._site.store.list_objects(source)):
            _, key = split_uri(info.uri)
            if key.endswith("/") and info.size_bytes == 0:
                continue
            target = join_uri(self._request["TransformOutput"]["S3OutputPath"], records.output_key(prefix, key))
            draft = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  closed when it is uploaded
            output = _Output(info.uri, target, draft)
            try:
                for batch in self._batches(info.uri, packing):
                    yield output, batch
                    if output.failed:
                        break
            except BadObject as exc:
                self._lose(output, _CLIENT_ERROR_REASON, [str(exc)])
            yield output, None

    def _batches(self, uri: str, packing: Packing) -> "Iterator[Batch | _Whole]":
        if packing.sends_whole and self._processing.passes_through:
            yield _Whole(self._site, uri, gzipped=self._is_gzipped())
            return
        with self._site.store.reader(uri) as stream:
            yield from records.split_batches(records.gunzip(stream) if self._is_gzipped() else stream, packing)

    def _take(self, output: _Output, future: "Future[bytes] | None") -> None:
        """Add one answer to its output; None is the output's end."""
        if future is None:
            self._finish(output)
            return
        try:
            body = future.result()
        except (_Refused, BadObject) as exc:
            reason, lines = (exc.reason, exc.lines) if isinstance(exc, _Refused) else (_CLIENT_ERROR_REASON, [str(exc)])
            self._lose(output, reason, lines)
            return
        if not output.failed:
            assemble = Split(self._request["TransformOutput"].get("AssembleWith", "None"))
            output.draft.writelines(records.assemble([body], assemble))

    def _finish(self, output: _Output) -> None:
        with output.draft as draft:
            if output.failed:
                return
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
        offered = _execution_parameters(self._container.exchange, self._site.settings.ping_timeout_seconds)
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
        return self._request["TransformInput"].get("CompressionType") == "Gzip"

    def _say(self, *lines: str) -> None:
        """Write to the data log in AWS's form (C.5)."""
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        with (self._folder / "data.log").open("a", encoding="utf-8", errors="replace") as log:
            log.writelines(f"{moment}:[sagemaker logs]: {masked(line)}\n" for line in lines)

    def _stop_requested(self) -> bool:
        if not self._stop_seen and time.monotonic() >= self._next_stop_look:
            self._next_stop_look = time.monotonic() + _STOP_LOOK_SECONDS
            job = self._site.state.find(TRANSFORM, self._name)
            self._stop_seen = bool(job and job.facts["status"] == "Stopping")
        return self._stop_seen

    def _end(self, status: str, reason: str = "") -> None:
        facts: Document = {"status": status, "TransformEndTime": time.time()}
        if reason:
            facts["FailureReason"] = masked(reason)[:_REASON_LIMIT_CHARS]
        self._update(**facts)

    def _update(self, **more: object) -> None:
        def change(facts: Document) -> bool:
            if facts["status"] in TERMINAL:
                return False  # Somebody took this run for dead; what they wrote stands.
            facts |= more
            return True

        self._site.state.edit(TRANSFORM, self._name, change)


@dataclass(frozen=True)
class _Whole:
    """An object that travels in one request of any size, chunk by chunk."""

    site: Site
    uri: str
    gzipped: bool

    def chunks(self) -> Iterator[bytes]:
        with self.site.store.reader(self.uri) as stream:
            yield from records.gunzip(stream) if self.gzipped else pieces(stream)


class _Model:
    """The model at work: filters, request, retries, join."""

    def __init__(self, exchange: Exchange, request: Document, processing: DataProcessing) -> None:
        client = request.get("ModelClientConfig", {})
        self._exchange = exchange
        self._processing = processing
        self._timeout_seconds = client.get("InvocationsTimeoutInSeconds", 600)
        self._tries = 1 + client.get("InvocationsMaxRetries", 3)
        headers = {
            "Content-Type": request["TransformInput"].get("ContentType"),
            "Accept": request["TransformOutput"].get("Accept"),
            "User-Agent": "Go-http-client/1.1",
        }
        self._headers = {name: value for name, value in headers.items() if value is not None}

    def answer(self, batch: Batch | _Whole) -> bytes:
        """What belongs into the output for *batch*.

        Raises:
            _Refused: the model answered other than 2xx, or not at all.
            BadObject: the filters do not fit the records or the answer.
        """
        if isinstance(batch, _Whole):
            return self._ask(batch).body
        body = self._processing.request_body(batch.body, first_record=batch.first_record)
        return self._processing.output(batch.body, self._ask(body).body, first_record=batch.first_record)

    def _ask(self, body: bytes | _Whole) -> Answer:
        """A 2xx answer; server errors and silence are tried again, client errors are not (C.5)."""
        lost = _Refused(_SERVER_ERROR_REASON, ["Unable to get response from algorithm"])
        for _ in range(self._tries):
            try:
                answer = self._exchange.send(
                    "POST",
                    "/invocations",
                    body=body if isinstance(body, bytes) else body.chunks(),
                    headers=self._headers,
                    timeout_seconds=self._timeout_seconds,
                )
            except NoAnswer as exc:
                lost = _Refused(_SERVER_ERROR_REASON, [f"Unable to get response from algorithm: {exc}"])
                continue
            if answer.status in _OK:
                return answer
            lost = _refusal(answer)
            if answer.status < _SERVER_ERROR:
                break
        raise lost


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
        offered = json.loads(answer.body) if answer.status == 200 else {}  # noqa: PLR2004
    except (NoAnswer, ValueError):
        return {}
    if not isinstance(offered, dict):
        return {}
    sound: Document = {}
    for member, smallest in (("MaxConcurrentTransforms", 1), ("MaxPayloadInMB", 0)):
        value = offered.get(member)
        if isinstance(value, int) and value >= smallest:
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
