"""The AWS backend: the same rooms and documents as the local one, sent by boto3."""

from collections.abc import Callable
from typing import Any, TypeVar

from backends.aws.account import AwsAccount, Busy, is_passing
from backends.aws.endpoints import SERVICES, AwsEndpoints
from backends.aws.logs import CloudWatchLogs
from backends.aws.patience import persevering, settling
from backends.aws.roles import is_made_here
from backends.base import Backend
from backends.config import BackendConfig
from backends.errors import BackendUnavailable, InvalidSpec
from backends.sagemaker.readings import ServiceError
from backends.sagemaker.rooms import SageMakerTraining, SageMakerTransform

_POLL_SECONDS = 10.0
# Another server than AWS's is near, and asking costs nothing there.
_NEAR_POLL_SECONDS = 0.25
# How long it is borne that AWS, once it was reached, is reached no more.
_PATIENCE_SECONDS = 600.0
_NEAR_PATIENCE_SECONDS = 60.0

RoomT = TypeVar("RoomT", SageMakerTraining, SageMakerTransform, AwsEndpoints)


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
    place = config.endpoint_url or f"AWS {config.region}"
    poll, patience = (
        (_NEAR_POLL_SECONDS, _NEAR_PATIENCE_SECONDS) if account.is_elsewhere else (_POLL_SECONDS, _PATIENCE_SECONDS)
    )
    call = persevering(
        caller(account.client("sagemaker"), account.client("sagemaker-runtime", attempts=2), account.client),
        patience_seconds=patience,
        pause_seconds=poll,
    )
    if is_made_here(config.role_arn):
        call = settling(call)
    logs = CloudWatchLogs(account.client("logs"), call, poll_seconds=poll, patience_seconds=patience)

    def room(kind: type[RoomT]) -> RoomT:
        return kind(
            call,
            place=place,
            role_arn=config.role_arn,
            read_log=logs.read,
            poll_seconds=poll,
        )

    return Backend(
        name="aws",
        place=place,
        store=S3Store(account.client("s3")),
        training=room(SageMakerTraining),
        transform=room(SageMakerTransform),
        endpoints=room(AwsEndpoints),
    )


def caller(
    control: Any, runtime: Any, make_client: Callable[[str], Any] | None = None
) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    """A ``call(operation, document)`` over boto3 clients for the two SageMaker services.

    *make_client* makes those of the services beside them (:data:`backends.aws.endpoints.SERVICES`) when they are asked.

    It raises :class:`ServiceError` for what the service refuses, BackendUnavailable when it is not reached, and
    :class:`Busy` when after boto3's own retries it still asks for patience.
    """
    from botocore import xform_name  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError  # noqa: PLC0415

    others: dict[str, Any] = {}

    def client_for(operation: str) -> Any:
        service = SERVICES.get(operation)
        if service is None or make_client is None:
            return runtime if operation == "InvokeEndpoint" else control
        if service not in others:
            others[service] = make_client(service)
        return others[service]

    def call(operation: str, document: dict[str, Any]) -> dict[str, Any]:
        client = client_for(operation)
        try:
            response: dict[str, Any] = getattr(client, xform_name(operation))(**document)
            if operation == "InvokeEndpoint":
                response["Body"] = response["Body"].read()
        except ClientError as exc:
            if client is not runtime and is_passing(exc):
                raise Busy(f"{operation} is not carried out for now: {exc}") from exc
            error = exc.response["Error"]
            answered = exc.response["ResponseMetadata"]
            members = {key: value for key, value in exc.response.items() if key.startswith(("Original", "LogStream"))}
            refused = ServiceError(error["Code"], error["Message"], status=answered["HTTPStatusCode"], **members)
            refused.sent_again = answered.get("RetryAttempts", 0) > 0
            raise refused from exc
        except ParamValidationError as exc:
            raise ServiceError("ValidationException", str(exc)) from exc
        except BotoCoreError as exc:
            raise BackendUnavailable(f"{operation} did not reach SageMaker: {exc}") from exc
        return response

    return call
