"""Programs' output as CloudWatch Logs keeps it (contract D.1): one stream per host."""

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from backends.aws.account import is_passing
from backends.errors import BackendError, BackendUnavailable
from backends.sagemaker.readings import JOB_STATES
from backends.waiting import persistent

_GROUPS = {
    "training job": "/aws/sagemaker/TrainingJobs",
    "transform job": "/aws/sagemaker/TransformJobs",
    "endpoint": "/aws/sagemaker/Endpoints/{name}",
}

T = TypeVar("T")


class CloudWatchLogs:
    """Reads and follows logs; *logs* is boto3's client, *call* answers the Describe operations of SageMaker.

    A connection that is lost while a log is read is tried again for *patience_seconds*; each line is given once.
    """

    def __init__(
        self,
        logs: Any,
        call: Callable[[str, dict[str, Any]], dict[str, Any]],
        *,
        poll_seconds: float,
        patience_seconds: float = 0.0,
    ) -> None:
        self._logs = logs
        self._call = call
        self._poll_seconds = poll_seconds
        self._patience_seconds = patience_seconds

    def read(self, kind: str, name: str, *, follow: bool) -> Iterator[str]:
        """Yield lines; with *follow* go on until the job has ended. An endpoint never ends by itself.

        Raises:
            BackendUnavailable: AWS was not reached for as long as this reader's patience lasts.
            BackendError: CloudWatch Logs refuses, for want of a permission for example.
        """
        group = _GROUPS[kind].format(name=name)
        tokens: dict[str, str] = {}
        while True:
            ended = not follow or self._has_ended(kind, name)
            for stream in self._streams(group, "" if kind == "endpoint" else f"{name}/"):
                yield from self._new_lines(group, stream, tokens)
            if ended:
                return
            time.sleep(self._poll_seconds)

    def _streams(self, group: str, prefix: str) -> list[str]:
        query = {"logGroupName": group} | ({"logStreamNamePrefix": prefix} if prefix else {})

        def ask() -> list[str]:
            try:
                pages = self._logs.get_paginator("describe_log_streams").paginate(**query)
                return [stream["logStreamName"] for page in pages for stream in page["logStreams"]]
            except self._logs.exceptions.ResourceNotFoundException:
                return []  # The group appears with the first line.

        return self._asked(ask)

    def _new_lines(self, group: str, stream: str, tokens: dict[str, str]) -> Iterator[str]:
        """What the stream has behind the token kept of it, which moves on with each page that has been read."""
        while True:
            query = {"logGroupName": group, "logStreamName": stream, "startFromHead": True}
            if stream in tokens:
                query["nextToken"] = tokens[stream]
            page = self._asked(lambda query=query: self._logs.get_log_events(**query))  # type: ignore[misc]
            for event in page["events"]:
                yield event["message"].rstrip("\n")
            if page["nextForwardToken"] == tokens.get(stream):
                return
            tokens[stream] = page["nextForwardToken"]

    def _has_ended(self, kind: str, name: str) -> bool:
        if kind == "endpoint":
            return False
        resource = "TrainingJob" if kind == "training job" else "TransformJob"
        document = self._call(f"Describe{resource}", {f"{resource}Name": name})
        return JOB_STATES[document[f"{resource}Status"]].is_terminal

    def _asked(self, ask: Callable[[], T]) -> T:
        """What *ask* returns, with boto3's errors restated and a lost connection borne."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  an extra

        def restated() -> T:
            try:
                return ask()
            except ClientError as exc:
                kind = BackendUnavailable if is_passing(exc) else BackendError
                raise kind(f"CloudWatch Logs: {exc}") from exc
            except BotoCoreError as exc:
                raise BackendUnavailable(f"CloudWatch Logs is not reached: {exc}") from exc

        return persistent(restated, patience_seconds=self._patience_seconds, pause_seconds=self._poll_seconds)
