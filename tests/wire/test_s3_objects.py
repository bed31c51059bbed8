import base64
import hashlib
import http.client
import io
import os
import threading
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import urllib3
from botocore.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.config import BackendConfig
from backends.local.backend import open_local
from tests.unit.test_files_store import HOSTILE, KEYS
from tests.wire.conftest import client, refused

MIB = 1024**2
UNHURRIED = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # one server for all examples
ALGORITHMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")


def get(s3: Any, bucket: str, key: str, **members: Any) -> bytes:
    body: bytes = s3.get_object(Bucket=bucket, Key=key, **members)["Body"].read()
    return body


# Keys and bytes


@pytest.mark.parametrize("key", HOSTILE, ids=range(len(HOSTILE)))
def test_every_key_round_trips(s3: Any, bucket: str, s3_config: BackendConfig, key: str) -> None:
    """S12: dot-dot, slashes, NUL, 1024 bytes of any UTF-8 come back as they went; nothing leaves the home."""
    if key in {".", ".."} or set(key) == {"/"} or key.startswith("/"):
        pytest.skip("botocore itself rewrites such a path before it sends it; see the test below")
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert get(s3, bucket, key) == key.encode()
    assert {path.name for path in s3_config.home.parent.iterdir()} == {"home"}
    s3.delete_object(Bucket=bucket, Key=key)
    with refused("404", 404):
        s3.head_object(Bucket=bucket, Key=key)


@UNHURRIED
@given(key=KEYS, body=st.binary(max_size=100))
def test_keys_on_the_bare_wire(s3_url: str, s3_config: BackendConfig, key: str, body: bytes) -> None:
    """What arrives percent-encoded is the key and nothing else, whatever it would be as a path."""
    with open_local(s3_config) as backend:
        backend.store.ensure_bucket("bare-wire")
        connection = http.client.HTTPConnection(urlsplit(s3_url).netloc)
        path = f"/bare-wire/{quote(key, safe='')}"
        connection.request("PUT", path, body=body)
        assert connection.getresponse().read() == b""
        assert backend.store.get(f"s3://bare-wire/{key}") == body
        connection.request("GET", path)
        assert connection.getresponse().read() == body
        connection.close()


def test_keys_that_are_too_long_are_refused(s3: Any, bucket: str) -> None:
    """1025 bytes."""
    with refused("KeyTooLongError", 400):
        s3.put_object(Bucket=bucket, Key="é" * 512 + "x")


def test_what_the_pipeline_stored_is_there(s3: Any, s3_config: BackendConfig) -> None:
    """The engine's store and the wire are two doors to the same objects."""
    with open_local(s3_config) as backend:
        backend.store.ensure_bucket("pipeline")
        backend.store.put("s3://pipeline/train/a.csv", b"1,2\n", content_type="text/csv")
        listed = s3.list_objects_v2(Bucket="pipeline")["Contents"]
        assert [(entry["Key"], entry["Size"]) for entry in listed] == [("train/a.csv", 4)]
        head = s3.head_object(Bucket="pipeline", Key="train/a.csv", ChecksumMode="ENABLED")
        assert head["ContentType"] == "text/csv"
        s3.put_object(Bucket="pipeline", Key="train/b.csv", Body=b"3\n")
        assert backend.store.get("s3://pipeline/train/b.csv") == b"3\n"


def test_an_object_keeps_what_was_said_of_it(s3: Any, bucket: str) -> None:
    """Headers of S3 and of the caller's own, tags and ETag come back from GET and HEAD alike."""
    expires = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    said = {
        "CacheControl": "no-cache",
        "ContentDisposition": 'attachment; filename="x"',
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "ContentType": "text/csv",
        "Metadata": {"owner": "me", "empty": ""},
        "StorageClass": "STANDARD_IA",
    }
    answer = s3.put_object(Bucket=bucket, Key="k", Body=b"abc", Expires=expires, Tagging="a=1&b=%C3%A9", **said)
    assert answer["ETag"] == f'"{hashlib.md5(b"abc", usedforsecurity=False).hexdigest()}"'
    for found in (s3.head_object(Bucket=bucket, Key="k"), s3.get_object(Bucket=bucket, Key="k")):
        assert {name: found[name] for name in said} == said
        assert (found["ETag"], found["ContentLength"], found["TagCount"]) == (answer["ETag"], 3, 2)
        assert found["ExpiresString"] == "Wed, 02 Jan 2030 03:04:05 GMT"
        assert timedelta(seconds=-2) < datetime.now(UTC) - found["LastModified"] < timedelta(minutes=1)
    tags = s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"]
    assert tags == [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "é"}]


