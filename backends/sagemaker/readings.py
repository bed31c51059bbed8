"""SageMaker response documents → our statuses, and its error codes → our errors. Pure.

An unknown native word is an error, never a silent "unknown".
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from backends.errors import AlreadyExists, BackendError, Conflict, InvalidSpec, ModelError, NotFound, Throttled
from backends.specs import EndpointState, EndpointStatus, JobState, JobStatus, Phase, Serverless

Document = Mapping[str, Any]

JOB_STATES = {
    "InProgress": JobState.IN_PROGRESS,
    "Stopping": JobState.STOPPING,
    "Completed": JobState.COMPLETED,
    "Failed": JobState.FAILED,
    "Stopped": JobState.STOPPED,
    "Deleting": JobState.STOPPING,
}
ENDPOINT_STATES = {
    "Creating": EndpointState.CREATING,
    "Updating": EndpointState.UPDATING,
    "SystemUpdating": EndpointState.SYSTEM_UPDATING,
    "RollingBack": EndpointState.ROLLING_BACK,
    "InService": EndpointState.IN_SERVICE,
    "OutOfService": EndpointState.OUT_OF_SERVICE,
    "UpdateRollbackFailed": EndpointState.UPDATE_ROLLBACK_FAILED,
    "Deleting": EndpointState.DELETING,
    "Failed": EndpointState.FAILED,
}


class ServiceError(Exception):
    """An error in SageMaker's own words: what the engine raises and what boto3's ClientError is turned into.

    *code* is the AWS error code, *status* the HTTP status, *members* whatever else the error's shape holds
    (ModelError: OriginalStatusCode, OriginalMessage, LogStreamArn). It is *sent_again* if it answers a repetition.
    """

    sent_again = False

    def __init__(self, code: str, message: str, *, status: int = 400, **members: object) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.members = members


def training_status(document: Document) -> JobStatus:
    """Read a DescribeTrainingJob response."""
    artifacts = document.get("ModelArtifacts", {})
    return JobStatus(
        name=document["TrainingJobName"],
        state=_word(JOB_STATES, "training job", document["TrainingJobStatus"]),
        created=_moment(document["CreationTime"]),
        phase=document.get("SecondaryStatus", ""),
        reason=document.get("FailureReason", ""),
        started=_optional_moment(document.get("TrainingStartTime")),
        ended=_optional_moment(document.get("TrainingEndTime")),
        artifact_uri=artifacts.get("S3ModelArtifacts"),
        output_uri=document.get("OutputDataConfig", {}).get("S3OutputPath"),
        metrics={entry["MetricName"]: entry["Value"] for entry in document.get("FinalMetricDataList", ())},
        phases=tuple(
            Phase(
                name=entry["Status"],
                message=entry.get("StatusMessage", ""),
                started=_moment(entry["StartTime"]),
                ended=_optional_moment(entry.get("EndTime")),
            )
            for entry in document.get("SecondaryStatusTransitions", ())
        ),
    )


def transform_status(document: Document) -> JobStatus:
    """Read a DescribeTransformJob response."""
    return JobStatus(
        name=document["TransformJobName"],
        state=_word(JOB_STATES, "transform job", document["TransformJobStatus"]),
        created=_moment(document["CreationTime"]),
        reason=document.get("FailureReason", ""),
        started=_optional_moment(document.get("TransformStartTime")),
        ended=_optional_moment(document.get("TransformEndTime")),
        output_uri=document.get("TransformOutput", {}).get("S3OutputPath"),
    )


def endpoint_status(document: Document) -> EndpointStatus:
    """Read a DescribeEndpoint response."""
    return EndpointStatus(
        name=document["EndpointName"],
        state=_word(ENDPOINT_STATES, "endpoint", document["EndpointStatus"]),
        created=_moment(document["CreationTime"]),
        reason=document.get("FailureReason", ""),
        weights={
            variant["VariantName"]: variant.get("CurrentWeight", 1.0)
            for variant in document.get("ProductionVariants", ())
        },
        serverless={
            variant["VariantName"]: _serverless(variant["CurrentServerlessConfig"])
            for variant in document.get("ProductionVariants", ())
            if "CurrentServerlessConfig" in variant
        },
    )


def restated(error: ServiceError, *, kind: str, name: str, place: str) -> BackendError:
    """The error of ours that says the same as *error*, met while working on *kind* *name* in *place*.

    The code alone cannot decide: SageMaker says ValidationException for a missing job, a taken name and a
    malformed request alike (https://github.com/boto/boto3/issues/2808), so the text is read too.
    """
    text = f"{kind} {name!r} in {place}: {error.code}: {error.message}"
    if error.code == "ModelError":
        status = int(str(error.members.get("OriginalStatusCode", 0)))
        return ModelError(text, name=name, status=status, reason=str(error.members.get("OriginalMessage", "")))
    branch: type[BackendError] = BackendError
    if says_missing(error):
        branch = NotFound
    elif says_taken(error):
        branch = AlreadyExists
    elif "The request was rejected because" in error.message or says_under_way(error):
        branch = Conflict
    elif error.code in {"ValidationException", "ValidationError"}:
        branch = InvalidSpec
    elif error.code == "ThrottlingException":
        branch = Throttled
    return branch(text, kind=kind, name=name, reason=error.message)


def says_missing(error: ServiceError) -> bool:
    """True when *error* says that the named resource does not exist."""
    if error.code in {"ResourceNotFound", "ResourceNotFoundException"}:
        return True
    return error.code in {"ValidationException", "ValidationError"} and (
        error.message.startswith(("Requested resource not found", "Could not find requested job"))
        or error.message.startswith(("Could not find job", "Could not find endpoint", 'Could not find model "'))
        or (error.message.startswith("Endpoint ") and error.message.endswith(" not found."))
    )


def says_taken(error: ServiceError) -> bool:
    """True when *error* says that the name of what was to be made is taken."""
    return error.code == "ResourceInUse" or "already existing" in error.message


def says_under_way(error: ServiceError) -> bool:
    """True when *error* says that an endpoint is being changed or removed."""
    return "in-progress" in error.message


def says(found: object, asked: object) -> bool:
    """True if *found*, of a Describe, holds everything of *asked*; SageMaker adds what it takes for granted."""
    if isinstance(asked, Mapping):
        return isinstance(found, Mapping) and all(says(found.get(key), value) for key, value in asked.items())
    if isinstance(asked, list):
        return isinstance(found, list) and len(found) == len(asked) and all(map(says, found, asked))
    return found == asked


def _serverless(document: Document) -> Serverless:
    return Serverless(
        memory_mb=document["MemorySizeInMB"],
        max_concurrency=document["MaxConcurrency"],
        provisioned_concurrency=document.get("ProvisionedConcurrency"),
    )


def _word(table: Mapping[str, Any], kind: str, native: str) -> Any:
    if native not in table:
        raise BackendError(f"SageMaker reports a {kind} as {native!r}, which is not known here.", kind=kind)
    return table[native]


def _moment(value: datetime | float) -> datetime:
    if isinstance(value, datetime):
        return value
    return datetime.fromtimestamp(value, UTC)


def _optional_moment(value: datetime | float | None) -> datetime | None:
    return None if value is None else _moment(value)
