"""The stack's life in servers whose CloudFormation we did not write: made, seen, changed, removed."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.aws.account import AwsAccount
from backends.aws.webstack import WebStack, function_zip
from backends.config import BackendConfig
from backends.errors import BackendError, JobFailed, NotFound, NotSupported
from backends.gateway import FunctionSettings, GatewaySettings
from backends.page import CACHE_CONTROL
from backends.stores.s3 import S3Store
from sentiment.bundle import HANDLER, WEB
from sentiment.reporter import Silent
from sentiment.settings import SentimentSettings
from sentiment.webtier import WebTier
from tests.webtier.conftest import Place

# moto says of each type that it does not know that it does not.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse .* not supported by moto:UserWarning")

BUCKET = "artifacts"
CODE = f"s3://{BUCKET}/functions"
TAGS = {"greenroom:application": "test", "greenroom:owner": "me"}
EXPIRES = "2099-01-01T00:00:00"
ENDPOINT_ARN = "arn:aws:sagemaker:us-east-1:{account}:endpoint/{name}"
NAME = "tier"
INITIAL = {
    "EndpointName": "first",
    "Expires": EXPIRES,
    "CodeBucket": BUCKET,
    "CodeKey": f"functions/{hashlib.sha256(function_zip(HANDLER)).hexdigest()[:16]}.zip",
}


@pytest.fixture(scope="module", autouse=True)
def _credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield


@pytest.fixture(scope="module")
def account(place: Place) -> AwsAccount:
    return AwsAccount(BackendConfig(backend="aws", endpoint_url=place.url))


@pytest.fixture(scope="module")
def store(place: Place) -> S3Store:
    """Where the code goes."""
    found = S3Store(place.client("s3"))
    found.ensure_bucket(BUCKET)
    return found


@pytest.fixture(scope="module")
def shared(place: Place, account: AwsAccount, store: S3Store) -> Iterator[WebStack]:
    """One stack for all, as making it takes a while; afterwards nothing is left of it."""
    before = everything(place)
    stack = WebStack(account, store, NAME, say=print)
    deploy(stack, EndpointName="first", Expires=EXPIRES)
    yield stack
    assert stack.delete()
    # LocalStack's roll-back leaves what a stack had made: that of another test here.
    left = {
        kind: [name for name in names if not name.startswith("broken-")] for kind, names in everything(place).items()
    }
    assert left == before
    assert not stack.delete()


@pytest.fixture
def stack(shared: WebStack) -> WebStack:
    """A stack with page and schedule, whatever the last test made of it."""
    if shared.parameters != INITIAL:
        deploy(shared, HANDLER, **INITIAL)
    return shared


def deploy(stack: WebStack, function: Path | None = HANDLER, **parameters: str) -> bool:
    """Bring *stack* to these parameters; True if that changed it."""
    change_set = stack.prepare({"CodeBucket": BUCKET, **parameters}, tags=TAGS, function=function, code_uri=CODE)
    stack.apply(change_set)
    return bool(change_set.arn)


def everything(place: Place) -> dict[str, list[str]]:
    """What there is of each type that the server knows, by name."""
    looks: dict[str, Callable[[], list[str]]] = {
        "AWS::IAM::Role": lambda: [role["RoleName"] for role in place.client("iam").list_roles()["Roles"]],
        "AWS::Lambda::Function": lambda: [
            found["FunctionName"] for found in place.client("lambda").list_functions()["Functions"]
        ],
        "AWS::Logs::LogGroup": lambda: [
            group["logGroupName"] for group in place.client("logs").describe_log_groups()["logGroups"]
        ],
        "AWS::S3::Bucket": lambda: [bucket["Name"] for bucket in place.client("s3").list_buckets()["Buckets"]],
        "AWS::Scheduler::Schedule": lambda: [
            schedule["Name"] for schedule in place.client("scheduler").list_schedules()["Schedules"]
        ],
        "AWS::ApiGatewayV2::Api": lambda: [api["ApiId"] for api in place.client("apigatewayv2").get_apis()["Items"]],
        "AWS::CloudFront::Distribution": lambda: _items(place, "list_distributions", "DistributionList"),
        "AWS::CloudFront::CachePolicy": lambda: _items(place, "list_cache_policies", "CachePolicyList", Type="custom"),
        "AWS::CloudFront::ResponseHeadersPolicy": lambda: _items(
            place, "list_response_headers_policies", "ResponseHeadersPolicyList", Type="custom"
        ),
        "AWS::CloudFront::OriginAccessControl": lambda: _items(
            place, "list_origin_access_controls", "OriginAccessControlList"
        ),
    }
    return {kind: sorted(look()) for kind, look in looks.items() if place.knows(kind)}


def _items(place: Place, operation: str, answer: str, **query: str) -> list[str]:
    found = getattr(place.client("cloudfront"), operation)(**query)[answer]
    return [json.dumps(item, default=str) for item in found.get("Items", [])]


def resource(place: Place, logical_name: str) -> str:
    """What a resource is called in its own service."""
    found = place.client("cloudformation").list_stack_resources(StackName=NAME)["StackResourceSummaries"]
    (name,) = [entry["PhysicalResourceId"] for entry in found if entry["LogicalResourceId"] == logical_name]
    return str(name)


def function(place: Place) -> Any:
    return place.client("lambda").get_function(FunctionName=resource(place, "Function"))["Configuration"]


def statements(place: Place, role: str) -> list[dict[str, Any]]:
    """What *role* may do, every variable of the template filled in."""
    iam, name = place.client("iam"), resource(place, role)
    (policy,) = iam.list_role_policies(RoleName=name)["PolicyNames"]
    document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
    found: list[dict[str, Any]] = document["Statement"]
    return found


def test_the_function_is_the_handler(place: Place, stack: WebStack) -> None:
    """The zip that was worked out, the role, the endpoint's name and the log group of the stack."""
    found = function(place)
    assert base64.b64decode(found["CodeSha256"]) == hashlib.sha256(function_zip(HANDLER)).digest()
    assert found["Environment"]["Variables"] == {"ENDPOINT_NAME": "first"}
    assert found["Role"].endswith(f"role/{resource(place, 'FunctionRole')}")
    assert (found["Handler"], found["Timeout"]) == ("handler.handler", 29)


