"""What is up is found in any region, and what is left after a destroy is named, with the reason."""

import json
from collections.abc import Iterator
from typing import Any

import botocore.handlers
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from tests.aws.commands import Commands
from tests.aws.conftest import ABROAD, HOME, client

BUCKET = "greenroom-123456789012-us-east-1"
MINE = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}]}
TAGS = [{"Key": "greenroom:application", "Value": "sentiment"}]


INSTANCES = {"InitialInstanceCount": 2, "InstanceType": "ml.m5.large"}


def deploy(name: str, region: str, *, tags: list[dict[str, str]] = TAGS, capacity: dict[str, Any] = INSTANCES) -> Any:
    """An endpoint, of two instances unless told otherwise; the client that made it."""
    sagemaker = client("sagemaker", region)
    role = "arn:aws:iam::123456789012:role/any"
    sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "image"}, ExecutionRoleArn=role, Tags=tags)
    variant = {"VariantName": "a", "ModelName": name, **capacity}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], Tags=tags)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name, Tags=tags)
    return sagemaker


def test_endpoints_are_found_wherever_they_are(sentiment: Commands) -> None:
    """Each at its region's price; others' are not shown."""
    deploy("sentiment-1", HOME)
    deploy("sentiment-2", ABROAD)
    deploy("somebodys", HOME, tags=[{"Key": "greenroom:application", "Value": "another"}])
    found = sentiment.json("costs")
    endpoints = {(item["name"], item["region"]): item["prices"] for item in found["up"] if item["kind"] == "endpoint"}
    assert endpoints == {("sentiment-1", HOME): {"hour": "0.230"}, ("sentiment-2", ABROAD): {"hour": None}}
    assert (found["usd_per_hour"], found["without_price"]) == ("0.230", ["sentiment-2"])
    table = sentiment.done("costs").stdout
    assert "eu-west-1  endpoint sentiment-2 (2 ml.m5.large): unknown per hour" in table
    assert "0.23 USD by the hour, and 1 of unknown price" in table


def test_what_is_provisioned_is_listed_as_what_bills(sentiment: Commands) -> None:
    """A serverless endpoint that waits costs nothing; with containers that are always up it does."""
    for name, more in (("sentiment-1", {}), ("sentiment-2", {"ProvisionedConcurrency": 1})):
        serverless = {"MemorySizeInMB": 1024, "MaxConcurrency": 2, **more}
        deploy(name, HOME, capacity={"ServerlessConfig": serverless})
    found = sentiment.json("costs")
    assert (found["usd_per_hour"], found["without_price"]) == ("0", ["sentiment-2"])


def test_a_bucket_is_found_once_with_its_size(sentiment: Commands) -> None:
    """Where it lies, though S3's names are the world's."""
    sentiment.done("upload", "--source", sentiment.source, "--yes")
    client("s3").put_object(Bucket=BUCKET, Key="sentiment/big", Body=b"0" * 3_000_000)
    (bucket,) = [item for item in sentiment.json("costs")["up"] if item["kind"] == "bucket"]
    assert (bucket["name"], bucket["region"], bucket["detail"]) == (BUCKET, HOME, "3.0 MB")


class Refusal:
    """The body of an answer."""

    def stream(self) -> Iterator[bytes]:
        yield b'{"__type": "AccessDeniedException", "message": "No"}'


@pytest.fixture
def closed_region() -> Iterator[None]:
    """AWS refuses everything in the second region, as where an organisation forbids it."""

    def refuse(request: Any, **_: object) -> AWSResponse | None:
        if f".{ABROAD}." not in request.url:
            return None
        return AWSResponse(request.url, 400, HTTPHeaders(), Refusal())

    hook = ("before-send", refuse)
    botocore.handlers.BUILTIN_HANDLERS.insert(0, hook)
    yield
    botocore.handlers.BUILTIN_HANDLERS.remove(hook)


@pytest.mark.usefixtures("closed_region")
def test_a_region_that_cannot_be_looked_at_is_named(sentiment: Commands) -> None:
    """The others are looked at all the same."""
    found = sentiment.json("costs")
    assert list(found["unseen_regions"]) == [ABROAD]
    assert "AccessDeniedException" in found["unseen_regions"][ABROAD]


def test_a_destroy_leaves_nothing(sentiment: Commands) -> None:
    """Objects, unfinished uploads, bucket, role, logs; what the account has besides stays."""
    sentiment.done("upload", "--source", sentiment.source, "--yes")
    s3, iam, logs = client("s3"), client("iam"), client("logs")
    s3.create_multipart_upload(Bucket=BUCKET, Key="sentiment/begun")
    logs.create_log_group(logGroupName="/aws/sagemaker/TrainingJobs")
    for stream in ("sentiment-train-1/algo-1", "somebodys/algo-1"):
        logs.create_log_stream(logGroupName="/aws/sagemaker/TrainingJobs", logStreamName=stream)
    for group in ("sentiment", "sentiment-1", "sentiments", "somebodys"):
        logs.create_log_group(logGroupName=f"/aws/sagemaker/Endpoints/{group}")
    removed = sentiment.json("destroy", "--yes")
    assert removed["kept"] == []
    assert sentiment.json("costs")["up"] == []
    assert (s3.list_buckets()["Buckets"], iam.list_roles()["Roles"]) == ([], [])
    assert [group["logGroupName"].rpartition("/")[2] for group in logs.describe_log_groups()["logGroups"]] == [
        *("sentiments", "somebodys", "TrainingJobs")
    ]
    streams = logs.describe_log_streams(logGroupName="/aws/sagemaker/TrainingJobs")["logStreams"]
    assert [stream["logStreamName"] for stream in streams] == ["somebodys/algo-1"]


def test_what_cannot_be_removed_is_named_with_the_reason(sentiment: Commands) -> None:
    """The rest is removed all the same, and the exit code says that something is left."""
    sentiment.done("upload", "--source", sentiment.source, "--yes")
    s3, iam = client("s3"), client("iam")
    s3.put_object(Bucket=BUCKET, Key="mine", Body=b"not sentiment's")
    iam.put_role_policy(RoleName="sentiment-us-east-1", PolicyName="mine", PolicyDocument=json.dumps(MINE))
    deploy("sentiment-abroad", ABROAD)
    result = sentiment("destroy", "--yes")
    assert result.exit_code == 1
    for reason in (
        f"bucket '{BUCKET}': DeleteBucket was refused, BucketNotEmpty",
        "role 'sentiment-us-east-1': DeleteRole was refused, DeleteConflict",
        "role sentiment-us-east-1 is still there, in global\n",
        "endpoint sentiment-abroad is still there, in eu-west-1; GREENROOM_REGION=eu-west-1 removes what is there",
    ):
        assert reason in result.stdout
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["mine"]
