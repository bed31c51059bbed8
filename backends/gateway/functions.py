"""Run a handler as Lambda would: in processes of its own, with a fresh environment, a context and limits.

    Function ── a pool of ──> _Environment ══ socket ══> worker.py ──> handler(event, context)

An environment answers one invocation at a time. More of them are started while requests wait, up to the
function's concurrency; one that runs over its time is killed and replaced when it is needed. Once a file of the
bundle has changed, new requests go to new environments.

Source: AWS Lambda developer guide, "Lambda execution environments", "Using environment variables", "Quotas".
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from backends.gateway import worker
from backends.naming import partition_of

logger = logging.getLogger("greenroom.function")

MAX_PAYLOAD_BYTES = worker.MAX_PAYLOAD_BYTES
# A request waits this long for a busy environment before another is started. Lambda would not wait; here a new one
# costs half a second of CPU, which a visitor with a request or two at a time is spared.
PATIENCE_SECONDS = 0.02
_STREAM_BUFFER_BYTES = 1024 * 1024
_LONGEST_LOG_LINE_BYTES = 64 * 1024
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# A client that finds none would go looking for the user's own.
_DUMMY_CREDENTIALS: Mapping[str, str] = MappingProxyType(
    {
        "AWS_ACCESS_KEY_ID": "greenroom",
        "AWS_SECRET_ACCESS_KEY": "greenroom",
        "AWS_SESSION_TOKEN": "greenroom",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
)


BundleVersion = tuple[tuple[str, int, int], ...]


class FunctionError(Exception):
    """An invocation that did not come to an answer of the handler's."""


class Throttled(FunctionError):
    """All environments are busy and enough requests wait already."""


class TimedOut(FunctionError):
    """The handler ran over the function's time and was killed."""


class PayloadTooLarge(FunctionError):
    """The event is over Lambda's 6 MB."""


class FunctionBroken(FunctionError):
    """No environment can be started; the text says why."""


@dataclass(frozen=True)
class FunctionSettings:
    """A function as Lambda would have it configured.

    Attributes:
        bundle: The folder that would be zipped; the handler's working directory.
        handler: ``file.function`` within the bundle.
        environment: The function's own variables; it gets these, Lambda's, and no others.
        credentials: The variables in which it finds credentials; None: such as lead nowhere.
        max_concurrency: Environments at a time.
        max_waiting: Requests that may wait for one; any further is throttled.
    """

    bundle: Path
    handler: str = "handler.handler"
    name: str = "predict"
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    credentials: Mapping[str, str] | None = field(default=None, repr=False)
    timeout_seconds: float = 10.0
    init_timeout_seconds: float = 30.0
    memory_mib: int = 256
    max_concurrency: int = 10
    max_waiting: int = 100
    region: str = "us-east-1"
    account_id: str = "000000000000"

    def __post_init__(self) -> None:
        """Raise ValueError when a variable is one that Lambda keeps for itself."""
        taken = sorted(self.environment.keys() & self._reserved().keys())
        if taken:
            raise ValueError(f"function {self.name!r}: Lambda reserves the variables {', '.join(taken)}")

    @property
    def arn(self) -> str:
        """The function's ARN."""
        return f"arn:{partition_of(self.region).name}:lambda:{self.region}:{self.account_id}:function:{self.name}"

    def bundle_version(self) -> BundleVersion:
        """What tells the bundle's files from what they were before they were edited."""
        return tuple(_versions(self.bundle))

    def process_environment(self) -> dict[str, str]:
        """Every variable the handler will see."""
        day = datetime.now(UTC).strftime("%Y/%m/%d")
        return {
            "LANG": "en_US.UTF-8",
            "PATH": os.defpath,
            "TZ": ":UTC",
            **self.environment,
            **self._reserved(),
            "AWS_LAMBDA_LOG_STREAM_NAME": f"{day}/[$LATEST]{uuid.uuid4().hex}",
        }

    def _reserved(self) -> dict[str, str]:
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return {
            **(self.credentials or _DUMMY_CREDENTIALS),
            "_HANDLER": self.handler,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{python}",
            "AWS_LAMBDA_FUNCTION_NAME": self.name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.memory_mib),
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{self.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": "",
            "LAMBDA_TASK_ROOT": str(self.bundle.resolve()),
            "LAMBDA_RUNTIME_DIR": str(Path(worker.__file__).parent),
        }


