import secrets
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.config import BackendConfig
from backends.local.backend import open_local
from tests.wire.conftest import refused

UNHURRIED = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
KEYS = st.sets(st.text("ab/-é😀 +%&", min_size=1, max_size=6), max_size=15)


def expected(keys: set[str], prefix: str, delimiter: str, after: str) -> list[str]:
    """What a listing shows, keys and common prefixes, in S3's order."""
    shown = set()
    for key in keys:
        if key.startswith(prefix):
            rest = key[len(prefix) :]
            cut = rest.find(delimiter) if delimiter else -1
            shown.add(key if cut < 0 else prefix + rest[: cut + len(delimiter)])
    return sorted((entry for entry in shown if entry.encode() > after.encode()), key=str.encode)


def entries(page: Any) -> list[str]:
    keys = [entry["Key"] for entry in page.get("Contents", page.get("Versions", []))]
    return sorted(keys + [entry["Prefix"] for entry in page.get("CommonPrefixes", [])], key=str.encode)


@UNHURRIED
@given(
    keys=KEYS,
    prefix=st.text("ab/é", max_size=2),
    delimiter=st.sampled_from(["", "/", "a/", "é"]),
    after=st.text("ab/-é", max_size=3),
    page_size=st.integers(1, 5),
)
def test_listings_against_an_oracle(
    s3: Any, s3_config: BackendConfig, *, keys: set[str], prefix: str, delimiter: str, after: str, page_size: int
) -> None:
    """All three kinds, page by page, whatever the delimiter and wherever they begin."""
    bucket = f"list-{secrets.token_hex(8)}"
    with open_local(s3_config) as backend:
        backend.store.ensure_bucket(bucket)
        for key in keys:
            backend.store.put(f"s3://{bucket}/{key}", b"")
    wanted = expected(keys, prefix, delimiter, after)
    for operation, start in (
        ("list_objects_v2", "StartAfter"),
        ("list_objects", "Marker"),
        ("list_object_versions", "KeyMarker"),
    ):
        members = {name: value for name, value in (("Delimiter", delimiter), (start, after)) if value}
        pages = list(
            s3.get_paginator(operation).paginate(
                Bucket=bucket, Prefix=prefix, **members, PaginationConfig={"PageSize": page_size}
            )
        )
        assert [entry for page in pages for entry in entries(page)] == wanted
        assert all(len(entries(page)) == page_size for page in pages[:-1])
        assert [page["IsTruncated"] for page in pages] == [True] * (len(pages) - 1) + [False]


def test_what_a_listing_tells(s3: Any, bucket: str) -> None:
    """Size, ETag, time, class; the owner where it is asked for or always was told."""
    written = s3.put_object(Bucket=bucket, Key="a b+é", Body=b"abc", ChecksumAlgorithm="SHA256")
    page = s3.list_objects_v2(Bucket=bucket, MaxKeys=5)
    (entry,) = page["Contents"]
    assert (entry["Key"], entry["Size"], entry["ETag"]) == ("a b+é", 3, written["ETag"])
    assert (entry["StorageClass"], entry["ChecksumAlgorithm"], "Owner" in entry) == ("STANDARD", ["SHA256"], False)
    assert (page["Name"], page["KeyCount"], page["MaxKeys"], page["Prefix"]) == (bucket, 1, 5, "")
    owner = s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]["Owner"]
    assert owner == s3.list_objects(Bucket=bucket)["Contents"][0]["Owner"] == s3.list_buckets()["Owner"]
    (version,) = s3.list_object_versions(Bucket=bucket)["Versions"]
    assert (version["VersionId"], version["IsLatest"]) == ("null", True)


def test_limits_of_a_listing(s3: Any, bucket: str) -> None:
    """At most a thousand entries, none if none are wanted; what is no token is refused."""
    with refused("InvalidArgument", 400):
        s3.list_objects_v2(Bucket=bucket, ContinuationToken="é?")
    with refused("InvalidArgument", 400):
        s3.list_objects_v2(Bucket=bucket, MaxKeys=-1)
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=5000)["MaxKeys"] == 1000
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    page = s3.list_objects_v2(Bucket=bucket, MaxKeys=0)
    assert (page["KeyCount"], page["IsTruncated"]) == (0, False)
    for operation in (s3.list_objects_v2, s3.list_objects, s3.list_object_versions, s3.list_multipart_uploads):
        with refused("NoSuchBucket", 404):
            operation(Bucket="no-such-bucket")


def test_a_folder_costs_one_step(s3: Any, s3_config: BackendConfig, bucket: str) -> None:
    """A listing with a delimiter does not walk through what it rolls up."""
    with open_local(s3_config) as backend:
        for number in range(3000):
            backend.store.put(f"s3://{bucket}/deep/{number:05}", b"")
        backend.store.put(f"s3://{bucket}/last", b"")
        asked: list[object] = []
        backend.store.buckets.folder._reading.set_trace_callback(asked.append)  # type: ignore[attr-defined]
        found = list(backend.store.buckets.entries(bucket, delimiter="/", page_rows=10))  # type: ignore[attr-defined]
    assert found[0] == "deep/"
    assert len(found) == 2
    assert len(asked) <= 3
    page = s3.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert entries(page) == ["deep/", "last"]


@pytest.mark.parametrize("encoding", [{}, {"EncodingType": "url"}])
def test_keys_in_listings_are_encoded_on_request(s3: Any, bucket: str, encoding: dict[str, str]) -> None:
    """boto3 asks for it and decodes by itself; whoever asks explicitly gets what was sent."""
    key = "a b/ü+&<>%2F"
    s3.put_object(Bucket=bucket, Key=key, Body=b"")
    page = s3.list_objects_v2(Bucket=bucket, Delimiter="/", StartAfter="a", **encoding)
    prefix = page["CommonPrefixes"][0]["Prefix"]
    assert prefix == ("a%20b/" if encoding else "a b/")
    shown = s3.list_objects_v2(Bucket=bucket, **encoding)["Contents"][0]["Key"]
    assert shown == ("a%20b/%C3%BC%2B%26%3C%3E%252F" if encoding else key)
