"""``sentiment permissions`` grants exactly what the commands ask of AWS: nothing is missing, nothing is unused.

Each way below goes through commands in this process while every request is recorded, with the resources that it is
about. What a new command asks of AWS is granted in ``sentiment/permissions.json``, and shown to be asked for by a way
of its own in ``WAYS``. No AWS account has judged these policies: IAM's rules are those of ``tests/policies.py``.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from backends import open_backend
from backends.aws.account import AwsAccount
from backends.aws.images import ImageRepository
from backends.config import load_config
from backends.engine.settings import ACCOUNT
from backends.specs import EndpointSpec, ModelSpec, Serverless, Split, TrainingSpec, TransformSpec, Variant
from sentiment.bundle import CONTAINER
from sentiment.image import REPOSITORY
from sentiment.production import callers_policy
from sentiment.settings import APPLICATION_TAG, IMAGE, PROJECT
from tests.aws.commands import Commands, user_of_aws
from tests.aws.conftest import ABROAD, client, fresh_account
from tests.aws.record import Record, recording
from tests.conformance.rigs import PROBE
from tests.emulator import served
from tests.peers import moto_server
from tests.policies import Call, allows, covers, elsewhere, reads, speaking_of

EMULATED_BUCKET = f"greenroom-{ACCOUNT}-us-east-1"
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


def steps_on_the_emulator(tmp_path: Path) -> Record:
    """All seven steps, instances that scale, a change that alarms watch, jobs that are stopped, and its removal."""
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "greenroom.toml").write_text(f'[images]\n"{IMAGE}" = "{CONTAINER}"\nprobe = "{PROBE}"\n')
    with moto_server() as moto, served(folder, "--upstream", moto) as (url, _):
        owner: Any = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
        sentiment = Commands(tmp_path, "--backend", "aws", "--endpoint-url", url)
        scaled = ("--real-time", "--autoscale", "2:4")
        with recording(ACCOUNT) as record:
            sentiment.done("run", "--source", sentiment.source, "--spot", "--transform-instances", "2")
            sentiment.done("predict", "a good film")
            sentiment.done("logs", "sentiment")
            sentiment.done("deploy", *scaled)
            sentiment.done("train", "--source", sentiment.source, "-p", "min_df=2")
            sentiment.done("deploy", *scaled, "--canary", "10:1")
            sentiment.done("status")
            owner.create_multipart_upload(Bucket=EMULATED_BUCKET, Key="sentiment/begun")
            owner.put_object(Bucket=EMULATED_BUCKET, Key="sentiment/slow.txt", Body=b"sleep=60\n")
            begin_more(url)
            up = {item["name"] for item in sentiment.json("costs")["up"] if item["kind"].endswith("job")}
            assert up == {"sentiment-hangs", "sentiment-sleeps"}  # Those that have ended cost nothing.
            sentiment.done("destroy", "--yes")
        owner.close()
    return record


def begin_more(url: str) -> None:
    """A training job and a transform job that go on until they are stopped, and an endpoint of an earlier version."""
    role = f"arn:aws:iam::{ACCOUNT}:role/greenroom/sentiment-us-east-1"
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
        variant = Variant(model=ModelSpec(image="probe"), serverless=Serverless())
        backend.endpoints.deploy(EndpointSpec(name="sentiment-1", variants=(variant,), tags=TAGS))


def an_account_with_a_past(tmp_path: Path) -> Record:
    """Two regions, a model in the other, a role that another service may assume by now, what an endpoint logged."""
    sentiment = Commands(tmp_path, "--backend", "aws")
    with fresh_account():
        iam, logs, abroad = client("iam"), client("logs"), client("sagemaker", ABROAD)
        logs.create_log_group(logGroupName="/aws/sagemaker/Endpoints/sentiment-1")
        tags = [{"Key": key, "Value": value} for key, value in TAGS.items()]
        role = "arn:aws:iam::123456789012:role/any"
        abroad.create_model(ModelName="sentiment-1", PrimaryContainer={"Image": "i"}, ExecutionRoleArn=role, Tags=tags)
        with recording() as record:
            sentiment.done("upload", "--source", sentiment.source, "--yes")
            iam.update_assume_role_policy(RoleName="sentiment-us-east-1", PolicyDocument=json.dumps(STRANGE_TRUST))
            sentiment.done("upload", "--source", sentiment.source, "--yes")
            sentiment.done("costs")
            abroad.delete_model(ModelName="sentiment-1")
            sentiment.done("destroy", "--yes")
    return record


def an_image_in_ecr(tmp_path: Path) -> Record:
    """Pushed twice; what the Docker engine asks of ECR in between goes through no client of ours."""
    with fresh_account(), recording() as record:
        repository = ImageRepository(AwsAccount(load_config(backend="aws")), REPOSITORY, TAGS)
        assert not repository.holds("1")
        assert repository.ensure() == repository.ensure()
        repository.login()
    (arn,) = {call.resource for call in record.calls if call.action == "ecr:PutLifecyclePolicy"}
    record.calls += [Call(action, arn) for action in ENGINES_PUSH]
    return record


WAYS: list[Callable[[Path], Record]] = [steps_on_the_emulator, an_account_with_a_past, an_image_in_ecr]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """What all ways have asked for, in three accounts."""
    records = []
    for way in WAYS:
        folder = tmp_path_factory.mktemp(way.__name__)
        with pytest.MonkeyPatch.context() as environment:
            user_of_aws(environment, folder)
            records.append(way(folder))
    return records


def judged(asked: list[Record]) -> Iterator[tuple[Any, Call]]:
    """Each call, with the policy of its account."""
    for record in asked:
        policy = callers_policy(load_config(backend="aws", expected_account=record.account))
        yield from ((policy, call) for call in record.calls)


def test_the_policy_grants_what_is_asked_and_nothing_else(asked: list[Record]) -> None:
    """The actions of all statements are those of all ways, and each ARN is some call's."""
    for account in {record.account for record in asked}:
        policy = callers_policy(load_config(backend="aws", expected_account=account))
        granted = [action for statement in policy["Statement"] for action in statement["Action"]]
        assert set(granted) == {call.action for record in asked for call in record.calls}
        # In one statement only, but for what Application Auto Scaling asks in the caller's name.
        assert [action for action in granted if granted.count(action) > 1 and action not in TWICE] == []
    unused = [
        pattern
        for statement in policy["Statement"]
        for pattern in statement["Resource"]
        if not any(
            covers(pattern, call.resource.replace(record.account, account)) and call.action in statement["Action"]
            for record in asked
            for call in record.calls
        )
    ]
    assert unused == []


