"""AWS's own command line, unmodified, for what is not S3: jobs, endpoints, logs, identity."""

import json
from pathlib import Path
from typing import Any

import urllib3

from backends import Backend
from tests.wire.conftest import ENDPOINT
from tests.wire.test_s3_awscli import aws
from tests.wire.test_sagemaker import ROLE, fresh

GROUP = "/aws/sagemaker/TrainingJobs"


def asked(url: str, *arguments: str) -> Any:
    """The document that `aws` prints."""
    return json.loads(aws(url, *arguments, "--output", "json"))


def test_a_job_from_start_to_log(url: str, backend: Backend) -> None:
    """Created in shorthand, waited for, described through a query, listed; its log is searched and read."""
    name = fresh("Cli")
    backend.store.put("s3://wire/cli/data.txt", b"data\n")
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://wire/cli/"}}
    made = asked(
        url,
        *("sagemaker", "create-training-job", "--training-job-name", name, "--role-arn", ROLE),
        *("--algorithm-specification", "TrainingImage=probe,TrainingInputMode=File"),
        *("--input-data-config", json.dumps([{"ChannelName": "train", "DataSource": source}])),
        *("--output-data-config", "S3OutputPath=s3://wire/out"),
        *("--resource-config", "InstanceType=ml.m5.large,InstanceCount=1,VolumeSizeInGB=1"),
        *("--stopping-condition", "MaxRuntimeInSeconds=600"),
        *("--hyper-parameters", "say=from the shell"),
        *("--tags", "Key=team,Value=tests"),
    )
    assert made["TrainingJobArn"].endswith(f":training-job/{name.lower()}")
    backend.training.wait(name, timeout_seconds=60)  # The next line's own wait looks every two minutes.
    aws(url, "sagemaker", "wait", "training-job-completed-or-stopped", "--training-job-name", name)
    query = "[TrainingJobStatus, ModelArtifacts.S3ModelArtifacts]"
    told = asked(url, "sagemaker", "describe-training-job", "--training-job-name", name, "--query", query)
    assert told == ["Completed", f"s3://wire/out/{name}/output/model.tar.gz"]
    listed = asked(url, "sagemaker", "list-training-jobs", "--name-contains", name)["TrainingJobSummaries"]
    assert [job["TrainingJobName"] for job in listed] == [name]
    tags = asked(url, "sagemaker", "list-tags", "--resource-arn", made["TrainingJobArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "tests"}]
    found = asked(url, "logs", "filter-log-events", "--log-group-name", GROUP, "--log-stream-name-prefix", f"{name}/")
    assert "from the shell" in [event["message"] for event in found["events"]]
    [stream] = asked(url, "logs", "describe-log-streams", "--log-group-name", GROUP, "--log-stream-name-prefix", name)[
        "logStreams"
    ]
    place = ("--log-group-name", GROUP, "--log-stream-name", stream["logStreamName"])
    events = asked(url, "logs", "get-log-events", *place, "--start-from-head")["events"]
    assert "from the shell" in [event["message"] for event in events]


def test_an_answer_goes_to_a_file(url: str, tmp_path: Path) -> None:
    """invoke-endpoint writes the body and prints the rest."""
    file = tmp_path / "answer"
    told = asked(
        url,
        *("sagemaker-runtime", "invoke-endpoint", "--endpoint-name", ENDPOINT, "--body", "hello"),
        *("--content-type", "text/plain", "--accept", "text/csv", str(file)),
    )
    assert file.read_bytes() == b"HELLO"
    assert told == {"ContentType": "text/csv", "InvokedProductionVariant": "one"}


def test_who_i_am_and_a_link_for_others(url: str, backend: Backend, web: urllib3.PoolManager) -> None:
    """get-caller-identity; a presigned URL needs no credentials."""
    assert asked(url, "sts", "get-caller-identity")["Account"] == "000000000000"
    backend.store.put("s3://wire/shared.txt", b"for others")
    link = aws(url, "s3", "presign", "s3://wire/shared.txt").strip()
    assert web.request("GET", link).data == b"for others"