@pytest.mark.usefixtures("stack")
@pytest.mark.differs("localstack", reason="its log groups are made without RetentionInDays")
def test_the_log_is_kept_for_two_weeks(place: Place) -> None:
    """Not for ever."""
    name = resource(place, "FunctionLogs")
    (group,) = place.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    assert group["retentionInDays"] == 14


@pytest.mark.differs("moto", reason="a policy comes back as Python writes it, which is no JSON")
def test_the_roles_may_what_the_template_says(place: Place, stack: WebStack, account: AwsAccount) -> None:
    """On real ARNs: one endpoint, one log group."""
    arn = ENDPOINT_ARN.format(account=account.id, name="first")
    ask, log = statements(place, "FunctionRole")
    assert (ask["Action"], ask["Resource"]) == ("sagemaker:InvokeEndpoint", arn)
    assert resource(place, "FunctionLogs") in log["Resource"]
    (delete,) = statements(place, "ExpiryRole")
    assert (delete["Action"], delete["Resource"]) == ("sagemaker:DeleteEndpoint", arn)


def test_the_resources_bear_the_tags(place: Place, stack: WebStack) -> None:
    """CloudFormation hands the stack's own on; moto and LocalStack hand them to fewer."""
    (found,) = place.client("cloudformation").describe_stacks(StackName=NAME)["Stacks"]
    assert {tag["Key"]: tag["Value"] for tag in found["Tags"]} == TAGS
    if place.name == "ministack":
        tags = place.client("lambda").list_tags(Resource=function(place)["FunctionArn"])["Tags"]
        assert tags.items() >= TAGS.items()