def test_each_call_is_allowed_on_its_resource(asked: list[Record]) -> None:
    """With the conditions of the statement that speaks of it."""
    assert [call for policy, call in judged(asked) if not allows(policy, call)] == []


def test_no_call_is_allowed_on_what_is_not_ours(asked: list[Record]) -> None:
    """Another name, bucket, account or region; but for listings, which are about all, and what AWS asks by itself."""
    listings = {
        action
        for statement in callers_policy(load_config(backend="aws"))["Statement"]
        if statement["Resource"] == ["*"] and "Condition" not in statement
        for action in statement["Action"]
    }
    assert [action for action in listings if not reads(action)] == []
    wrong = [
        twin
        for policy, call in judged(asked)
        if call.action not in listings and call.context.get("aws:ViaAWSService") != "true"
        for twin in elsewhere(call)
        if allows(policy, twin)
    ]
    assert wrong == []


def test_what_is_granted_under_a_condition_is_not_granted_without(asked: list[Record]) -> None:
    """A role for another service, scaling of another service's resources, alarms without Application Auto Scaling."""
    conditions = set()
    for policy, call in judged(asked):
        statements = list(speaking_of(policy, call))
        if all("Condition" in statement for statement in statements):
            for keys in [keys for statement in statements for keys in statement["Condition"].values()]:
                conditions |= keys.keys()
                for key in keys:
                    assert not allows(policy, replace(call, context={**call.context, key: "another"})), (call, key)
    assert conditions == {
        "application-autoscaling:service-namespace",
        "aws:RequestTag/greenroom:application",
        "aws:ViaAWSService",
        "iam:AWSServiceName",
        "iam:PassedToService",
    }


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
