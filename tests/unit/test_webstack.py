"""The web tier's stack: how it is packaged, and what is said where AWS refuses or fails.

botocore's own validation sees each request and reply; real AWS has not seen these exchanges.
"""

import hashlib
import io
import os
import re
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from backends.aws.account import AwsAccount
from backends.aws.webstack import Change, ChangeSet, WebStack, function_zip
from backends.config import BackendConfig
from backends.errors import BackendError, BackendUnavailable, Conflict, InvalidSpec, JobFailed, NotFound, NotSupported
from backends.memory import MemoryStore
from sentiment.bundle import HANDLER

NAME = "tier"
STACK_ARN = f"arn:aws:cloudformation:us-east-1:123456789012:stack/{NAME}/1"
SET_ARN = "arn:aws:cloudformation:us-east-1:123456789012:changeSet/greenroom-1/1"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
PARAMETERS = {"EndpointName": "mine", "CodeBucket": "bucket"}
TAGS = {"owner": "me"}


class StubbedAccount(AwsAccount):
    """boto3's real clients, whose answers tests put in; every one of these must have been fetched."""

    def __init__(self, clients: dict[str, Any]) -> None:
        super().__init__(BackendConfig(backend="aws", endpoint_url="http://127.0.0.1:1"))
        self.clients = clients
        self.stubs = {name: Stubber(found) for name, found in clients.items()}

    def client(self, service: str, *, region: str | None = None, attempts: int = 5) -> Any:
        return self.clients[service]

    def answer(self, operation: str, document: dict[str, Any], expected: dict[str, Any] | None = None) -> None:
        """CloudFormation's next answer."""
        self.stubs["cloudformation"].add_response(operation, document, expected)

    def stack(self, status: str, **members: Any) -> None:
        """The next look at the stack finds it so."""
        found = {"StackName": NAME, "StackId": STACK_ARN, "StackStatus": status, "CreationTime": NOW, **members}
        self.answer("describe_stacks", {"Stacks": [found]}, {"StackName": NAME})

    def no_stack(self) -> None:
        """The next look finds none."""
        self.stubs["cloudformation"].add_client_error(
            "describe_stacks", "ValidationError", f"Stack with id {NAME} does not exist"
        )

    def events(self, *told: tuple[str, str, str]) -> None:
        """The next look at the stack's events finds these: resource, status, reason, newest first."""
        events = [
            {
                "StackId": STACK_ARN,
                "EventId": f"{len(told) - number}",
                "StackName": NAME,
                "LogicalResourceId": resource,
                "PhysicalResourceId": STACK_ARN if resource == NAME else f"{resource}-1",
                "ResourceType": "AWS::CloudFormation::Stack" if resource == NAME else f"AWS::Test::{resource}",
                "Timestamp": NOW,
                "ResourceStatus": status,
                "ResourceStatusReason": reason,
            }
            for number, (resource, status, reason) in enumerate(told)
        ]
        self.answer("describe_stack_events", {"StackEvents": events}, {"StackName": STACK_ARN})

    def resources(self, **names: str) -> None:
        """The next look at the stack's resources finds buckets called so."""
        found = [
            {
                "LogicalResourceId": logical,
                "PhysicalResourceId": physical,
                "ResourceType": "AWS::S3::Bucket",
                "LastUpdatedTimestamp": NOW,
                "ResourceStatus": "CREATE_COMPLETE",
            }
            for logical, physical in names.items()
        ]
        self.answer("list_stack_resources", {"StackResourceSummaries": found})

    def change_set(
        self,
        kind: str,
        status: str,
        reason: str = "",
        changes: list[dict[str, Any]] | None = None,
        parameters: Any = ANY,
    ) -> None:
        """A change set is asked for, and ends so."""
        expected = {
            "StackName": NAME,
            "ChangeSetName": ANY,
            "ChangeSetType": kind,
            "TemplateBody": ANY,
            "Parameters": parameters,
            "Tags": [{"Key": "owner", "Value": "me"}],
            "Capabilities": ["CAPABILITY_IAM"],
        }
        self.answer("create_change_set", {"Id": SET_ARN, "StackId": STACK_ARN}, expected)
        found = {"Status": status, "StatusReason": reason, "Changes": changes or []}
        self.answer("describe_change_set", {"Status": "CREATE_IN_PROGRESS"}, {"ChangeSetName": SET_ARN})
        self.answer("describe_change_set", found, {"ChangeSetName": SET_ARN})
        if status != "FAILED":
            self.answer("describe_change_set", found, {"ChangeSetName": SET_ARN})


