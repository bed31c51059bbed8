"""What the application says about its page on AWS."""

from datetime import timedelta

import pytest

from backends.aws.account import AwsAccount
from backends.aws.webstack import Change
from backends.config import BackendConfig
from backends.errors import InvalidSpec
from sentiment.webtier import change_table, lifetime


@pytest.mark.parametrize(
    ("text", "found"), [("90m", timedelta(minutes=90)), ("2h", timedelta(hours=2)), ("3d", timedelta(days=3))]
)
def test_a_time_to_live_is_read(text: str, found: timedelta) -> None:
    """In minutes, hours or days."""
    assert lifetime(text) == found


@pytest.mark.parametrize("text", ["", "2", "0h", "2 h", "-1h", "1h30m", "2w", "99999999999d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """With the forms that are read."""
    with pytest.raises(InvalidSpec, match="90m, 2h or 3d"):
        lifetime(text)


def test_a_change_set_reads_as_a_table() -> None:
    """Action, resource and type under one another; what is replaced says so."""
    changes = [
        Change("Add", "Api", "AWS::ApiGatewayV2::Api", ""),
        Change("Modify", "Function", "AWS::Lambda::Function", "False"),
        Change("Modify", "PageBucket", "AWS::S3::Bucket", "True"),
        Change("Modify", "Expiry", "AWS::Scheduler::Schedule", "Conditional"),
    ]
    assert change_table(changes).splitlines() == [
        "Add     Api         AWS::ApiGatewayV2::Api",
        "Modify  Function    AWS::Lambda::Function",
        "Modify  PageBucket  AWS::S3::Bucket           replaced",
        "Modify  Expiry      AWS::Scheduler::Schedule  perhaps replaced",
    ]
    assert "no resource" in change_table([])


@pytest.mark.parametrize(
    ("arn", "owner"),
    [
        ("arn:aws:iam::123456789012:user/alice", "alice"),
        ("arn:aws:iam::123456789012:user/division/alice", "division/alice"),
        ("arn:aws:sts::123456789012:assumed-role/Admin/alice@example.com", "Admin/alice@example.com"),
        ("arn:aws:sts::123456789012:assumed-role/Admin/a,b", "Admin/a-b"),
        ("arn:aws:iam::123456789012:root", "root"),
    ],
)
def test_the_owner_is_who_asks(arn: str, owner: str) -> None:
    """In signs that a tag may hold."""
    account = AwsAccount(BackendConfig(backend="aws"))
    account.__dict__["caller"] = {"Account": "123456789012", "Arn": arn}  # as if STS had been asked
    assert account.owner == owner
