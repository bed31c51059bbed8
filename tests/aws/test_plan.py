"""What would be made on AWS is shown with its price and asked about, before anything is."""

import json
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.stub import Stubber
from botocore.validate import ParamValidator
from cfnlint.decode import cfn_yaml

import backends.aws
from backends.aws.buckets import Bucket
from backends.aws.costs import (
    AT_MOST,
    GB,
    GB_MONTH,
    HOUR,
    REQUESTS,
    REQUESTS_AT_MOST,
    by_use,
    load_prices,
    planned,
    shown,
    total,
)
from backends.aws.webstack import TEMPLATE
from backends.errors import BackendError, InvalidSpec
from backends.specs import Request
from tests.aws.commands import Commands
from tests.aws.conftest import client
from tests.aws.record import recording

BUCKET = "greenroom-123456789012-us-east-1"
ROLE = "arn:aws:iam::123456789012:role/greenroom/sentiment-us-east-1"
SERVICES = {"Bucket": "s3", "PublicAccess": "s3", "Role": "iam", "Repository": "ecr"}


def is_untouched() -> bool:
    """True of an account in which nothing has been made."""
    return not client("s3").list_buckets()["Buckets"] and not client("iam").list_roles()["Roles"]


def test_without_a_yes_nothing_is_made(sentiment: Commands) -> None:
    """Where nobody can be asked, the plan is shown and refused."""
    refused = sentiment("upload", "--source", sentiment.source)
    assert isinstance(refused.exception, InvalidSpec)
    assert "say --yes" in str(refused.exception)
    assert f"bucket {BUCKET}: 0.023 USD per GB-month" in refused.stderr
    assert is_untouched()