@pytest.fixture(scope="module")
def clients() -> Iterator[dict[str, Any]]:
    session: Any = boto3.session.Session("test", "test", region_name="us-east-1")
    found = {name: session.client(name) for name in ("cloudformation", "s3", "sagemaker")}
    yield found
    for client in found.values():
        client.close()


@pytest.fixture
def account(clients: dict[str, Any]) -> Iterator[StubbedAccount]:
    found = StubbedAccount(clients)
    for stub in found.stubs.values():
        stub.activate()
    yield found
    for stub in found.stubs.values():
        stub.deactivate()
        stub.assert_no_pending_responses()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store() -> MemoryStore:
    found = MemoryStore()
    found.ensure_bucket("bucket")
    return found


@pytest.fixture
def stack(account: StubbedAccount, store: MemoryStore, said: list[str]) -> WebStack:
    return WebStack(account, store, NAME, say=said.append)


# --- the zip


def test_the_same_files_make_the_same_zip(tmp_path: Path) -> None:
    """Whenever, wherever and by whomever they were written; other files make another."""
    made = []
    for number, mode in (1, 0o600), (2, 0o755):
        folder = tmp_path / str(number)
        folder.mkdir()
        for path in HANDLER.glob("*.py"):
            copy = folder / path.name
            copy.write_bytes(path.read_bytes())
            copy.chmod(mode)
            os.utime(copy, (number * 1e9, number * 1e9))
        made.append(function_zip(folder))
    assert made[0] == made[1] == function_zip(HANDLER)
    (tmp_path / "2" / "handler.py").write_text("handler = None")
    assert function_zip(tmp_path / "2") != made[0]


def test_the_zip_holds_the_handler_as_it_is() -> None:
    """Under its name, readable by Lambda's user, and no events of tests."""
    with zipfile.ZipFile(io.BytesIO(function_zip(HANDLER))) as bundle:
        assert bundle.namelist() == ["handler.py"]
        assert bundle.read("handler.py") == (HANDLER / "handler.py").read_bytes()
        assert bundle.getinfo("handler.py").external_attr >> 16 == 0o644


# --- change sets


def test_a_change_set_is_shown_and_the_code_waits(account: StubbedAccount, stack: WebStack, store: MemoryStore) -> None:
    """Nothing lies in the store before the change set is applied."""
    account.no_stack()
    change = {"Action": "Add", "LogicalResourceId": "Api", "ResourceType": "AWS::ApiGatewayV2::Api"}
    account.change_set("CREATE", "CREATE_COMPLETE", changes=[{"Type": "Resource", "ResourceChange": change}])
    found = stack.prepare(PARAMETERS, tags=TAGS, function=HANDLER, code_uri="s3://bucket/functions")
    assert found.changes == (Change("Add", "Api", "AWS::ApiGatewayV2::Api", ""),)
    (uri,) = found.code
    assert re.fullmatch(r"s3://bucket/functions/[0-9a-f]{16}\.zip", uri)
    assert hashlib.sha256(found.code[uri]).hexdigest().startswith(uri.rpartition("/")[2].removesuffix(".zip"))
    assert not store.exists(uri)
    account.events(("tier", "REVIEW_IN_PROGRESS", ""))
    account.answer("execute_change_set", {}, {"ChangeSetName": SET_ARN})
    account.events(
        ("tier", "CREATE_COMPLETE", ""), ("tier", "CREATE_IN_PROGRESS", ""), ("tier", "REVIEW_IN_PROGRESS", "")
    )
    stack.apply(found)
    assert store.get(uri) == found.code[uri]


@pytest.mark.parametrize("region", ["us-gov-west-1", "cn-north-1"])
def test_a_page_where_cloudfront_cannot_serve_it_is_refused(region: str) -> None:
    """Before anything is asked of AWS."""
    account = AwsAccount(BackendConfig(backend="aws", region=region))
    stack = WebStack(account, MemoryStore(), NAME, say=print)
    with pytest.raises(NotSupported, match=f"no page for {region}"):
        stack.prepare(PARAMETERS, tags=TAGS, function=HANDLER, code_uri="s3://bucket/code")


