"""The control plane through unmodified boto3: the engine's behaviour is tested elsewhere, here it is the wire."""

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError, WaiterError

from backends import Backend
from backends.config import BackendConfig
from backends.engine.site import TRAINING
from backends.engine.state import State
from backends.waiting import wait_until
from tests.faults.conftest import kill, processes_of
from tests.wire.conftest import ENDPOINT, client

ROLE = "arn:aws:iam::000000000000:role/anybody"
SOON = {"Delay": 1, "MaxAttempts": 60}


def holds(process: psutil.Process, seat: str) -> bool:
    """True of the supervisor that keeps *seat*."""
    return any(Path(file.path).name == seat for file in process.open_files())


def fresh(stem: str) -> str:
    return f"{stem}-{uuid.uuid4().hex[:8]}"


def training_job(sagemaker: Any, name: str, **more: Any) -> dict[str, Any]:
    """Start the probe's program."""
    response: dict[str, Any] = sagemaker.create_training_job(
        TrainingJobName=name,
        RoleArn=ROLE,
        AlgorithmSpecification={"TrainingImage": "probe", "TrainingInputMode": "File"},
        OutputDataConfig={"S3OutputPath": "s3://wire/out"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
        StoppingCondition={"MaxRuntimeInSeconds": 86400},
        **more,
    )
    return response


def test_a_job_runs_and_is_described(sagemaker: Any, backend: Backend, url: str) -> None:
    """Create, wait with boto3's own waiter, describe: times are times, and what was sent comes back."""
    name = fresh("Wire")
    began = datetime.now(UTC) - timedelta(seconds=1)
    made = training_job(sagemaker, name, HyperParameters={"say": "hello"}, Environment={"A": "b"})
    assert made["TrainingJobArn"] == f"arn:aws:sagemaker:us-east-1:000000000000:training-job/{name.lower()}"
    sagemaker.get_waiter("training_job_completed_or_stopped").wait(TrainingJobName=name, WaiterConfig=SOON)
    told = sagemaker.describe_training_job(TrainingJobName=name)
    assert told["TrainingJobStatus"] == "Completed", told
    assert began < told["CreationTime"] <= told["TrainingStartTime"] <= told["TrainingEndTime"]
    assert (told["HyperParameters"], told["Environment"]) == ({"say": "hello"}, {"A": "b"})
    assert "VpcConfig" not in told
    artifacts = told["ModelArtifacts"]["S3ModelArtifacts"]
    assert artifacts == f"s3://wire/out/{name}/output/model.tar.gz"
    assert backend.store.exists(artifacts)
    assert name in {job["TrainingJobName"] for job in sagemaker.list_training_jobs()["TrainingJobSummaries"]}


def test_a_job_whose_supervisor_was_killed_ends_while_the_server_stays_up(
    sagemaker: Any, config: BackendConfig
) -> None:
    """Nobody need start the server again."""
    name = fresh("killed")
    training_job(sagemaker, name, HyperParameters={"mode": "hang"})
    state = State(config.home / "state.db")
    job = state.find(TRAINING, name)
    assert job is not None

    def supervisors() -> list[psutil.Process]:
        return [process for process in processes_of(config.home) if holds(process, job.facts["seat"])]

    kill(*wait_until(supervisors, bool, what="the supervisor", timeout_seconds=60))
    state.close()
    with pytest.raises(WaiterError):
        sagemaker.get_waiter("training_job_completed_or_stopped").wait(TrainingJobName=name, WaiterConfig=SOON)
    assert "was killed" in sagemaker.describe_training_job(TrainingJobName=name)["FailureReason"]


def test_the_logs_of_a_job_are_followed_as_the_sdk_does(sagemaker: Any, url: str) -> None:
    """One stream for the host; the token comes back unchanged once there is nothing new (contract D.1)."""
    name = fresh("logs")
    training_job(sagemaker, name)
    sagemaker.get_waiter("training_job_completed_or_stopped").wait(TrainingJobName=name, WaiterConfig=SOON)
    logs = client("logs", url)
    group = "/aws/sagemaker/TrainingJobs"
    [stream] = logs.describe_log_streams(
        logGroupName=group, logStreamNamePrefix=f"{name}/", orderBy="LogStreamName", limit=1
    )["logStreams"]
    assert stream["logStreamName"].startswith(f"{name}/algo-1-")
    query = {"logGroupName": group, "logStreamName": stream["logStreamName"], "startFromHead": True}
    lines, token = [], None
    while True:
        page = logs.get_log_events(**query, limit=1, **({"nextToken": token} if token else {}))
        lines += [event["message"] for event in page["events"]]
        if page["nextForwardToken"] == token:
            break
        token = page["nextForwardToken"]
    assert lines
    assert lines[-1:] == [
        event["message"] for event in logs.get_log_events(**{**query, "startFromHead": False}, limit=1)["events"]
    ]
    filtered = logs.get_paginator("filter_log_events").paginate(logGroupName=group, logStreamNamePrefix=f"{name}/")
    assert [event["message"] for page in filtered for event in page["events"]] == lines


@pytest.mark.parametrize(
    ("group", "stream"), [("/aws/lambda/x", "y"), ("/aws/sagemaker/TrainingJobs", "nobody/algo-1-1")]
)
def test_a_log_that_is_not_there_is_said_so(url: str, group: str, stream: str) -> None:
    """ResourceNotFoundException, which the SDKs wait out."""
    logs = client("logs", url)
    with pytest.raises(logs.exceptions.ResourceNotFoundException):
        logs.get_log_events(logGroupName=group, logStreamName=stream)


def test_an_endpoints_log_is_a_group_of_its_own(url: str, runtime: Any) -> None:
    """One stream for each variant's instance."""
    runtime.invoke_endpoint(EndpointName=ENDPOINT, Body=b"x")["Body"].read()
    streams = client("logs", url).describe_log_streams(logGroupName=f"/aws/sagemaker/Endpoints/{ENDPOINT}")
    assert {stream["logStreamName"].split("/")[0] for stream in streams["logStreams"]} >= {"one", "two"}


def test_what_is_unknown_is_a_validation_exception(sagemaker: Any) -> None:
    """The texts that SDKs and Terraform branch on (contract 0.3)."""
    with pytest.raises(ClientError) as job:
        sagemaker.describe_training_job(TrainingJobName="nobody")
    assert job.value.response["Error"] == {"Code": "ValidationException", "Message": "Requested resource not found."}
    with pytest.raises(ClientError, match="Could not find endpoint ") as endpoint:
        sagemaker.describe_endpoint(EndpointName="nobody")
    assert endpoint.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_a_taken_name_is_resource_in_use(sagemaker: Any) -> None:
    """boto3 makes the modelled exception of it."""
    name = fresh("twice")
    training_job(sagemaker, name)
    with pytest.raises(sagemaker.exceptions.ResourceInUse, match="already exists"):
        training_job(sagemaker, name)


def test_violations_are_counted(sagemaker: Any) -> None:
    """What boto3 does not check itself, the server does, all at once."""
    with pytest.raises(ClientError, match=r"^An error .* 2 validation errors detected: .*; ") as caught:
        sagemaker.list_training_jobs(MaxResults=101, SortBy="Colour")
    assert caught.value.response["Error"]["Code"] == "ValidationException"


@pytest.mark.parametrize("operation", ["create_pipeline", "list_apps"])
def test_an_operation_that_is_not_emulated_is_unknown(sagemaker: Any, operation: str) -> None:
    """A clean error that says what there is."""
    arguments = {"PipelineName": "x", "ClientRequestToken": "t" * 32, "RoleArn": ROLE}
    with pytest.raises(ClientError, match="Greenroom does not carry out") as caught:
        getattr(sagemaker, operation)(**(arguments if operation == "create_pipeline" else {}))
    assert caught.value.response["Error"]["Code"] == "UnknownOperationException"


def test_who_calls_and_what_a_role_may(url: str) -> None:
    """A session of a role that exists and may do everything."""
    arn = client("sts", url).get_caller_identity()["Arn"]
    role = arn.split("/")[1]
    iam = client("iam", url)
    told = iam.get_role(RoleName=role)["Role"]
    assert told["Arn"] == f"arn:aws:iam::000000000000:role/{role}"
    assert told["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    asked = ["s3:PutObject", "sagemaker:CreateTrainingJob"]
    answer = iam.simulate_principal_policy(PolicySourceArn=told["Arn"], ActionNames=asked)["EvaluationResults"]
    assert [(one["EvalActionName"], one["EvalDecision"]) for one in answer] == [(name, "allowed") for name in asked]


def test_another_region_is_said_so(url: str) -> None:
    """The text says which region is served, and what to set."""
    with pytest.raises(ClientError, match="this is us-east-1, not eu-west-1") as caught:
        client("sagemaker", url, region="eu-west-1").list_models()
    assert caught.value.response["Error"]["Code"] == "InvalidSignatureException"
    assert client("sts", url, region="eu-west-1").get_caller_identity()["Account"] == "000000000000"


def test_another_service_is_said_so(url: str) -> None:
    """In that service's own protocol, so that its client shows the text."""
    for service, call in (("dynamodb", "list_tables"), ("sqs", "list_queues"), ("lambda", "list_functions")):
        with pytest.raises(ClientError, match="--upstream URL"):
            getattr(client(service, url), call)()
