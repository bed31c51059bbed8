import json
from typing import Any

import pytest

from backends.config import BackendConfig
from backends.emulator.app import create_app
from backends.engine import Engine
from backends.local.backend import engine_settings
from tests.emulator import serving
from tests.wire.conftest import client, refused

RULE = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}
# Setting, what to put, the error where there is none, how it is deleted.
SETTINGS: list[tuple[str, dict[str, Any], str]] = [
    ("bucket_tagging", {"Tagging": {"TagSet": [{"Key": "a", "Value": "é"}]}}, "NoSuchTagSet"),
    (
        "bucket_cors",
        {"CORSConfiguration": {"CORSRules": [{"AllowedMethods": ["GET", "PUT"], "AllowedOrigins": ["*"]}]}},
        "NoSuchCORSConfiguration",
    ),
    ("bucket_policy", {"Policy": json.dumps({"Version": "2012-10-17", "Statement": []})}, "NoSuchBucketPolicy"),
    (
        "bucket_ownership_controls",
        {"OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}},
        "OwnershipControlsNotFoundError",
    ),
    (
        "public_access_block",
        {
            "PublicAccessBlockConfiguration": {
                "BlockPublicAcls": True,
                "IgnorePublicAcls": False,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": False,
            }
        },
        "NoSuchPublicAccessBlockConfiguration",
    ),
]


def told(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def test_buckets_come_and_go(s3: Any, bucket: str) -> None:
    """They are listed with their time; one's own can be made again in the first region; a full one stays."""
    assert bucket in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]
    assert s3.head_bucket(Bucket=bucket)["BucketRegion"] == "us-east-1"
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.create_bucket(Bucket=bucket)
    with refused("BucketNotEmpty", 409):
        s3.delete_bucket(Bucket=bucket)
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)
    with refused("404", 404):
        s3.head_bucket(Bucket=bucket)
    with refused("NoSuchBucket", 404):
        s3.delete_bucket(Bucket=bucket)


@pytest.mark.parametrize("name", ["ab", "Upper", "under_score", "a" * 64, "-a-"])
def test_names_are_s3s(s3: Any, name: str) -> None:
    """3 to 63 lower-case letters, digits, dots and hyphens."""
    with refused("InvalidBucketName", 400):
        s3.create_bucket(Bucket=name)


def test_buckets_are_listed_by_the_page(s3: Any, bucket: str) -> None:
    """With a prefix, two at a time."""
    names = [f"{bucket}-{number}" for number in range(5)]
    for name in names:
        s3.create_bucket(Bucket=name)
    pages = list(s3.get_paginator("list_buckets").paginate(Prefix=f"{bucket}-", PaginationConfig={"PageSize": 2}))
    assert [[entry["Name"] for entry in page["Buckets"]] for page in pages] == [names[:2], names[2:4], names[4:]]


def test_what_was_never_set(s3: Any, bucket: str) -> None:
    """What Terraform reads of a bucket, in S3's words for "not configured"."""
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    for get in (
        s3.get_bucket_versioning,
        s3.get_bucket_logging,
        s3.get_bucket_accelerate_configuration,
        s3.get_bucket_notification_configuration,
    ):
        assert told(get(Bucket=bucket)) == {}
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
    assert s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"] == [RULE]
    (grant,) = s3.get_bucket_acl(Bucket=bucket)["Grants"]
    assert (grant["Permission"], grant["Grantee"]["Type"]) == ("FULL_CONTROL", "CanonicalUser")
    for get, code in (
        (s3.get_bucket_policy, "NoSuchBucketPolicy"),
        (s3.get_bucket_policy_status, "NoSuchBucketPolicy"),
        (s3.get_bucket_tagging, "NoSuchTagSet"),
        (s3.get_bucket_cors, "NoSuchCORSConfiguration"),
        (s3.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration"),
        (s3.get_bucket_website, "NoSuchWebsiteConfiguration"),
        (s3.get_bucket_replication, "ReplicationConfigurationNotFoundError"),
        (s3.get_object_lock_configuration, "ObjectLockConfigurationNotFoundError"),
    ):
        with refused(code, 404):
            get(Bucket=bucket)
        with refused("NoSuchBucket", 404):
            get(Bucket="no-such-bucket")
    (controls,) = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    assert controls == {"ObjectOwnership": "BucketOwnerEnforced"}
    assert set(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values()) == {True}


@pytest.mark.parametrize(("name", "members", "code"), SETTINGS, ids=[name for name, *_ in SETTINGS])
def test_what_is_set_is_told(s3: Any, bucket: str, name: str, members: dict[str, Any], code: str) -> None:
    """Put, got, deleted; a new bucket of the name does not inherit it."""
    put, get, delete = (getattr(s3, f"{verb}_{name}") for verb in ("put", "get", "delete"))
    put(Bucket=bucket, **members)
    ((_, document),) = members.items()
    answer = told(get(Bucket=bucket))
    assert answer in (members, document)
    delete(Bucket=bucket)
    with refused(code, 404):
        get(Bucket=bucket)
    put(Bucket=bucket, **members)
    s3.delete_bucket(Bucket=bucket)
    with refused("NoSuchBucket", 404):
        get(Bucket=bucket)


def test_lifecycle_and_encryption_are_told(s3: Any, bucket: str) -> None:
    """Kept for whoever asks; nothing here expires or is encrypted."""
    rules = [{"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "a/"}, "Expiration": {"Days": 3}}]
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == rules
    s3.delete_bucket_lifecycle(Bucket=bucket)
    wanted = {"Rules": [RULE | {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=wanted)
    assert s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"] == wanted
    s3.delete_bucket_encryption(Bucket=bucket)
    assert s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"] == [RULE]


def test_another_region(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Outside of us-east-1 the place is named, told, and one's own bucket cannot be made twice."""
    config = BackendConfig(home=tmp_path_factory.mktemp("region") / "home", region="eu-west-1")
    engine = Engine(engine_settings(config))
    with serving(create_app(engine)) as url:
        s3 = client("s3", url, region="eu-west-1")
        place = {"LocationConstraint": "eu-west-1"}
        s3.create_bucket(Bucket="bucket", CreateBucketConfiguration=place)
        assert s3.get_bucket_location(Bucket="bucket")["LocationConstraint"] == "eu-west-1"
        with refused("BucketAlreadyOwnedByYou", 409):
            s3.create_bucket(Bucket="bucket", CreateBucketConfiguration=place)
        with refused("IllegalLocationConstraintException", 400):
            s3.create_bucket(Bucket="other")
        s3.close()
    engine.close()
