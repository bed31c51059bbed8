"""The AWS backend without AWS: boto3's real clients, botocore's own validation, replies put in by its Stubber.

Real AWS has not seen these exchanges.
"""

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.response import StreamingBody
from botocore.stub import Stubber

from backends import open_backend
from backends.aws.backend import caller
from backends.aws.logs import CloudWatchLogs
from backends.config import BackendConfig
from backends.errors import AlreadyExists, BackendError, BackendUnavailable, InvalidSpec, ModelError, NotFound
from backends.sagemaker.rooms import SageMakerEndpoints, SageMakerTraining
from backends.specs import JobState, TrainingSpec

ROLE = "arn:aws:iam::123456789012:role/jobs"
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def stubs() -> Iterator[dict[str, Any]]:
    """Stubbed clients by service; every reply that was put in must have been fetched."""
    session: Any = boto3.session.Session(
        region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    clients: dict[str, Any] = {name: session.client(name) for name in ("sagemaker", "sagemaker-runtime", "logs")}
    stubbers = {name: Stubber(client) for name, client in clients.items()}
    for stubber in stubbers.values():
        stubber.activate()
    yield {"clients": clients, **stubbers}
    for stubber in stubbers.values():
        stubber.assert_no_pending_responses()
    for client in clients.values():
        client.close()


def room(stubs: dict[str, Any], kind: Any) -> Any:
    call = caller(stubs["clients"]["sagemaker"], stubs["clients"]["sagemaker-runtime"])
    logs = CloudWatchLogs(stubs["clients"]["logs"], call, poll_seconds=0.01)
    return kind(call, place="AWS us-east-1", role_arn=ROLE, read_log=logs.read, poll_seconds=0.01)


def test_a_training_job_is_sent_and_read(stubs: dict[str, Any]) -> None:
    """The documents pass botocore's validation both ways."""
    spec = TrainingSpec(name="job-1", image="123.dkr.ecr.us-east-1.amazonaws.com/mine:1", output_uri="s3://bucket/out")
    training = room(stubs, SageMakerTraining)
    expected = dict(training.plan(spec).requests[0].document)
    stubs["sagemaker"].add_response(
        "create_training_job",
        {"TrainingJobArn": "arn:aws:sagemaker:us-east-1:123456789012:training-job/job-1"},
        expected,
    )
    stubs["sagemaker"].add_response(
        "describe_training_job",
        {
            "TrainingJobName": "job-1",
            "TrainingJobArn": "arn:aws:sagemaker:us-east-1:123456789012:training-job/job-1",
            "ModelArtifacts": {"S3ModelArtifacts": "s3://bucket/out/job-1/output/model.tar.gz"},
            "TrainingJobStatus": "Completed",
            "SecondaryStatus": "Completed",
            "StoppingCondition": {},
            "AlgorithmSpecification": {"TrainingInputMode": "File"},
            "ResourceConfig": {"VolumeSizeInGB": 30},
            "CreationTime": NOW,
            "FinalMetricDataList": [{"MetricName": "loss", "Value": 0.5, "Timestamp": NOW}],
        },
    )
    training.start(spec)
    status = training.finish("job-1")
    assert (status.state, status.created, status.metrics) == (JobState.COMPLETED, NOW, {"loss": 0.5})
    assert status.artifact_uri == "s3://bucket/out/job-1/output/model.tar.gz"


@pytest.mark.parametrize(
    ("code", "message", "error"),
    [
        ("ValidationException", "Requested resource not found.", NotFound),
        ("ResourceInUse", "Training job names must be unique within an AWS account and region, and …", AlreadyExists),
        ("ValidationException", 'Could not find model data at s3://b/k."', InvalidSpec),
    ],
)
def test_errors_are_ours(stubs: dict[str, Any], code: str, message: str, error: type[Exception]) -> None:
    """One code means many things: the text decides, and stays in the error."""
    stubs["sagemaker"].add_client_error("describe_training_job", code, message)
    with pytest.raises(error, match=message[:20]):
        room(stubs, SageMakerTraining).status("job-1")


def test_a_model_error_keeps_the_containers_words(stubs: dict[str, Any]) -> None:
    """Status and body of the container arrive as fields."""
    stubs["sagemaker-runtime"].add_client_error(
        "invoke_endpoint",
        "ModelError",
        "Received client error (400) from primary",
        424,
        modeled_fields={"OriginalStatusCode": 400, "OriginalMessage": "empty review", "LogStreamArn": "arn:x"},
    )
    with pytest.raises(ModelError) as caught:
        room(stubs, SageMakerEndpoints).invoke("e", b"{}", content_type="application/json")
    assert (caught.value.status, caught.value.reason) == (400, "empty review")


def test_an_invocation_reads_the_stream(stubs: dict[str, Any]) -> None:
    """The body comes as bytes."""
    stubs["sagemaker-runtime"].add_response(
        "invoke_endpoint",
        {
            "Body": StreamingBody(io.BytesIO(b"yes"), 3),
            "ContentType": "text/plain",
            "InvokedProductionVariant": "AllTraffic",
        },
        {"EndpointName": "e", "Body": b"?", "Accept": "text/plain"},
    )
    reply = room(stubs, SageMakerEndpoints).invoke("e", b"?", accept="text/plain")
    assert (reply.body, reply.variant) == (b"yes", "AllTraffic")


def test_logs_are_read_to_their_end(stubs: dict[str, Any]) -> None:
    """Every stream of the job, page by page, until the token repeats; one that is throttled is asked for again."""
    group = "/aws/sagemaker/TrainingJobs"
    logs = stubs["logs"]
    logs.add_response(
        "describe_log_streams",
        {"logStreams": [{"logStreamName": "job-1/algo-1-1"}]},
        {"logGroupName": group, "logStreamNamePrefix": "job-1/"},
    )
    stream = {"logGroupName": group, "logStreamName": "job-1/algo-1-1", "startFromHead": True}
    logs.add_response("get_log_events", {"events": [{"message": "one\n"}], "nextForwardToken": "f/1"}, stream)
    logs.add_client_error("get_log_events", "ThrottlingException", "Rate exceeded")
    logs.add_response(
        "get_log_events", {"events": [{"message": "two"}], "nextForwardToken": "f/2"}, stream | {"nextToken": "f/1"}
    )
    logs.add_response("get_log_events", {"events": [], "nextForwardToken": "f/2"}, stream | {"nextToken": "f/2"})
    call = caller(stubs["clients"]["sagemaker"], stubs["clients"]["sagemaker-runtime"])
    reader = CloudWatchLogs(stubs["clients"]["logs"], call, poll_seconds=0.01, patience_seconds=60)
    assert list(reader.read("training job", "job-1", follow=False)) == ["one", "two"]


def test_a_log_that_may_not_be_read_is_said(stubs: dict[str, Any]) -> None:
    """A refusal that stays is no lost connection: it is not tried again."""
    stubs["logs"].add_client_error("describe_log_streams", "AccessDeniedException", "User … is not authorized")
    call = caller(stubs["clients"]["sagemaker"], stubs["clients"]["sagemaker-runtime"])
    reader = CloudWatchLogs(stubs["clients"]["logs"], call, poll_seconds=0.01, patience_seconds=60)
    with pytest.raises(BackendError, match="not authorized"):
        list(reader.read("training job", "job-1", follow=False))


def test_a_role_is_needed() -> None:
    """Nothing is guessed about permissions."""
    with pytest.raises(InvalidSpec, match="role_arn"):
        open_backend(BackendConfig(backend="aws"))


def test_an_endpoint_url_that_nobody_answers_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole backend can be pointed elsewhere; the error says what was not reached."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    config = BackendConfig(backend="aws", role_arn=ROLE, endpoint_url="http://127.0.0.1:9")
    with open_backend(config) as backend, pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:9"):
        backend.training.status("job-1")
