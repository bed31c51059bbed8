"""The execution role: as little as jobs need, made once, set right where it differs, gone after a destroy."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from backends.aws.roles import ExecutionRole, is_made_here
from tests.aws.conftest import client
from tests.aws.record import recording
from tests.policies import Call, allows

ACCOUNT = "123456789012"
IMAGE = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/team/sentiment:tag"
ALARMS = f"arn:aws:cloudwatch:us-east-1:{ACCOUNT}:alarm"
ROLE = ExecutionRole(
    account=ACCOUNT,
    region="us-east-1",
    stem="app",
    reads=["s3://bucket/app"],
    writes=["s3://bucket/app/models"],
    image=IMAGE,
    tags={"greenroom:application": "app"},
)


@pytest.mark.parametrize(
    ("action", "resource", "is_allowed"),
    [
        ("s3:GetObject", "arn:aws:s3:::bucket/app/data/train.csv", True),
        ("s3:GetObject", "arn:aws:s3:::bucket/application/data/train.csv", False),
        ("s3:GetObject", "arn:aws:s3:::another/app/data/train.csv", False),
        ("s3:PutObject", "arn:aws:s3:::bucket/app/models/job/output/model.tar.gz", True),
        ("s3:PutObject", "arn:aws:s3:::bucket/app/data/train.csv", False),
        ("s3:DeleteObject", "arn:aws:s3:::bucket/app/models/job/output/model.tar.gz", False),
        ("ecr:BatchGetImage", f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository/team/sentiment", True),
        ("ecr:BatchGetImage", f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository/team/another", False),
        (
            "logs:PutLogEvents",
            f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/sagemaker/TrainingJobs:log-stream:app-1/algo-1",
            True,
        ),
        (
            "logs:PutLogEvents",
            f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/sagemaker/TrainingJobs:log-stream:other/algo-1",
            False,
        ),
        (
            "logs:PutLogEvents",
            f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/app-1:log-stream:AllTraffic/i-1",
            True,
        ),
        ("cloudwatch:DescribeAlarms", f"{ALARMS}:greenroom/app/AllTraffic/errors", True),
        ("cloudwatch:DescribeAlarms", f"{ALARMS}:greenroom/other/AllTraffic/errors", False),
        ("cloudwatch:DescribeAlarms", f"{ALARMS}:bill", False),
        ("logs:CreateLogGroup", f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/sagemaker/TrainingJobs:*", True),
        ("logs:CreateLogGroup", f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/app:*", True),
        ("logs:DescribeLogStreams", f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/b:*", False),
        ("iam:PassRole", ROLE.arn, False),
        ("sagemaker:CreateTrainingJob", "*", False),
    ],
)
def test_it_may_do_what_jobs_need_and_no_more(action: str, resource: str, *, is_allowed: bool) -> None:
    """Its own prefixes, its image, its logs."""
    assert allows(ROLE.policy, Call(action, resource)) is is_allowed


@pytest.mark.parametrize(("prefix", "is_allowed"), [("app/data/", True), ("application/", False), ("", False)])
def test_listing_is_confined_to_the_prefix(prefix: str, *, is_allowed: bool) -> None:
    """What else is in the bucket has names, too."""
    listing = Call("s3:ListBucket", "arn:aws:s3:::bucket", {"s3:prefix": prefix})
    assert allows(ROLE.policy, listing) is is_allowed


@pytest.mark.parametrize(
    ("region", "partition", "domain"),
    [("cn-north-1", "aws-cn", "amazonaws.com.cn"), ("us-gov-west-1", "aws-us-gov", "amazonaws.com")],
)
def test_another_partition_has_its_own_arns(region: str, partition: str, domain: str) -> None:
    """The role's, and each in its policy; its image is known by that partition's hosts."""
    image = f"{ACCOUNT}.dkr.ecr.{region}.{domain}/team/sentiment:tag"
    role = replace(ROLE, region=region, image=image)
    assert role.arn == f"arn:{partition}:iam::{ACCOUNT}:role/greenroom/app-{region}"
    arns = [arn for statement in role.policy["Statement"] for arn in statement["Resource"] if arn != "*"]
    assert {arn.split(":")[1] for arn in arns} == {partition}
    assert allows(
        role.policy, Call("ecr:BatchGetImage", f"arn:{partition}:ecr:{region}:{ACCOUNT}:repository/team/sentiment")
    )


def test_an_image_elsewhere_needs_no_permission() -> None:
    """Of ECR the policy says nothing then."""
    assert "ecr:" not in json.dumps(replace(ROLE, image="greenroom-sentiment:latest").policy)


def test_only_sagemaker_for_this_account_assumes_it() -> None:
    """Another account's job may not use it through SageMaker (the confused deputy)."""
    (statement,) = ROLE.trust["Statement"]
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}


@pytest.mark.usefixtures("moto")
def test_it_is_made_once() -> None:
    """IAM, as moto has it, finds no fault in the documents; a second time nothing is written."""
    with recording() as record:
        iam = client("iam")
        assert ROLE.ensure(iam) is True
        assert iam.get_role(RoleName="app-us-east-1")["Role"]["Arn"] == ROLE.arn
        before = len(record.operations)
        assert ROLE.ensure(iam) is False
        assert record.operations[before:] == ["iam:ListRoles", "iam:GetRolePolicy"]


@pytest.mark.usefixtures("moto")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda iam: iam.put_role_policy(
            RoleName=ROLE.name, PolicyName="execution", PolicyDocument=json.dumps(replace(ROLE, image="").policy)
        ),
        lambda iam: iam.delete_role_policy(RoleName=ROLE.name, PolicyName="execution"),
        lambda iam: iam.update_assume_role_policy(
            RoleName=ROLE.name, PolicyDocument=json.dumps(replace(ROLE, account="210987654321").trust)
        ),
    ],
)
def test_what_differs_is_set_right(spoil: Callable[[Any], None]) -> None:
    """Another image, a run that was interrupted, a hand that meddled."""
    iam = client("iam")
    ROLE.ensure(iam)
    spoil(iam)
    assert ROLE.ensure(iam) is True
    assert iam.get_role(RoleName=ROLE.name)["Role"]["AssumeRolePolicyDocument"] == ROLE.trust
    assert iam.get_role_policy(RoleName=ROLE.name, PolicyName="execution")["PolicyDocument"] == ROLE.policy


@pytest.mark.usefixtures("moto")
def test_it_is_removed_once() -> None:
    """A second removal finds nothing, and is quiet."""
    iam = client("iam")
    ROLE.ensure(iam)
    assert [ROLE.remove(iam), ROLE.remove(iam)] == [True, False]
    assert iam.list_roles()["Roles"] == []


def test_a_role_of_the_users_is_told_from_ours() -> None:
    """By its path."""
    assert [is_made_here(arn) for arn in (ROLE.arn, f"arn:aws:iam::{ACCOUNT}:role/mine")] == [True, False]