def test_a_reader_may_ask_for_other_headers(s3: Any, bucket: str) -> None:
    """response-content-type and its like, which presigned links use."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"abc")
    found = s3.get_object(Bucket=bucket, Key="k", ResponseContentType="text/x", ResponseContentDisposition="inline")
    assert (found["ContentType"], found["ContentDisposition"]) == ("text/x", "inline")
    assert s3.get_object(Bucket=bucket, Key="k")["ContentType"] == "binary/octet-stream"


@pytest.mark.parametrize("size", [0, 1, 8192, 8193, MIB - 1, MIB, MIB + 1, 5 * MIB + 3])
def test_bodies_of_any_size(s3: Any, bucket: str, size: int) -> None:
    """On both sides of what is a row, what is read at once and what is streamed."""
    body = os.urandom(size)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    assert get(s3, bucket, "k") == body
    assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == size


# Checksums


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_checksum(s3: Any, bucket: str, algorithm: str) -> None:
    """boto3 computes it, we verify and keep it, boto3 checks it when it reads."""
    body = os.urandom(3 * MIB + 1)
    written = s3.put_object(Bucket=bucket, Key="k", Body=body, ChecksumAlgorithm=algorithm)
    name = f"Checksum{algorithm}"
    assert written["ChecksumType"] == "FULL_OBJECT"
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert head[name] == written[name]
    attributes = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["Checksum", "ETag", "ObjectSize"])
    assert attributes["Checksum"][name] == written[name]
    assert (attributes["ETag"], attributes["ObjectSize"]) == (written["ETag"].strip('"'), len(body))
    assert get(s3, bucket, "k", ChecksumMode="ENABLED") == body
    if algorithm in {"SHA1", "SHA256", "CRC32"}:  # which the standard library knows as well
        independent = {
            "SHA1": lambda: hashlib.sha1(body, usedforsecurity=False).digest(),
            "SHA256": lambda: hashlib.sha256(body).digest(),
            "CRC32": lambda: zlib.crc32(body).to_bytes(4, "big"),
        }[algorithm]()
        assert written[name] == base64.b64encode(independent).decode()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_wrong_checksum_stores_nothing(s3: Any, bucket: str, algorithm: str) -> None:
    """The old object stands."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"old")
    other = s3.put_object(Bucket=bucket, Key="other", Body=b"other", ChecksumAlgorithm=algorithm)[
        f"Checksum{algorithm}"
    ]
    with refused("BadDigest", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"new" * MIB, **{f"Checksum{algorithm}": other})
    with refused("InvalidRequest", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"new", **{f"Checksum{algorithm}": "AA=="})
    assert get(s3, bucket, "k") == b"old"


def test_without_a_checksum_s3_adds_its_own(s3_url: str, bucket: str) -> None:
    """CRC64NVME, as S3 does since December 2024."""
    plain = client("s3", s3_url, config=Config(request_checksum_calculation="when_required"))
    plain.put_object(Bucket=bucket, Key="k", Body=b"123456789")
    head = plain.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert head["ChecksumCRC64NVME"] == base64.b64encode(bytes.fromhex("ae8b14860a799888")).decode()


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Content-MD5": base64.b64encode(bytes(16)).decode()}, "BadDigest"),
        ({"Content-MD5": "rubbish"}, "InvalidDigest"),
        ({"x-amz-content-sha256": "0" * 64}, "XAmzContentSHA256Mismatch"),
        ({"x-amz-checksum-xxhash64": "AAAAAAAAAAA="}, "NotImplemented"),
    ],
)
def test_what_headers_say_of_the_body_is_checked(
    web: urllib3.PoolManager, s3_url: str, bucket: str, headers: dict[str, str], code: str
) -> None:
    """Content-MD5 and x-amz-content-sha256, of objects and of documents."""
    for path in (f"/{bucket}/k", f"/{bucket}?tagging"):
        answer = web.request("PUT", f"{s3_url}{path}", body=b"<Tagging/>", headers=headers, retries=False)
        assert f"<Code>{code}</Code>" in answer.data.decode()
    assert web.request("GET", f"{s3_url}/{bucket}/k").status == 404


# Ranges and conditions


