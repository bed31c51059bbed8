from typing import Any

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import InvalidSpec
from backends.naming import Partition, arn, check_name, fresh_name, join_uri, partition_of, split_uri


def test_the_arn_is_lower_cased() -> None:
    """Only the name part; that is how AWS does it."""
    assert arn("eu-west-1", "123456789012", "endpoint", "DEMO-x") == (
        "arn:aws:sagemaker:eu-west-1:123456789012:endpoint/demo-x"
    )


def test_every_region_is_in_the_partition_that_botocore_says() -> None:
    """With that partition's name in ARNs, and the end of its hosts' names."""
    data: Any = botocore.session.get_session().get_data("partitions")
    regions = 0
    for partition in data["partitions"]:
        found = Partition(partition["id"], partition["outputs"]["dnsSuffix"])
        for region in partition["regions"]:
            if not region.endswith("-global"):
                assert partition_of(region) == found, region
                regions += 1
    assert regions > 40
    assert arn("cn-north-1", "123456789012", "model", "m") == "arn:aws-cn:sagemaker:cn-north-1:123456789012:model/m"


@given(st.text(max_size=70))
def test_fresh_names_are_legal(stem: str) -> None:
    """A legal stem gives a legal name, whatever its length; another is refused."""
    try:
        check_name("job", stem)
    except InvalidSpec:
        return
    assert len(fresh_name(stem)) <= 63


def test_hyphens_count() -> None:
    """A name has at most 63 characters, whatever they are."""
    assert check_name("job", "a" + "-" * 61 + "a")
    with pytest.raises(InvalidSpec, match="1 to 63"):
        check_name("job", "a" + "-" * 62 + "a")


@given(st.text(min_size=1, max_size=200))
def test_splitting_undoes_joining(key: str) -> None:
    """Any UTF-8 key comes back as it was."""
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        length = 0
    if 1 <= length <= 1024:
        assert split_uri(f"s3://bucket/{key}") == ("bucket", key)
    else:
        with pytest.raises(InvalidSpec):
            split_uri(f"s3://bucket/{key}")


@pytest.mark.parametrize("prefix", ["s3://bucket/out", "s3://bucket/out/"])
def test_a_slash_is_not_doubled(prefix: str) -> None:
    """S3OutputPath may end with a slash."""
    assert join_uri(prefix, "job", "output") == "s3://bucket/out/job/output"
