import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import InvalidSpec
from backends.naming import arn, check_name, fresh_name, join_uri, split_uri


def test_the_arn_is_lower_cased() -> None:
    """Only the name part; that is how AWS does it."""
    assert arn("eu-west-1", "123456789012", "endpoint", "DEMO-x") == (
        "arn:aws:sagemaker:eu-west-1:123456789012:endpoint/demo-x"
    )


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