def test_the_api_has_the_gateways_routes(place: Place, stack: WebStack) -> None:
    """On the default stage, so that none stands in the path."""
    place.require("AWS::ApiGatewayV2::Api")
    gateway, api = place.client("apigatewayv2"), resource(place, "Api")
    routes = [route["RouteKey"] for route in gateway.get_routes(ApiId=api)["Items"]]
    assert sorted(routes) == sorted(GatewaySettings(FunctionSettings(HANDLER)).routes)
    (stage,) = gateway.get_stages(ApiId=api)["Items"]
    assert stage["StageName"] == "$default"


def test_the_distribution_has_both_origins(place: Place, stack: WebStack) -> None:
    """The bucket and the API, and the address that the output names."""
    place.require("AWS::CloudFront::Distribution")
    found = place.client("cloudfront").get_distribution(Id=resource(place, "Distribution"))["Distribution"]
    assert stack.url == f"https://{found['DomainName']}"
    domains = {origin["Id"]: origin["DomainName"] for origin in found["DistributionConfig"]["Origins"]["Items"]}
    assert domains["page"].startswith(resource(place, "PageBucket"))
    assert domains["api"].startswith(f"{resource(place, 'Api')}.execute-api.")


def test_the_schedule_deletes_the_endpoint(place: Place, stack: WebStack) -> None:
    """Once, at the hour that was said."""
    place.require("AWS::Scheduler::Schedule")
    scheduler = place.client("scheduler")
    found = scheduler.get_schedule(Name=resource(place, "Expiry").rpartition("/")[2])
    assert found["ScheduleExpression"] == f"at({EXPIRES})"
    assert json.loads(found["Target"]["Input"]) == {"EndpointName": "first"}


@pytest.mark.differs("localstack", reason="what replaces a resource is not listed as the stack's")
def test_another_hour_is_another_schedule(place: Place, stack: WebStack) -> None:
    """The old one goes as it is: were it changed, a change that fails would put a time that is over back."""
    place.require("AWS::Scheduler::Schedule")
    deploy(stack, Expires="2020-01-01T00:00:00")
    before = resource(place, "Expiry")
    deploy(stack, Expires=EXPIRES)
    (schedule,) = place.client("scheduler").list_schedules()["Schedules"]
    assert schedule["Name"] == f"{NAME}-2099-01-01T00-00-00" == resource(place, "Expiry").rpartition("/")[2]
    assert before != resource(place, "Expiry")


@pytest.mark.differs("localstack", reason="a resource whose condition became false: 'Unresolved resource dependencies'")
def test_without_an_hour_there_is_no_schedule(place: Place, stack: WebStack) -> None:
    """The endpoint stays, and the role that might have ended it goes."""
    place.require("AWS::Scheduler::Schedule")
    deploy(stack, Expires="")
    assert place.client("scheduler").list_schedules()["Schedules"] == []


def test_another_endpoint_changes_the_function(place: Place, stack: WebStack) -> None:
    """What was not said stays."""
    assert deploy(stack, EndpointName="second")
    assert function(place)["Environment"]["Variables"] == {"ENDPOINT_NAME": "second"}
    assert stack.parameters["Expires"] == EXPIRES


@pytest.mark.differs("localstack", reason="the policies of a role are not updated")
def test_another_endpoint_changes_the_role(place: Place, stack: WebStack, account: AwsAccount) -> None:
    """It may not ask the old one any more."""
    place.require_changes()
    deploy(stack, EndpointName="second")
    arn = ENDPOINT_ARN.format(account=account.id, name="second")
    assert statements(place, "FunctionRole")[0]["Resource"] == arn


def test_other_code_changes_the_function(place: Place, stack: WebStack, tmp_path: Path) -> None:
    """By its name, which is its content's."""
    place.require_changes()
    before = function(place)["CodeSha256"]
    (tmp_path / "handler.py").write_text("def handler(event, context): return {}")
    assert deploy(stack, function=tmp_path)
    assert function(place)["CodeSha256"] != before


def test_nothing_new_changes_nothing(place: Place, stack: WebStack) -> None:
    """There is no change set to apply."""
    place.require_changes()
    assert not deploy(stack, EndpointName="first")


