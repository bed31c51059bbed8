"""What is made on AWS before any job, made in each server: others wrote what validates it."""

import uuid
from dataclasses import replace

from backends.aws.buckets import Bucket
from backends.aws.roles import ExecutionRole
from tests.peers import client

ACCOUNT = "000000000000"
TAGS = {"greenroom:application": "app"}


def test_a_role_is_made_set_right_and_removed(server: tuple[str, str]) -> None:
    """IAM takes the documents, and tells them as they were sent; LocalStack lists the trust as no client reads it."""
    name, url = server
    is_misread = name == "localstack"
    iam, stem = client("iam", url), f"app-{uuid.uuid4().hex[:8]}"

    def role(image: str) -> ExecutionRole:
        return ExecutionRole(
            account=ACCOUNT,
            region="us-east-1",
            stem=stem,
            reads=["s3://bucket/app"],
            writes=["s3://bucket/app/models"],
            image=image,
            tags=TAGS,
        )

    first, second = (role(f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/app:{tag}") for tag in ("1", "2"))
    elsewhere = role("image")
    assert [first.ensure(iam), second.ensure(iam), elsewhere.ensure(iam), elsewhere.ensure(iam)] == [
        *(True, is_misread, True, is_misread)
    ]
    assert iam.get_role(RoleName=first.name)["Role"]["Arn"] == first.arn
    assert [first.remove(iam), first.remove(iam)] == [True, False]


def test_a_bucket_is_made_and_removed(url: str) -> None:
    """Private and tagged; one that was not made here is left."""
    s3, name = client("s3", url), f"app-{uuid.uuid4().hex[:8]}"
    bucket = Bucket(name=name, account=ACCOUNT, region="us-east-1", tags=TAGS)
    assert [bucket.ensure(s3), bucket.ensure(s3)] == [True, False]
    block = s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    s3.create_multipart_upload(Bucket=name, Key="app/begun")
    assert bucket.abort_uploads(s3, "app/") == 1
    assert [bucket.remove(s3), bucket.remove(s3)] == [True, False]
    theirs = replace(bucket, name=f"{name}-theirs")
    s3.create_bucket(Bucket=theirs.name)
    assert [theirs.ensure(s3), theirs.remove(s3)] == [False, False]
    s3.delete_bucket(Bucket=theirs.name)