def _versions(folder: Path | str) -> Iterator[tuple[str, int, int]]:
    # Asked for with every request: os.walk and a look at each path would take three times as long.
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):  # An editor is just putting another in its place.
                    status = entry.stat()
                    yield entry.path, status.st_mtime_ns, status.st_size
            elif entry.name != "__pycache__":
                yield from _versions(entry.path)


@dataclass(frozen=True)
class Invocation:
    """How an invocation ended: the JSON returned, or Lambda's error document when ``failed``."""

    payload: bytes
    failed: bool


class Function:
    """One function and its environments. Belongs to the event loop in which it was started."""

    def __init__(self, settings: FunctionSettings) -> None:
        self.settings = settings
        self._idle: list[_Environment] = []
        self._all: set[_Environment] = set()
        self._starting: set[asyncio.Task[None]] = set()
        self._waiting: deque[asyncio.Future[_Environment]] = deque()
        self._closed = False

    async def start(self) -> None:
        """Start a first environment, so that the first request need not wait for it.

        Raises:
            FunctionBroken: the handler cannot be loaded.
        """
        self._release(await self._launch())

    async def invoke(self, event: Mapping[str, Any], request_id: str) -> Invocation:
        """Run the handler once on *event*; *request_id* is a UUID of the caller's.

        Raises:
            PayloadTooLarge, Throttled, TimedOut, FunctionBroken.
        """
        event_json = json.dumps(event).encode()
        if len(event_json) > MAX_PAYLOAD_BYTES:
            raise PayloadTooLarge(f"{request_id}: the event has {len(event_json)} bytes; 6 MB is Lambda's limit")
        environment = await self._acquire()
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                invocation = await environment.call(event_json, request_id)
        except TimeoutError:
            raise self._timed_out(request_id) from None
        finally:
            # Unless it came to an end, nobody knows what the handler is still doing.
            if environment.is_idle:
                self._release(environment)
            else:
                self._discard(environment)
        return invocation

    async def close(self) -> None:
        """End every environment at once, with whatever it runs."""
        self._closed = True
        for task in list(self._starting):
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        for environment in list(self._all):
            self._discard(environment)
        while self._waiting:
            self._waiting.popleft().cancel()

    def _timed_out(self, request_id: str) -> TimedOut:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        text = f"{now} {request_id} Task timed out after {self.settings.timeout_seconds:.2f} seconds"
        logger.warning("%s", text)
        return TimedOut(text)

    async def _acquire(self) -> "_Environment":
        version = self.settings.bundle_version() if self._idle else ()
        while self._idle:
            environment = self._idle.pop()
            if environment.is_idle and environment.version == version:
                return environment
            self._discard(environment)
        if len(self._waiting) >= self.settings.max_waiting:
            raise Throttled(f"function {self.settings.name!r}: {len(self._waiting)} requests wait already")
        turn: asyncio.Future[_Environment] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        patience = PATIENCE_SECONDS if self._all else 0.0
        growing = asyncio.get_running_loop().call_later(patience, self._grow)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._release(turn.result())
            raise
        finally:
            growing.cancel()
            with contextlib.suppress(ValueError):
                self._waiting.remove(turn)

    def _grow(self) -> None:
        """Start one more environment if it is needed and allowed."""
        size = len(self._all) + len(self._starting)
        if self._closed or len(self._starting) >= len(self._waiting) or size >= self.settings.max_concurrency:
            return
        task = asyncio.get_running_loop().create_task(self._start_for_waiting())
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _start_for_waiting(self) -> None:
        try:
            environment = await self._launch()
        except FunctionBroken as broken:
            logger.error("%s", broken)  # noqa: TRY400 - the trace is the worker's, and in its log
            while self._waiting:
                turn = self._waiting.popleft()
                if not turn.done():
                    turn.set_exception(broken)
                    return
        else:
            self._release(environment)

    async def _launch(self) -> "_Environment":
        environment = await _Environment.start(self.settings)
        self._all.add(environment)
        return environment

    def _release(self, environment: "_Environment") -> None:
        """Give *environment* to whoever waits longest, or keep it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(environment)
                return
        # Last in, first out: the processes used most stay warm.
        self._idle.append(environment)

    def _discard(self, environment: "_Environment") -> None:
        environment.kill()
        self._all.discard(environment)
        if self._waiting:
            self._grow()


class _Environment:
    """One worker process and the socket to it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        settings: FunctionSettings,
        version: BundleVersion,
    ) -> None:
        self.version = version
        self._process = process
        self._reader = reader
        self._writer = writer
        self._settings = settings
        self._busy = False

    @classmethod
    async def start(cls, settings: FunctionSettings) -> "_Environment":
        """Start a worker and wait until its handler is loaded.

        Raises:
            FunctionBroken: it could not be, or took too long.
        """
        version = settings.bundle_version()  # Before anything of it is read.
        ours, theirs = socket.socketpair()
        log_out, log_in = os.pipe()
        with theirs, os.fdopen(log_in, "wb") as log:
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_STREAM_BUFFER_BYTES)
            try:
                process = _spawn(settings, theirs.fileno(), log)
            except OSError as error:
                writer.close()
                os.close(log_out)
                raise FunctionBroken(f"function {settings.name!r}: no process for it: {error}") from error
        environment = cls(process, reader, writer, settings, version)
        try:
            await _follow(log_out)
            async with asyncio.timeout(settings.init_timeout_seconds):
                kind, payload = await environment._read()
        except TimeoutError:
            environment.kill()
            raise FunctionBroken(
                f"function {settings.name!r}: {settings.handler} not loaded within {settings.init_timeout_seconds} s"
            ) from None
        except BaseException:
            environment.kill()
            raise
        if kind != b"I":
            environment.kill()
            said = json.loads(payload)
            raise FunctionBroken(
                f"function {settings.name!r} in {settings.bundle}: {said['errorType']}: {said['errorMessage']}"
            )
        return environment

    @property
    def is_idle(self) -> bool:
        """Whether it can take an invocation: it runs, and the last one came to an end."""
        return not self._busy and not self._reader.at_eof() and self._process.poll() is None

    async def call(self, event_json: bytes, request_id: str) -> Invocation:
        """Send one event and wait for the handler's answer."""
        self._busy = True
        head = {
            "requestId": request_id,
            "deadlineEpochSeconds": time.time() + self._settings.timeout_seconds,
            "functionArn": self._settings.arn,
            "traceId": f"Root=1-{int(time.time()):08x}-{request_id.replace('-', '')[:24]}",
        }
        message = json.dumps(head).encode()[:-1] + b',"event":' + event_json + b"}"
        self._writer.write(worker.LENGTH.pack(len(message)) + message)
        kind, payload = await self._read(request_id)
        if kind == b"F":
            return Invocation(payload, failed=True)
        self._busy = False
        return Invocation(payload, failed=kind != b"R")

    async def _read(self, request_id: str = "") -> tuple[bytes, bytes]:
        """The next frame, or an ``F`` frame of ours when the process is gone."""
        try:
            head = await self._reader.readexactly(worker.LENGTH.size + 1)
            (length,) = worker.LENGTH.unpack(head[:-1])
            return head[-1:], await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            code = await asyncio.to_thread(self._process.wait)
            how = f"exit status {code}" if code >= 0 else f"signal: {signal.Signals(-code).name}"
            message = f"RequestId: {request_id} Error: Runtime exited with error: {how}"
            logger.warning("%s", message)
            error = {
                "errorMessage": message,
                "errorType": "Runtime.ExitError",
                "requestId": request_id,
                "stackTrace": [],
            }
            return b"F", json.dumps(error).encode()

    def kill(self) -> None:
        """End the process and everything it started; quiet when it is gone already."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._writer.close()


def _spawn(settings: FunctionSettings, descriptor: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # -P: the worker's own folder must not hide the bundle's modules or the standard library's.
        [sys.executable, "-P", worker.__file__, str(descriptor)],
        cwd=settings.bundle,
        env=settings.process_environment(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=(descriptor,),
        # Its own session: Ctrl-C in the gateway's terminal is not the function's business.
        start_new_session=True,
    )


async def _follow(descriptor: int) -> None:
    """Pass what a worker prints on to the log, line by line, until it ends."""
    loop = asyncio.get_running_loop()
    # The transport closes it.
    await loop.connect_read_pipe(_LogLines, os.fdopen(descriptor, "rb", buffering=0))


class _LogLines(asyncio.Protocol):
    """Cuts a stream into log lines; one without end is cut where it gets too long."""

    def __init__(self) -> None:
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_LOG_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            _log(line)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._rest:
            _log(self._rest)


def _log(line: bytes) -> None:
    if logger.isEnabledFor(logging.INFO):
        # A review may hold the escape sequences of a terminal.
        text = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", line.decode(errors="replace"))
        logger.info("%s", text)