@UNHURRIED
@given(size=st.integers(0, 50), first=st.integers(0, 60) | st.none(), last=st.integers(0, 60) | st.none())
def test_ranges(
    web: urllib3.PoolManager, s3_url: str, s3_config: BackendConfig, *, size: int, first: int | None, last: int | None
) -> None:
    """Against a simple oracle: RFC 9110, section 14."""
    body = bytes(range(size))
    with open_local(s3_config) as backend:
        backend.store.ensure_bucket("ranges")
        backend.store.put("s3://ranges/k", body)
    text = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    answer = web.request("GET", f"{s3_url}/ranges/k", headers={"Range": text})
    if (first is None and last is None) or (first is not None and last is not None and first > last):
        expected: tuple[int, bytes | None] = (200, body)
    elif first is None:
        assert last is not None
        expected = (206, body[-last:] if last else None) if size and last else (416, None)
    else:
        part = body[first:] if last is None else body[first : last + 1]
        expected = (206, part) if part else (416, None)
    assert answer.status == expected[0]
    if expected[1] is not None:
        assert answer.data == expected[1]
    if answer.status == 206:
        start = body.index(answer.data)
        assert answer.headers["Content-Range"] == f"bytes {start}-{start + len(answer.data) - 1}/{size}"
        assert answer.headers["Content-Length"] == str(len(answer.data))
    if answer.status == 416:
        assert b"<Code>InvalidRange</Code>" in answer.data


def test_ranges_of_large_objects_and_of_heads(s3: Any, bucket: str) -> None:
    """A range is sent without what stands before it; HEAD tells of it; several ranges are the whole."""
    body = os.urandom(5 * MIB)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    assert get(s3, bucket, "k", Range=f"bytes={MIB}-{4 * MIB}") == body[MIB : 4 * MIB + 1]
    head = s3.head_object(Bucket=bucket, Key="k", Range="bytes=-10")
    assert (head["ContentLength"], head["ContentRange"]) == (10, f"bytes {5 * MIB - 10}-{5 * MIB - 1}/{5 * MIB}")
    assert get(s3, bucket, "k", Range="bytes=0-1,5-6") == body


def test_conditional_reads(s3: Any, bucket: str) -> None:
    """304 for what is known, 412 for what is not as expected; If-Match and If-None-Match go before the times."""
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"abc")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    earlier, later = modified - timedelta(hours=1), modified + timedelta(hours=1)
    for members in (
        {"IfMatch": etag},
        {"IfMatch": "*"},
        {"IfNoneMatch": '"other"'},
        {"IfModifiedSince": earlier},
        {"IfUnmodifiedSince": modified},
        {"IfMatch": etag, "IfUnmodifiedSince": earlier},
        {"IfNoneMatch": '"other"', "IfModifiedSince": later},
    ):
        assert get(s3, bucket, "k", **members) == b"abc"
    for members in (
        {"IfNoneMatch": etag},
        {"IfModifiedSince": modified},
        {"IfNoneMatch": etag, "IfModifiedSince": earlier},
    ):
        for read in (s3.get_object, s3.head_object):
            with refused("304", 304) as document:
                read(Bucket=bucket, Key="k", **members)
            assert document["ResponseMetadata"]["HTTPHeaders"]["etag"] == etag
    for members in ({"IfMatch": '"other"'}, {"IfUnmodifiedSince": earlier}):
        with refused("PreconditionFailed", 412):
            s3.get_object(Bucket=bucket, Key="k", **members)
        with refused("412", 412):
            s3.head_object(Bucket=bucket, Key="k", **members)


def test_conditional_writes(s3: Any, bucket: str) -> None:
    """If-None-Match: * makes only what is not there; If-Match replaces and deletes only what is known."""
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*")
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch='"other"')
    with refused("NoSuchKey", 404):
        s3.put_object(Bucket=bucket, Key="missing", Body=b"2", IfMatch=etag)
    with refused("PreconditionFailed", 412):
        s3.delete_object(Bucket=bucket, Key="k", IfMatch='"other"')
    assert get(s3, bucket, "k") == b"1"
    s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=etag)
    assert get(s3, bucket, "k") == b"2"


def test_one_of_many_makers_wins(s3: Any, bucket: str) -> None:
    """Of eight that write with If-None-Match: * at once exactly one succeeds."""
    outcomes: list[int] = []
    start = threading.Barrier(8)

    def make(number: int) -> None:
        start.wait()
        try:
            s3.put_object(Bucket=bucket, Key="k", Body=b"%d" % number, IfNoneMatch="*")
            outcomes.append(number)
        except s3.exceptions.ClientError as exc:
            assert exc.response["Error"]["Code"] == "PreconditionFailed"  # noqa: PT017  raised in threads

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1
    assert get(s3, bucket, "k") == b"%d" % outcomes[0]


