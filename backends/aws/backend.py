"""The AWS backend: the same rooms and documents as the local one, sent by boto3."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from backends.aws.account import AwsAccount
from backends.aws.roles import is_made_here
from backends.base import Backend
from backends.config import BackendConfig
from backends.errors import BackendUnavailable, InvalidSpec
from backends.sagemaker.readings import JOB_STATES, ServiceError
from backends.sagemaker.rooms import Call, SageMakerEndpoints, SageMakerTraining, SageMakerTransform
from backends.waiting import SYSTEM_CLOCK, Clock

_POLL_SECONDS = 10.0
# Another server than AWS's is near, and asking costs nothing there.
_NEAR_POLL_SECONDS = 0.25
# How long a role that was just made may be unknown somewhere, and what SageMaker says meanwhile (contract 0.5).
_SETTLING_SECONDS, _SETTLING_PAUSE_SECONDS = 90.0, 5.0
_UNSETTLED = ("Could not assume role", "Could not access model data", "No S3 objects found", "proper pull permissions")
_LOG_GROUPS = {
    "training job": "/aws/sagemaker/TrainingJobs",
    "transform job": "/aws/sagemaker/TransformJobs",
    "endpoint": "/aws/sagemaker/Endpoints/{name}",
}

_log = logging.getLogger("greenroom.aws")

RoomT = TypeVar("RoomT", SageMakerTraining, SageMakerTransform, SageMakerEndpoints)


def open_aws(config: BackendConfig) -> Backend:
    """Everything runs in the caller's AWS account and costs money there.

    Raises:
        BackendUnavailable: boto3 is not installed.
        InvalidSpec: no execution role is configured.
    """
    account = AwsAccount(config)
    from backends.stores.s3 import S3Store  # noqa: PLC0415  needs boto3

    if not config.role_arn:
        raise InvalidSpec(
            "the AWS backend needs the ARN of an execution role: set role_arn in greenroom.toml or GREENROOM_ROLE_ARN."
        )
    place = f"AWS {config.region}"
    call = caller(account.client("sagemaker"), account.client("sagemaker-runtime", attempts=2))
    if is_made_here(config.role_arn):
        call = patient(call)
    poll_seconds = _NEAR_POLL_SECONDS if account.is_elsewhere else _POLL_SECONDS
    logs = CloudWatchLogs(account.client("logs"), call, poll_seconds)

    def room(kind: type[RoomT]) -> RoomT:
        return kind(call, place=place, role_arn=config.role_arn, read_log=logs.read, poll_seconds=poll_seconds)

    return Backend(
        name="aws",
        place=place,
        store=S3Store(account.client("s3")),
        training=room(SageMakerTraining),
        transform=room(SageMakerTransform),
        endpoints=room(SageMakerEndpoints),
    )


def caller(control: Any, runtime: Any) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    """A ``call(operation, document)`` over boto3 clients for the two SageMaker services.

    It raises :class:`ServiceError` for what the service refuses and BackendUnavailable when it is not reached.
    """
    from botocore import xform_name  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError  # noqa: PLC0415

    def call(operation: str, document: dict[str, Any]) -> dict[str, Any]:
        client = runtime if operation == "InvokeEndpoint" else control
        try:
            response: dict[str, Any] = getattr(client, xform_name(operation))(**document)
            if operation == "InvokeEndpoint":
                response["Body"] = response["Body"].read()
        except ClientError as exc:
            error = exc.response["Error"]
            members = {key: value for key, value in exc.response.items() if key.startswith(("Original", "LogStream"))}
            raise ServiceError(
                error["Code"],
                error["Message"],
                status=exc.response["ResponseMetadata"]["HTTPStatusCode"],
                **members,
            ) from exc
        except ParamValidationError as exc:
            raise ServiceError("ValidationException", str(exc)) from exc
        except BotoCoreError as exc:
            raise BackendUnavailable(f"{operation} did not reach SageMaker: {exc}") from exc
        return response

    return call


def patient(call: Call, clock: Clock = SYSTEM_CLOCK) -> Call:
    """*call*, but for 90 s what IAM has not made known everywhere yet is asked for again, which is said in the log."""

    def asked(operation: str, document: dict[str, Any]) -> dict[str, Any]:
        deadline = clock.now() + _SETTLING_SECONDS
        while True:
            try:
                return call(operation, document)
            except ServiceError as error:
                if clock.now() >= deadline or not any(text in error.message for text in _UNSETTLED):
                    raise
                _log.warning(
                    "%s: %s. The role may be new; trying again for %.0f s", operation, error, deadline - clock.now()
                )
            clock.sleep(_SETTLING_PAUSE_SECONDS)

    return asked


class CloudWatchLogs:
    """Programs' output as CloudWatch keeps it (contract D.1): one stream per host."""

    def __init__(
        self, logs: Any, call: Callable[[str, dict[str, Any]], dict[str, Any]], poll_seconds: float = _POLL_SECONDS
    ) -> None:
        self._logs = logs
        self._call = call
        self._poll_seconds = poll_seconds

    def read(self, kind: str, name: str, *, follow: bool) -> Iterator[str]:
        """Yield lines; with *follow* go on until the job has ended. An endpoint never ends by itself."""
        group = _LOG_GROUPS[kind].format(name=name)
        tokens: dict[str, str] = {}
        while True:
            ended = not follow or self._has_ended(kind, name)
            for stream in self._streams(group, "" if kind == "endpoint" else f"{name}/"):
                yield from self._new_lines(group, stream, tokens)
            if ended:
                return
            time.sleep(self._poll_seconds)

    def _streams(self, group: str, prefix: str) -> list[str]:
        from botocore.exceptions import ClientError  # noqa: PLC0415

        query = {"logGroupName": group} | ({"logStreamNamePrefix": prefix} if prefix else {})
        try:
            pages = self._logs.get_paginator("describe_log_streams").paginate(**query)
            return [stream["logStreamName"] for page in pages for stream in page["logStreams"]]
        except ClientError as exc:
            if exc.response["Error"]["Code"] == "ResourceNotFoundException":
                return []  # The group appears with the first line.
            raise

    def _new_lines(self, group: str, stream: str, tokens: dict[str, str]) -> Iterator[str]:
        while True:
            query = {"logGroupName": group, "logStreamName": stream, "startFromHead": True}
            if stream in tokens:
                query["nextToken"] = tokens[stream]
            page = self._logs.get_log_events(**query)
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