@pytest.mark.parametrize(
    "reason",
    [
        "The submitted information didn't contain changes. Submit different information to create a change set.",
        "No updates are to be performed.",
    ],
)
def test_no_changes_is_no_failure(account: StubbedAccount, stack: WebStack, reason: str) -> None:
    """The useless change set is deleted, and applying does nothing."""
    account.stack("UPDATE_COMPLETE")
    account.change_set("UPDATE", "FAILED", reason)
    account.answer("delete_change_set", {}, {"ChangeSetName": SET_ARN})
    account.stack("UPDATE_COMPLETE")
    found = stack.prepare(PARAMETERS, tags=TAGS)
    assert (found.arn, found.changes) == ("", ())
    stack.apply(found)


def test_a_change_set_that_fails_leaves_nothing(account: StubbedAccount, stack: WebStack) -> None:
    """The reason is AWS's, and the empty stack that was made for it is removed."""
    account.no_stack()
    account.change_set("CREATE", "FAILED", "Parameter EndpointName failed to satisfy constraint")
    account.answer("delete_change_set", {}, {"ChangeSetName": SET_ARN})
    account.stack("REVIEW_IN_PROGRESS")
    account.resources()
    account.events(("tier", "REVIEW_IN_PROGRESS", ""))
    account.answer("delete_stack", {}, {"StackName": STACK_ARN})
    account.events(("tier", "DELETE_COMPLETE", ""), ("tier", "REVIEW_IN_PROGRESS", ""))
    with pytest.raises(InvalidSpec, match="EndpointName failed"):
        stack.prepare(PARAMETERS, tags=TAGS)


def test_what_is_not_said_stays(account: StubbedAccount, stack: WebStack) -> None:
    """A parameter that is in force is sent again."""
    old = [{"ParameterKey": "Expires", "ParameterValue": "2027-01-01T00:00:00"}]
    account.stack("CREATE_COMPLETE", Parameters=old)
    wanted = sorted((PARAMETERS | {"Expires": "2027-01-01T00:00:00"}).items())
    account.change_set(
        "UPDATE",
        "CREATE_COMPLETE",
        parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in wanted],
    )
    stack.prepare(PARAMETERS, tags=TAGS)


# --- failures


def test_the_first_failure_is_told(account: StubbedAccount, stack: WebStack, said: list[str]) -> None:
    """Not those that were given up because of it; every event is said once, oldest first."""
    account.events(("tier", "REVIEW_IN_PROGRESS", ""))
    account.answer("execute_change_set", {}, {"ChangeSetName": SET_ARN})
    account.events(("tier", "CREATE_IN_PROGRESS", ""), ("tier", "REVIEW_IN_PROGRESS", ""))
    account.events(
        ("tier", "ROLLBACK_COMPLETE", ""),
        ("tier", "ROLLBACK_IN_PROGRESS", "The following resource(s) failed to create"),
        ("Function", "CREATE_FAILED", "The runtime parameter of python0.1 is not supported"),
        ("Role", "CREATE_FAILED", "Resource creation cancelled"),
        ("tier", "CREATE_IN_PROGRESS", ""),
        ("tier", "REVIEW_IN_PROGRESS", ""),
    )
    with pytest.raises(JobFailed, match="ROLLBACK_COMPLETE") as caught:
        stack.apply(ChangeSet(SET_ARN, STACK_ARN))
    assert caught.value.reason == "Function (AWS::Test::Function): The runtime parameter of python0.1 is not supported"
    assert [line.split()[0] for line in said] == [
        "CREATE_IN_PROGRESS", "CREATE_FAILED", "CREATE_FAILED", "ROLLBACK_IN_PROGRESS", "ROLLBACK_COMPLETE",
    ]  # fmt: skip


