"""``sentiment permissions`` grants exactly what the commands ask of AWS: no action is missing, none is unused.

Each way below goes through commands in this process while every request is recorded. What a new command asks of AWS
is granted in ``sentiment/permissions.json``, and shown to be asked for by a way of its own in ``WAYS``.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from backends import open_backend
from backends.aws.account import AwsAccount
from backends.aws.images import ImageRepository
from backends.config import load_config
from backends.specs import ModelSpec, Split, TrainingSpec, TransformSpec
from sentiment.bundle import CONTAINER
from sentiment.image import REPOSITORY
from sentiment.production import callers_policy
from sentiment.settings import APPLICATION_TAG, IMAGE, PROJECT
from tests.aws.commands import Commands, recording, user_of_aws
from tests.aws.conftest import client, fresh_account
from tests.conformance.rigs import PROBE
from tests.emulator import served
from tests.peers import moto_server

EMULATED_BUCKET = "greenroom-000000000000-us-east-1"
TAGS = {APPLICATION_TAG: PROJECT}
# Source: Amazon ECR user guide, "IAM permissions for pushing an image".
ENGINES_PUSH = {
    "ecr:BatchCheckLayerAvailability",
    "ecr:CompleteLayerUpload",
    "ecr:InitiateLayerUpload",
    "ecr:PutImage",
    "ecr:UploadLayerPart",
}
# On alarms of ours, and in the caller's name on any.
TWICE = {"cloudwatch:DeleteAlarms", "cloudwatch:PutMetricAlarm"}
STRANGE_TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def steps_on_the_emulator(tmp_path: Path) -> set[str]:
    """All seven steps, jobs that are stopped halfway, an upload that was broken off, and the removal of it all."""
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "greenroom.toml").write_text(f'[images]\n"{IMAGE}" = "{CONTAINER}"\nprobe = "{PROBE}"\n')
    with served(tmp_path / "server") as (url, _):
        owner: Any = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
        sentiment = Commands(tmp_path, "--backend", "aws", "--endpoint-url", url)
        with recording() as record:
            sentiment.done("run", "--source", sentiment.source, "--spot", "--transform-instances", "2")
            sentiment.done("predict", "a good film")
            sentiment.done("logs", "sentiment")
            sentiment.done("run", "--source", sentiment.source, "-p", "min_df=2")
            sentiment.done("status")
            owner.create_multipart_upload(Bucket=EMULATED_BUCKET, Key="sentiment/begun")
            owner.put_object(Bucket=EMULATED_BUCKET, Key="sentiment/slow.txt", Body=b"sleep=60\n")
            begin_what_does_not_end(url)
            up = {item["name"] for item in sentiment.json("costs")["up"] if item["kind"].endswith("job")}
            assert up == {"sentiment-hangs", "sentiment-sleeps"}  # Those that have ended cost nothing.
            sentiment.done("destroy", "--yes")
        owner.close()
    return record.actions


def begin_what_does_not_end(url: str) -> None:
    """A training job and a transform job that go on until they are stopped."""
    role = "arn:aws:iam::000000000000:role/greenroom/sentiment-us-east-1"
    prefix = f"s3://{EMULATED_BUCKET}/sentiment"
    with open_backend(load_config(backend="aws", endpoint_url=url, role_arn=role)) as backend:
        backend.training.start(
            TrainingSpec(
                name="sentiment-hangs",
                image="probe",
                output_uri=f"{prefix}/models",
                hyperparameters={"mode": "hang"},
                tags=TAGS,
            )
        )
        backend.transform.start(
            TransformSpec(
                name="sentiment-sleeps",
                model=ModelSpec(image="probe"),
                input_uri=f"{prefix}/slow.txt",
                output_uri=f"{prefix}/predictions/slow",
                content_type="text/plain",
                split=Split.LINE,
                tags=TAGS,
            )
        )


def an_account_with_a_past(tmp_path: Path) -> set[str]:
    """Two regions, a role that another service may assume by now, and what an endpoint logged."""
    sentiment = Commands(tmp_path, "--backend", "aws")
    with fresh_account():
        iam, logs = client("iam"), client("logs")
        logs.create_log_group(logGroupName="/aws/sagemaker/Endpoints/sentiment-1")
        with recording() as record:
            sentiment.done("upload", "--source", sentiment.source, "--yes")
            iam.update_assume_role_policy(RoleName="sentiment-us-east-1", PolicyDocument=json.dumps(STRANGE_TRUST))
            sentiment.done("upload", "--source", sentiment.source, "--yes")
            sentiment.done("costs")
            sentiment.done("destroy", "--yes")
    return record.actions


def an_image_in_ecr(tmp_path: Path) -> set[str]:
    """Pushed twice; what the Docker engine asks of ECR in between goes through no client of ours."""
    with fresh_account(), recording() as record:
        repository = ImageRepository(AwsAccount(load_config(backend="aws")), REPOSITORY, TAGS)
        assert not repository.holds("1")
        assert repository.ensure() == repository.ensure()
        repository.login()
    return record.actions | ENGINES_PUSH


def instances_that_scale(tmp_path: Path) -> set[str]:
    """A real-time endpoint that scales, and a change of it that alarms watch."""
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "greenroom.toml").write_text(f'[images]\n"{IMAGE}" = "{CONTAINER}"\n')
    with moto_server() as moto, served(folder, "--upstream", moto) as (url, _):
        sentiment = Commands(tmp_path, "--backend", "aws", "--endpoint-url", url)
        scaled = ("--source", sentiment.source, "--real-time", "--autoscale", "2:4")
        with recording() as record:
            sentiment.done("run", *scaled)
            sentiment.done("run", *scaled, "--canary", "10:1", "-p", "min_df=2")
            sentiment.done("destroy", "--yes")
    return record.actions


WAYS: list[Callable[[Path], set[str]]] = [
    steps_on_the_emulator,
    an_account_with_a_past,
    an_image_in_ecr,
    instances_that_scale,
]


@pytest.mark.timeout(300)
def test_the_policy_grants_what_is_asked_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The actions of all statements are those of all ways."""
    asked: set[str] = set()
    for way in WAYS:
        folder = tmp_path / way.__name__
        folder.mkdir()
        user_of_aws(monkeypatch, folder)
        asked |= way(folder)
    statements = callers_policy(load_config(backend="aws"))["Statement"]
    granted = [action for statement in statements for action in statement["Action"]]
    assert set(granted) == asked
    # In one statement only, but for what Application Auto Scaling asks in the caller's name.
    assert [action for action in granted if granted.count(action) > 1 and action not in TWICE] == []