# Deleting, copying, tagging


def test_deleting_is_quiet(s3: Any, bucket: str) -> None:
    """An object that is not there, too; a bucket that is not there is not."""
    s3.delete_object(Bucket=bucket, Key="nothing")
    with refused("NoSuchBucket", 404):
        s3.delete_object(Bucket="no-such-bucket", Key="k")


@pytest.mark.parametrize("quiet", [True, False])
def test_many_are_deleted_at_once(s3: Any, bucket: str, quiet: bool) -> None:  # noqa: FBT001  pytest's
    """A thousand in one request; each outcome is told unless it is to be quiet."""
    keys = [f"a/{number} é&<" for number in range(1000)]
    for key in keys[:20]:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    answer = s3.delete_objects(
        Bucket=bucket, Delete={"Quiet": quiet, "Objects": [*({"Key": key} for key in keys[:999]), {"Key": "x" * 1025}]}
    )
    assert [entry["Code"] for entry in answer["Errors"]] == ["KeyTooLongError"]
    assert [entry["Key"] for entry in answer.get("Deleted", [])] == ([] if quiet else keys[:999])
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    with refused("MalformedXML", 400):
        s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": str(number)} for number in range(1001)]})


def test_copies(s3: Any, bucket: str) -> None:
    """The copy is as the source, or as is said; onto itself only with a change."""
    key = "söurce +&?#%2F"
    s3.put_object(Bucket=bucket, Key=key, Body=b"abc", Metadata={"a": "1"}, ContentType="text/x", Tagging="t=1")
    source = {"Bucket": bucket, "Key": key}
    result = s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)["CopyObjectResult"]
    found = s3.get_object(Bucket=bucket, Key="copy")
    assert (found["Body"].read(), found["Metadata"], found["ContentType"]) == (b"abc", {"a": "1"}, "text/x")
    assert (found["ETag"], found["TagCount"]) == (result["ETag"], 1)
    s3.copy_object(
        Bucket=bucket,
        Key="other",
        CopySource=source,
        MetadataDirective="REPLACE",
        TaggingDirective="REPLACE",
        Metadata={"b": "2"},
        ChecksumAlgorithm="SHA256",
    )
    found = s3.head_object(Bucket=bucket, Key="other", ChecksumMode="ENABLED")
    assert (found["Metadata"], found["ContentType"], "TagCount" in found) == ({"b": "2"}, "binary/octet-stream", False)
    assert found["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(b"abc").digest()).decode()
    with refused("InvalidRequest", 400):
        s3.copy_object(Bucket=bucket, Key=key, CopySource=source)
    s3.copy_object(Bucket=bucket, Key=key, CopySource=source, MetadataDirective="REPLACE", Metadata={"c": "3"})
    assert s3.head_object(Bucket=bucket, Key=key)["Metadata"] == {"c": "3"}
    with refused("PreconditionFailed", 412):
        s3.copy_object(Bucket=bucket, Key="x", CopySource=source, CopySourceIfNoneMatch=result["ETag"])
    with refused("NoSuchKey", 404):
        s3.copy_object(Bucket=bucket, Key="x", CopySource={"Bucket": bucket, "Key": "missing"})


def test_tags(s3: Any, bucket: str) -> None:
    """They are set, replaced and removed whole; S3's limits hold."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="a=1")
    tags = [{"Key": f"k{number}", "Value": "é"} for number in range(10)]
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": tags})
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == tags
    with refused("BadRequest", 400):
        s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [*tags, {"Key": "x", "Value": ""}]})
    with refused("InvalidTag", 400):
        s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "x", "Value": ""}] * 2})
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
    with refused("NoSuchKey", 404):
        s3.put_object_tagging(Bucket=bucket, Key="missing", Tagging={"TagSet": tags})


# Ways to ask


@pytest.mark.parametrize("signature_version", ["s3v4", "s3"])
def test_presigned_urls(web: urllib3.PoolManager, s3_url: str, bucket: str, signature_version: str) -> None:
    """Whoever has the link may read and write until it expires."""
    s3 = client("s3", s3_url, config=Config(signature_version=signature_version))
    members = {"Bucket": bucket, "Key": "a b/é"}
    assert web.request("PUT", s3.generate_presigned_url("put_object", Params=members), body=b"abc").status == 200
    url = s3.generate_presigned_url("get_object", Params=members | {"ResponseContentType": "text/x"}, ExpiresIn=60)
    answer = web.request("GET", url)
    assert (answer.status, answer.data, answer.headers["Content-Type"]) == (200, b"abc", "text/x")
    for begins, ends in (("X-Amz-Date=2", "X-Amz-Date=1"), ("Expires=1", "Expires=0")):
        url = url.replace(begins, ends)  # signatures are not checked, times are
    expired = web.request("GET", url)
    assert expired.status == 403
    assert b"<Code>AccessDenied</Code><Message>Request has expired</Message>" in expired.data


@pytest.mark.parametrize(
    "host", ["{bucket}.localhost", "{bucket}.s3.localhost:4566", "{bucket}.s3.us-east-1.localhost"]
)
def test_virtual_hosts(web: urllib3.PoolManager, s3: Any, s3_url: str, bucket: str, host: str) -> None:
    """A bucket can be named by the host."""
    s3.put_object(Bucket=bucket, Key="a/b", Body=b"abc")
    headers = {"Host": host.format(bucket=bucket)}
    assert web.request("GET", f"{s3_url}/a/b", headers=headers).data == b"abc"
    assert b"<Key>a/b</Key>" in web.request("GET", f"{s3_url}/?list-type=2", headers=headers).data
    assert web.request("GET", f"{s3_url}/{bucket}/a/b", headers={"Host": "s3.localhost"}).data == b"abc"


def test_errors_have_s3s_shape(web: urllib3.PoolManager, s3_url: str, bucket: str) -> None:
    """Code, message, the key, and the request's id in document and header; none for HEAD, whose body is empty."""
    answer = web.request("GET", f"{s3_url}/{bucket}/a%26b")
    text = answer.data.decode()
    assert answer.status == 404
    assert answer.headers["Content-Type"] == "application/xml"
    assert "<Code>NoSuchKey</Code><Message>The specified key does not exist.</Message><Key>a&amp;b</Key>" in text
    assert f"<RequestId>{answer.headers['x-amz-request-id']}</RequestId><HostId>" in text
    head = web.request("HEAD", f"{s3_url}/{bucket}/a%26b")
    assert (head.status, head.data) == (404, b"")


def test_a_refused_upload_leaves_the_connection_usable(s3: Any, bucket: str) -> None:
    """Whether the client waits for 100-continue or has sent all of its body."""
    for _ in range(3):
        with refused("NoSuchBucket", 404):
            s3.put_object(Bucket="no-such-bucket", Key="k", Body=io.BytesIO(b"x" * 3 * MIB))
        s3.put_object(Bucket=bucket, Key="k", Body=b"abc")
        assert get(s3, bucket, "k") == b"abc"


def test_what_is_not_carried_out_says_so(s3: Any, bucket: str) -> None:
    """S3's own word for it; nothing is pretended."""
    key = base64.b64encode(bytes(32)).decode()
    with refused("NotImplemented", 501):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", SSECustomerAlgorithm="AES256", SSECustomerKey=key)
    with refused("NotImplemented", 501):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    with refused("NotImplemented", 501):
        s3.get_object_torrent(Bucket=bucket, Key="k")
    with refused("NoSuchVersion", 404):
        s3.get_object(Bucket=bucket, Key="k", VersionId="3HL4kqtJlcpXroDTDmJ")
    with refused("AccessDenied", 403):
        s3.list_objects_v2(Bucket=bucket, ExpectedBucketOwner="999999999999")
    with refused("AccessControlListNotSupported", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")


def test_a_client_that_goes_away_leaves_nothing(s3: Any, s3_url: str, s3_config: BackendConfig, bucket: str) -> None:
    """Half of a body is no object, and no file stays."""
    connection = http.client.HTTPConnection(urlsplit(s3_url).netloc)
    connection.putrequest("PUT", f"/{bucket}/k")
    connection.putheader("Content-Length", str(10 * MIB))
    connection.endheaders(b"x" * 5 * MIB)
    connection.close()
    incoming = Path(s3_config.home / "objects" / "incoming")
    s3.put_object(Bucket=bucket, Key="after", Body=b"x" * MIB)
    for _ in range(200):
        if not list(incoming.iterdir()):
            break
        s3.head_object(Bucket=bucket, Key="after")
    assert list(incoming.iterdir()) == []
    with refused("404", 404):
        s3.head_object(Bucket=bucket, Key="k")