@pytest.mark.parametrize("dead", ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"])
def test_a_failed_stack_is_cleared_away(account: StubbedAccount, stack: WebStack, dead: str) -> None:
    """AWS updates none; the next one is made in its place."""
    account.stack(dead)
    account.resources()
    account.events(("tier", dead, ""))
    account.answer("delete_stack", {}, {"StackName": STACK_ARN})
    account.events(("tier", "DELETE_COMPLETE", ""), ("tier", dead, ""))
    account.change_set("CREATE", "CREATE_COMPLETE")
    stack.prepare(PARAMETERS, tags=TAGS)


def test_a_stack_that_was_never_filled_is_filled(account: StubbedAccount, stack: WebStack) -> None:
    """Left by somebody who looked at a change set and went away."""
    account.stack("REVIEW_IN_PROGRESS")
    account.change_set("CREATE", "CREATE_COMPLETE")
    stack.prepare(PARAMETERS, tags=TAGS)


def test_a_stack_at_work_is_waited_for(account: StubbedAccount, stack: WebStack, said: list[str]) -> None:
    """Such as one whose command was interrupted."""
    account.stack("UPDATE_IN_PROGRESS")
    account.stack("UPDATE_IN_PROGRESS")
    account.stack("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
    account.stack("UPDATE_COMPLETE")
    account.change_set("UPDATE", "CREATE_COMPLETE")
    stack.prepare(PARAMETERS, tags=TAGS)
    assert said == ["stack tier is UPDATE_IN_PROGRESS: waiting"]


def test_a_stack_beyond_repair_is_said_so(account: StubbedAccount, stack: WebStack) -> None:
    """What AWS could not take back it will not change either."""
    account.stack("UPDATE_ROLLBACK_FAILED", StackStatusReason="the role is gone")
    with pytest.raises(Conflict, match="the role is gone"):
        stack.prepare(PARAMETERS, tags=TAGS)


def test_a_removal_that_fails_is_told(account: StubbedAccount, stack: WebStack) -> None:
    """With the reason of what stays."""
    account.stack("CREATE_COMPLETE")
    account.resources()
    account.events(("tier", "CREATE_COMPLETE", ""))
    account.answer("delete_stack", {}, {"StackName": STACK_ARN})
    account.events(
        ("tier", "DELETE_FAILED", "The following resource(s) failed to delete: [PageBucket]. "),
        ("PageBucket", "DELETE_FAILED", "The bucket you tried to delete is not empty"),
        ("tier", "CREATE_COMPLETE", ""),
    )
    with pytest.raises(JobFailed, match=r"PageBucket.*not empty"):
        stack.delete()


def test_an_object_that_stays_is_named(account: StubbedAccount, stack: WebStack) -> None:
    """A bucket that cannot be emptied is not given to CloudFormation to fail on."""
    account.stack("CREATE_COMPLETE")
    account.resources(PageBucket="pages")
    versions = {"Versions": [{"Key": "index.html", "VersionId": "v1"}]}
    account.stubs["s3"].add_response("list_object_versions", versions, {"Bucket": "pages"})
    error = {"Key": "index.html", "VersionId": "v1", "Code": "AccessDenied", "Message": "Access Denied"}
    account.stubs["s3"].add_response("delete_objects", {"Errors": [error]})
    with pytest.raises(BackendError, match=r"index\.html stays: Access Denied"):
        stack.delete()


def test_a_server_without_cloudformation_is_told_apart(account: StubbedAccount, stack: WebStack) -> None:
    """So that callers can say what works there."""
    account.stubs["cloudformation"].add_client_error("describe_stacks", "UnknownOperationException", "not here")
    with pytest.raises(NotSupported, match="DescribeStacks: not here"):
        stack.delete()


def test_a_refusal_is_in_awss_words(account: StubbedAccount, stack: WebStack) -> None:
    """It is neither taken for a missing stack nor for a missing service."""
    account.stubs["cloudformation"].add_client_error("describe_stacks", "AccessDenied", "not authorized to perform")
    with pytest.raises(BackendError, match="AccessDenied: not authorized") as caught:
        stack.delete()
    assert not isinstance(caught.value, NotSupported | NotFound)


def test_a_place_that_is_away_is_said_so() -> None:
    """No server, no guess."""
    account = AwsAccount(BackendConfig(backend="aws", endpoint_url="http://127.0.0.1:1"))
    with pytest.raises(BackendUnavailable):
        WebStack(account, MemoryStore(), NAME, say=print).delete()


def test_there_is_no_address_without_a_page(account: StubbedAccount, stack: WebStack) -> None:
    """As where the stack holds the schedule alone."""
    account.stack("CREATE_COMPLETE")
    with pytest.raises(NotFound, match="no page"):
        _ = stack.url


# --- tags


def test_the_endpoint_is_tagged(account: StubbedAccount, stack: WebStack) -> None:
    """What no longer holds is taken away."""
    arn = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/mine"
    endpoint = {
        "EndpointName": "mine",
        "EndpointArn": arn,
        "EndpointStatus": "InService",
        "CreationTime": NOW,
        "LastModifiedTime": NOW,
    }
    sagemaker = account.stubs["sagemaker"]
    sagemaker.add_response("describe_endpoint", endpoint, {"EndpointName": "mine"})
    sagemaker.add_response("add_tags", {}, {"ResourceArn": arn, "Tags": [{"Key": "owner", "Value": "me"}]})
    sagemaker.add_response("delete_tags", {}, {"ResourceArn": arn, "TagKeys": ["expires"]})
    stack.tag_endpoint("mine", TAGS, obsolete=["expires"])
