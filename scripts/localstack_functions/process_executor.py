"""LocalStack's functions as processes, for where no container can be had: LAMBDA_RUNTIME_EXECUTOR=process.

    LocalStack ── invoke() ──> ProcessExecutor ══ Lambda Runtime API ══> python -m awslambdaric HANDLER

The program is AWS's own runtime client. Everything around it, from the event that API Gateway makes to the reading of
the reply, is LocalStack's. LocalStack finds this through ``process_executor-1.dist-info`` beside it.

Source: AWS Lambda developer guide, "Using the Lambda runtime API for custom runtimes".
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Any

from localstack.services.lambda_.invocation.executor_endpoint import StatusErrorException
from localstack.services.lambda_.invocation.lambda_models import InvocationResult
from localstack.services.lambda_.invocation.plugins import RuntimeExecutorPlugin
from localstack.services.lambda_.invocation.runtime_executor import RuntimeExecutor

LOOPBACK = "127.0.0.1"
PREFIX = "/2018-06-01/runtime/"


class ProcessExecutorPlugin(RuntimeExecutorPlugin):  # type: ignore[misc]  # LocalStack has an environment of its own
    """How LocalStack comes to the class."""

    name = "process"

    def load(self, *_: Any, **__: Any) -> type["ProcessExecutor"]:
        """The class itself."""
        return ProcessExecutor


class ProcessExecutor(RuntimeExecutor):  # type: ignore[misc]
    """One execution environment: a runtime API and the process that asks it for events, one at a time."""

    def __init__(self, id: str, function_version: Any) -> None:  # noqa: A002  LocalStack's words
        super().__init__(id, function_version)
        self.started: Future[None] = Future()
        self.waiting: Queue[dict[str, str]] = Queue()
        self.answers: dict[str, Future[tuple[bytes, bool]]] = {}
        self._api = ThreadingHTTPServer((LOOPBACK, 0), _runtime_api(self))
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed in stop()
        self._environment: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def prepare_version(cls, function_version: Any) -> None:
        """Unpack the code."""
        function_version.config.code.prepare_for_execution()

    @classmethod
    def cleanup_version(cls, function_version: Any) -> None:
        """Nothing was made for a version."""

    def start(self, env_vars: dict[str, Any]) -> None:
        """Start the process; returns when it asks for its first event.

        Raises:
            StatusErrorException: the handler could not be loaded.
        """
        code = str(self.function_version.config.code.get_unzipped_code_location())
        self._environment = {name: str(value) for name, value in env_vars.items()} | {
            "AWS_LAMBDA_RUNTIME_API": f"{LOOPBACK}:{self._api.server_port}",
            "LAMBDA_TASK_ROOT": code,
            "PATH": os.defpath,
            "PYTHONPATH": code,
        }
        threading.Thread(target=self._api.serve_forever, daemon=True).start()
        self._launch()
        self.started.result()

    def stop(self) -> None:
        """End the process; whoever waits for it is told."""
        self.started.cancel()
        for answer in self.answers.values():
            answer.cancel()
        if self._process:
            self._end()
            self._api.shutdown()
        self._api.server_close()
        self._log.close()

    def invoke(self, payload: dict[str, str]) -> InvocationResult:
        """Hand one event over and wait for what becomes of it, the function's time-out at most."""
        request_id = payload["invoke-id"]
        answer = self.answers[request_id] = Future()
        written = os.fstat(self._log.fileno()).st_size
        limit_seconds = self.function_version.config.timeout
        deadline = time.time() + limit_seconds
        self.waiting.put(payload | {"deadline-milliseconds": str(int(deadline * 1000))})
        try:
            body, is_error = answer.result(limit_seconds)
        except TimeoutError:
            said = f"{request_id} Task timed out after {limit_seconds:.2f} seconds"
            body, is_error = json.dumps({"errorType": "Sandbox.Timedout", "errorMessage": said}).encode(), True
            self._end()
            self._launch()
        finally:
            del self.answers[request_id]
        logs = f"START RequestId: {request_id}\n{self._logged_since(written)}END RequestId: {request_id}\n"
        return InvocationResult(request_id, body, is_error, logs)

    def get_logs(self) -> str:
        """Everything that the process printed; nothing once it is ended."""
        return "" if self._log.closed else self._logged_since(0)

    def get_address(self) -> str:
        """Where the process is."""
        return LOOPBACK

    def get_endpoint_from_executor(self) -> str:
        """Where the process finds LocalStack."""
        return LOOPBACK

    def get_runtime_endpoint(self) -> str:
        """LocalStack's own program in a container would call here; a process does not."""
        return ""

    def _launch(self) -> None:
        command = [sys.executable, "-m", "awslambdaric", self._environment["_HANDLER"]]
        code = self._environment["LAMBDA_TASK_ROOT"]
        self._process = subprocess.Popen(
            command, cwd=code, env=self._environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )

    def _end(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _logged_since(self, offset: int) -> str:
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size - offset, offset).decode(
            errors="replace"
        )


def _runtime_api(executor: ProcessExecutor) -> type[BaseHTTPRequestHandler]:
    class RuntimeApi(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not executor.started.done():
                executor.started.set_result(None)
            event = executor.waiting.get()
            body = event["payload"].encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Lambda-Runtime-Aws-Request-Id", event["invoke-id"])
            self.send_header("Lambda-Runtime-Deadline-Ms", event["deadline-milliseconds"])
            self.send_header("Lambda-Runtime-Invoked-Function-Arn", event["invoked-function-arn"])
            self.send_header("Lambda-Runtime-Trace-Id", event["trace-id"])
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            match self.path.removeprefix(PREFIX).split("/"):
                case ["init", "error"]:
                    executor.started.set_exception(StatusErrorException("Environment startup failed", payload=body))
                case ["invocation", request_id, kind] if answer := executor.answers.get(request_id):
                    answer.set_result((body, kind == "error"))
            self.send_response(HTTPStatus.ACCEPTED)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """LocalStack logs the request that led here."""

    return RuntimeApi