@pytest.mark.differs("localstack", reason="a resource whose condition became false: 'Unresolved resource dependencies'")
def test_a_schedule_alone_is_a_stack_too(place: Place, stack: WebStack) -> None:
    """Function, log group and bucket go when the page is taken away."""
    place.require_changes()
    deploy(stack, function=None, CodeKey="")
    left = everything(place)
    assert left["AWS::Lambda::Function"] == []
    assert left["AWS::S3::Bucket"] == [BUCKET]
    with pytest.raises(NotFound, match="no page"):
        _ = stack.url


def test_the_page_is_published(place: Place, stack: WebStack) -> None:
    """With the gateway's types and cache rule; only what differs is sent, and what is gone here goes there."""
    names = sorted(path.name for path in WEB.iterdir())
    s3, bucket = place.client("s3"), resource(place, "PageBucket")
    s3.put_object(Bucket=bucket, Key="old.js", Body=b"")
    s3.put_object(Bucket=bucket, Key="app.js", Body=b"another")
    if not place.knows("AWS::CloudFront::Distribution"):
        with pytest.raises(NotFound if place.name == "moto" else NotSupported):
            stack.publish(WEB)
    else:
        assert stack.publish(WEB) == sorted([*names, "old.js"])
        assert stack.publish(WEB) == []
    assert sorted(entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]) == names
    found = s3.get_object(Bucket=bucket, Key="app.js")
    assert (found["ContentType"], found["CacheControl"]) == ("text/javascript; charset=utf-8", CACHE_CONTROL)
    assert found["Body"].read() == (WEB / "app.js").read_bytes()


def test_a_bucket_with_old_versions_goes_too(place: Place, stack: WebStack) -> None:
    """Should its owner have had S3 keep them; the fixture sees to it that nothing is left."""
    s3, bucket = place.client("s3"), resource(place, "PageBucket")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for body in b"1", b"2":
        s3.put_object(Bucket=bucket, Key="index.html", Body=body)
    s3.delete_object(Bucket=bucket, Key="index.html")


def test_a_failure_is_told_and_cleared_away(place: Place, account: AwsAccount, store: S3Store) -> None:
    """The first resource that failed and why; the next attempt finds the way clear."""
    if place.name != "localstack":
        pytest.skip(f"{place.name} makes functions without code")
    stack = WebStack(account, store, "broken", say=print)
    with pytest.raises(JobFailed, match=r"ended in ROLLBACK_COMPLETE: Function \(AWS::Lambda::Function\): .*NoSuchKey"):
        deploy(stack, None, **INITIAL | {"CodeKey": "missing.zip"})
    assert deploy(stack, HANDLER, **INITIAL)
    assert stack.delete()


@pytest.mark.parametrize(("name", "value"), [("EndpointName", "Upper"), ("Expires", "tomorrow")])
def test_a_wrong_parameter_is_refused(place: Place, account: AwsAccount, store: S3Store, name: str, value: str) -> None:
    """Before anything is made, and nothing stays of the attempt."""
    if place.name != "ministack":
        pytest.skip(f"{place.name} does not look at AllowedPattern")
    stack = WebStack(account, store, "wrong", say=print)
    with pytest.raises(BackendError, match=name):
        deploy(stack, HANDLER, **INITIAL | {name: value})
    assert not stack.delete()


def test_a_change_that_is_declined_leaves_nothing(place: Place, account: AwsAccount, store: S3Store) -> None:
    """It was shown; neither a stack nor code is there afterwards."""

    class Lines(Silent):
        said: list[str] = []  # noqa: RUF012  one test, one list

        def say(self, text: str) -> None:
            self.said.append(text)

    def decline(question: str) -> None:
        raise PermissionError(question)

    if place.name == "localstack":
        pytest.skip("its change sets take no condition that is false")
    settings = SentimentSettings(home=Path("unused"), bucket=BUCKET)
    with pytest.raises(PermissionError, match=r"Change stack sentiment-web of account .* in us-east-1"):
        WebTier(account, settings, store, Lines(), decline).publish("sentiment-1")
    assert any("Add  Function " in text for text in Lines.said)
    assert "sentiment-web" not in str(place.client("cloudformation").describe_stacks()["Stacks"])
    assert list(store.list_objects(f"{settings.prefix}/")) == []