@pytest.mark.usefixtures("moto")
def test_the_policy_is_printed_for_ones_own_account(sentiment: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without asking AWS, which would need permission; IAM takes the document (as moto checks it)."""
    monkeypatch.setenv("GREENROOM_EXPECTED_ACCOUNT", "123456789012")
    monkeypatch.setenv("GREENROOM_REGION", "eu-west-1")
    with recording() as record:
        policy = json.loads(sentiment.done("permissions").stdout)
    assert record.operations == []
    assert "${" not in json.dumps(policy)
    by_sid = {statement["Sid"]: statement for statement in policy["Statement"]}
    assert by_sid["Bucket"]["Resource"] == ["arn:aws:s3:::greenroom-123456789012-eu-west-1"]
    assert by_sid["RoleOfJobs"]["Resource"] == ["arn:aws:iam::123456789012:role/greenroom/sentiment-eu-west-1"]
    client("iam").create_policy(PolicyName="callers", PolicyDocument=json.dumps(policy))
    page = sentiment.done("permissions", "--web").stdout
    client("iam").create_policy(PolicyName="page", PolicyDocument=page)


@pytest.mark.parametrize("web", [False, True])
def test_the_policy_is_of_the_regions_partition(*, web: bool) -> None:
    """Every ARN in it."""
    statements = callers_policy(load_config(backend="aws", region="us-gov-west-1"), web=web)["Statement"]
    arns = [arn for statement in statements for arn in statement["Resource"] if arn != "*"]
    assert {arn.split(":")[1] for arn in arns} == {"aws-us-gov"}


@pytest.mark.usefixtures("moto")
@pytest.mark.parametrize("options", [[], ["--web"]])
def test_each_policy_fits_into_a_role(sentiment: Commands, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    """A managed policy has at most 6,144 characters, white space not counted; whatever the names in it."""
    monkeypatch.setenv("GREENROOM_REGION", "ap-southeast-1")
    monkeypatch.setenv("GREENROOM_BUCKET", 63 * "b")
    monkeypatch.setenv("GREENROOM_ROLE_ARN", f"arn:aws:iam::123456789012:role/{64 * 'r'}")
    assert len("".join(sentiment.done("permissions", *options).stdout.split())) <= 6144
