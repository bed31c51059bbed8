"""The inside of one Lambda environment: import the handler, then answer one event after the other.

Run by path, as a program of its own, so that nothing but the bundle comes before the standard library on
``sys.path``; hence only standard-library imports here. Its only argument is the number of the socket it speaks on.

    gateway → worker   length (4 bytes, big endian), JSON {"requestId", "deadlineEpochSeconds", "traceId", "event"}
    worker → gateway   length (4 bytes, big endian), one byte of kind, JSON
                       kinds: I ready, F could not start, R returned, E raised (the error document)

Source of the behaviour: AWS Lambda developer guide, "Building Lambda functions with Python".
"""

import importlib
import json
import logging
import os
import resource
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

LENGTH = struct.Struct(">I")
MAX_PAYLOAD_BYTES = 6 * 1024 * 1024
_KIB_PER_MIB = 1024
_LONGEST_TRACE = 50


@dataclass(frozen=True)
class Context:
    """What Lambda tells a handler about its invocation."""

    aws_request_id: str
    function_name: str
    function_version: str
    invoked_function_arn: str
    memory_limit_in_mb: str
    log_group_name: str
    log_stream_name: str
    deadline_epoch_seconds: float
    identity: None = None
    client_context: None = None

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until this invocation is ended; never negative."""
        return max(int((self.deadline_epoch_seconds - time.time()) * 1000), 0)


class StartFailed(Exception):
    """The handler could not be loaded; the arguments are Lambda's error type and a sentence."""


def main() -> None:
    """Serve the gateway at the other end of the socket until it goes away."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=_die_with, args=(connection,), daemon=True).start()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # it is the real one here
    logging.basicConfig(stream=sys.stdout, format="[%(levelname)s]\t%(message)s")
    stream = connection.makefile("rb")
    started = time.perf_counter()
    try:
        handler = load_handler(os.environ["_HANDLER"])
    except StartFailed as failure:
        error_type, message = failure.args
        _send(connection, b"F", {"errorMessage": message, "errorType": error_type, "requestId": "", "stackTrace": []})
        return
    init_seconds: float | None = time.perf_counter() - started
    _send(connection, b"I", {"initSeconds": init_seconds})
    while (message := _receive(stream)) is not None:
        _serve(connection, handler, message, init_seconds)
        init_seconds = None


def load_handler(name: str) -> Callable[[Any, Context], Any]:
    """The function that *name* means: ``file.function``, ``pkg/mod.function`` or ``pkg.mod.function``.

    Raises:
        StartFailed: there is none, or importing it failed.
    """
    module_name, dot, function_name = name.rpartition(".")
    if not dot:
        raise StartFailed("Runtime.MalformedHandlerName", f"Bad handler '{name}': it must read 'file.function'")
    sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        raise StartFailed("Runtime.ImportModuleError", f"Unable to import module '{module_name}': {error}") from error
    except SyntaxError as error:
        raise StartFailed("Runtime.UserCodeSyntaxError", f"Syntax error in module '{module_name}': {error}") from error
    except Exception as error:
        traceback.print_exc()
        raise StartFailed(type(error).__name__, f"importing '{module_name}' raised: {error}") from error
    try:
        handler: Callable[[Any, Context], Any] = getattr(module, function_name)
    except AttributeError:
        message = f"Handler '{function_name}' missing on module '{module_name}'"
        raise StartFailed("Runtime.HandlerNotFound", message) from None
    return handler


def _serve(
    connection: socket.socket,
    handler: Callable[[Any, Context], Any],
    message: dict[str, Any],
    init_seconds: float | None,
) -> None:
    """One invocation, with the three lines Lambda logs about each."""
    context = _context(message)
    request_id = context.aws_request_id
    os.environ["_X_AMZN_TRACE_ID"] = message["traceId"]
    print(f"START RequestId: {request_id} Version: {context.function_version}")  # noqa: T201 - the log is stdout
    started = time.perf_counter()
    kind, payload = _run(handler, message["event"], context)
    sys.stderr.flush()
    print(_report(context, time.perf_counter() - started, init_seconds))  # noqa: T201 - the log is stdout
    _send_bytes(connection, kind, payload)


def _run(handler: Callable[[Any, Context], Any], event: Any, context: Context) -> tuple[bytes, bytes]:
    """The kind and the JSON of what the handler did. SystemExit ends this process, as it does in Lambda."""
    try:
        returned = handler(event, context)
    except Exception as error:  # noqa: BLE001 - whatever it is, Lambda reports it to the caller
        frames = traceback.extract_tb(error.__traceback__)[1:][:_LONGEST_TRACE]
        trace = traceback.format_list(frames)
        print(f"[ERROR] {type(error).__name__}: {error}\nTraceback (most recent call last):\n{''.join(trace)}")  # noqa: T201
        return b"E", _error(str(error), type(error).__name__, context, trace)
    try:
        payload = json.dumps(returned).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return b"E", _error(f"Unable to marshal response: {error}", "Runtime.MarshalError", context, [])
    if len(payload) > MAX_PAYLOAD_BYTES:
        message = f"Response payload size ({len(payload)} bytes) exceeded maximum allowed payload size "
        message += f"({MAX_PAYLOAD_BYTES} bytes)."
        return b"E", _error(message, "Function.ResponseSizeTooLarge", context, [])
    return b"R", payload


def _error(message: str, error_type: str, context: Context, trace: list[str]) -> bytes:
    document = {
        "errorMessage": message,
        "errorType": error_type,
        "requestId": context.aws_request_id,
        "stackTrace": trace,
    }
    return json.dumps(document).encode()


def _context(message: dict[str, Any]) -> Context:
    environment = os.environ
    return Context(
        aws_request_id=message["requestId"],
        function_name=environment["AWS_LAMBDA_FUNCTION_NAME"],
        function_version=environment["AWS_LAMBDA_FUNCTION_VERSION"],
        invoked_function_arn=message["functionArn"],
        memory_limit_in_mb=environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"],
        log_group_name=environment["AWS_LAMBDA_LOG_GROUP_NAME"],
        log_stream_name=environment["AWS_LAMBDA_LOG_STREAM_NAME"],
        deadline_epoch_seconds=message["deadlineEpochSeconds"],
    )


def _report(context: Context, seconds: float, init_seconds: float | None) -> str:
    milliseconds = seconds * 1000
    used_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _KIB_PER_MIB
    init = "" if init_seconds is None else f"\tInit Duration: {init_seconds * 1000:.2f} ms"
    return (
        f"END RequestId: {context.aws_request_id}\n"
        f"REPORT RequestId: {context.aws_request_id}\tDuration: {milliseconds:.2f} ms\t"
        f"Billed Duration: {int(milliseconds) + 1} ms\tMemory Size: {context.memory_limit_in_mb} MB\t"
        f"Max Memory Used: {used_mib} MB{init}"
    )


def _die_with(connection: socket.socket) -> None:
    """End this process and its children when the gateway is gone, even in the middle of an invocation."""
    hung_up = select.poll()
    hung_up.register(connection, 0)
    hung_up.poll()
    os.killpg(0, signal.SIGKILL)


def _receive(stream: BinaryIO) -> dict[str, Any] | None:
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    message: dict[str, Any] = json.loads(stream.read(*LENGTH.unpack(head)))
    return message


def _send(connection: socket.socket, kind: bytes, document: dict[str, Any]) -> None:
    _send_bytes(connection, kind, json.dumps(document).encode())


def _send_bytes(connection: socket.socket, kind: bytes, payload: bytes) -> None:
    connection.sendall(LENGTH.pack(len(payload)) + kind + payload)


if __name__ == "__main__":
    main()