@pytest.mark.parametrize(("answer", "is_done"), [("n\n", False), ("y\n", True)])
def test_a_person_is_asked(sentiment: Commands, monkeypatch: pytest.MonkeyPatch, answer: str, *, is_done: bool) -> None:
    """What is not agreed to is not made."""
    monkeypatch.setattr("typer.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    result = sentiment("upload", "--source", sentiment.source, answer=answer)
    assert "Go on?" in result.stderr
    assert (result.exit_code == 0, is_untouched()) == (is_done, not is_done)


def test_another_account_is_refused_before_anything(sentiment: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """One question is all that it hears, whatever the command."""
    monkeypatch.setenv("GREENROOM_EXPECTED_ACCOUNT", "210987654321")
    for command in (["upload", "--source", sentiment.source, "--yes"], ["status"], ["destroy", "--yes"], ["costs"]):
        with recording() as record:
            refused = sentiment(*command)
        assert isinstance(refused.exception, InvalidSpec)
        assert "lead to account 123456789012" in str(refused.exception)
        assert record.operations == ["sts:GetCallerIdentity"]


def test_a_dry_run_sends_nothing_and_prints_everything(sentiment: Commands) -> None:
    """Bucket, role and image come first; botocore finds no fault in any document."""
    with recording() as record:
        printed = sentiment.done("run", "--source", sentiment.source, "--dry-run")
    requests = json.loads(printed.stdout)["requests"]
    assert record.operations == []
    assert [request["operation"] for request in requests] == [
        *("CreateBucket", "PutBucketTagging", "PutPublicAccessBlock", "CreateRole", "PutRolePolicy"),
        *("CreateRepository", "CreateTrainingJob", "CreateModel", "CreateTransformJob"),
        *("CreateModel", "CreateEndpointConfig", "CreateEndpoint"),
    ]
    for request in requests:
        assert problems(request["operation"], request["document"]) == ""
    role = requests[6]["document"]["RoleArn"]
    assert role == ROLE.replace("123456789012", "000000000000")  # Nobody was asked whose account it is.


def problems(operation: str, document: dict[str, Any]) -> str:
    """What botocore would refuse."""
    service = next((name for word, name in SERVICES.items() if word in operation), "sagemaker")
    model = botocore.session.get_session().get_service_model(service).operation_model(operation)
    assert model.input_shape is not None
    return str(ParamValidator().validate(document, model.input_shape).generate_report())


def test_bucket_and_role_are_made_once(sentiment: Commands) -> None:
    """Private, tagged, encrypted; a second command finds them and writes nothing about them."""
    sentiment.done("upload", "--source", sentiment.source, "--yes")
    s3, tag = client("s3"), {"Key": "greenroom:application", "Value": "sentiment"}
    block = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    assert s3.get_bucket_tagging(Bucket=BUCKET)["TagSet"] == [tag]
    role = client("iam").get_role(RoleName="sentiment-us-east-1")["Role"]
    assert (role["Arn"], role["Tags"]) == (ROLE, [tag])
    with recording() as record:
        sentiment.done("upload", "--source", sentiment.source, "--yes")
    reads = ("Get", "List", "Head")
    assert [name for name in record.operations if not name.partition(":")[2].startswith(reads)] == []


def test_what_the_user_brings_is_used_and_not_touched(sentiment: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """A role of the user's is not asked for in IAM; a bucket of the user's outlives a destroy."""
    client("s3").create_bucket(Bucket="mine")
    monkeypatch.setenv("GREENROOM_BUCKET", "mine")
    monkeypatch.setenv("GREENROOM_ROLE_ARN", "arn:aws:iam::123456789012:role/mine")
    with recording() as record:
        result = sentiment.done("upload", "--source", sentiment.source, "--yes")
    assert "role" not in result.stderr
    assert not [name for name in record.operations if name.startswith("iam:")]
    assert client("s3").list_objects_v2(Bucket="mine")["KeyCount"] == 2
    sentiment.done("destroy", "--yes")
    assert client("s3").list_objects_v2(Bucket="mine")["KeyCount"] == 0


def test_a_bucket_of_another_account_is_not_written_to() -> None:
    """The name can be guessed: who took it first would read the reviews. The refusal is put in: moto has no owners."""
    s3: Any = boto3.client("s3", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    bucket = Bucket(name="taken", account="123456789012", region="us-east-1", tags={})
    expected = {"Bucket": "taken", "ExpectedBucketOwner": "123456789012"}
    with Stubber(s3) as stubber:
        stubber.add_client_error("head_bucket", "403", "Forbidden", 403, expected_params=expected)
        with pytest.raises(BackendError, match="'taken': HeadBucket was refused, 403"):
            bucket.ensure(s3)
    s3.close()


# --- prices


def instances(count: int, type_name: str = "ml.m5.large") -> Request:
    variant = {"VariantName": "a", "ModelName": "m", "InitialInstanceCount": count, "InstanceType": type_name}
    return Request("CreateEndpointConfig", {"EndpointConfigName": "e", "ProductionVariants": [variant]})


def test_instances_are_multiplied() -> None:
    """By the hour, each instance."""
    (item,) = planned([instances(3)], "us-east-1")
    assert item.prices == {HOUR: Decimal("0.345")}


@pytest.mark.parametrize(("region", "type_name"), [("eu-west-1", "ml.m5.large"), ("us-east-1", "ml.p9.huge")])
def test_a_price_that_is_not_known_is_said_to_be(region: str, type_name: str) -> None:
    """Never taken from another region or type, and not counted as nothing."""
    (item,) = planned([instances(1, type_name)], region)
    assert item.prices == {HOUR: None}
    assert str(item).endswith("unknown per hour")


def test_a_serverless_endpoint_costs_nothing_while_it_waits() -> None:
    """What it costs is by its memory and by how long each request takes."""
    variant = {"VariantName": "a", "ModelName": "m", "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5}}
    config = {"EndpointConfigName": "e", "ProductionVariants": [variant]}
    (item,) = planned([Request("CreateEndpointConfig", config)], "us-east-1")
    assert item.prices == {HOUR: 0, "1,000 requests of 100 ms": Decimal("0.004")}
    assert total([item]) == 0


def test_what_is_provisioned_bills_while_it_waits() -> None:
    """By the hour, at a price that no source tells; requests to it have a price of their own."""
    serverless = {"MemorySizeInMB": 2048, "MaxConcurrency": 5, "ProvisionedConcurrency": 2}
    variant = {"VariantName": "a", "ModelName": "m", "ServerlessConfig": serverless}
    config = {"EndpointConfigName": "e", "ProductionVariants": [variant]}
    (item,) = planned([Request("CreateEndpointConfig", config)], "us-east-1")
    assert str(item) == (
        "endpoint e (serverless, 2048 MB, 2 always up): unknown per hour; unknown per 1,000 requests of 100 ms"
    )


def test_scaling_is_priced_at_its_most() -> None:
    """By the type of the variant that it scales; what is up by the hour stands in the configuration's own line."""
    endpoint = {"ResourceId": "endpoint/e/variant/a", "MinCapacity": 2, "MaxCapacity": 4}
    scaling = Request("RegisterScalableTarget", endpoint)
    config, item = planned([instances(2), scaling], "us-east-1")
    assert (config.prices, item.prices) == ({HOUR: Decimal("0.23")}, {AT_MOST: Decimal("0.46")})
    assert str(item) == "scaling e (2 to 4 ml.m5.large): 0.46 USD per hour at most"
    (alone,) = planned([scaling], "us-east-1")
    assert alone.prices == {AT_MOST: None}


def test_alarms_are_in_the_plan() -> None:
    """Ours by name, those that AWS makes for a scaling policy by that."""
    requests = [Request("PutMetricAlarm", {"AlarmName": "a"}), Request("PutScalingPolicy", {"PolicyName": "p"})]
    assert [item.prices for item in planned(requests, "us-east-1")] == 2 * [{"alarm-month": Decimal("0.10")}]


def test_what_bills_by_use_is_said_of_the_page() -> None:
    """The rest of its stack costs next to nothing."""
    template: Any = cfn_yaml.load(str(TEMPLATE))
    resources = {name: resource["Type"] for name, resource in template["Resources"].items()}
    assert {item.name: item.prices for item in by_use(resources, "us-east-1")} == {
        "Api": {REQUESTS: Decimal("0.001")},
        "Distribution": {REQUESTS_AT_MOST: Decimal("0.0012"), GB: Decimal("0.085")},
        "Function": {REQUESTS: Decimal("0.0002"), "GB-second": Decimal("0.00001667")},
        "FunctionLogs": {f"{GB} written": Decimal("0.50"), GB_MONTH: Decimal("0.03")},
    }


def test_small_prices_are_not_rounded_to_nothing() -> None:
    """A reader must not take little for free."""
    assert [shown(Decimal(usd)) for usd in ("0", "0.0000001", "0.115", "12")] == [
        *("0 USD", "less than 0.000001 USD", "0.115 USD", "12 USD")
    ]


def test_the_days_are_those_of_the_regions_prices() -> None:
    """What was read long ago of another region says nothing of this one."""
    prices = load_prices()
    assert prices.read(["us-east-1"]) == "2025-10-28 to 2026-11-25"
    assert prices.read(["us-east-1", "eu-central-1"]).startswith("2021-11-02")
    assert prices.read(["mars-1"])  # CloudFront's are the same everywhere.


def test_every_price_says_where_it_is_from() -> None:
    """A date, a source, and one price for one thing."""
    path = Path(backends.aws.__file__ or "").with_name("prices.toml")
    rows = tomllib.loads(path.read_text())["price"]
    assert all(row["source"] and row["date"] and Decimal(row["usd"]) > 0 for row in rows)
    assert len(load_prices().known) == len(rows)
