import base64
import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig

from backends.stores.checksums import Digests
from tests.wire.conftest import refused

MIB = 1024**2
PART = 5 * MIB
PARTS = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=4)


def begin(s3: Any, bucket: str, key: str = "k", **members: Any) -> str:
    upload: str = s3.create_multipart_upload(Bucket=bucket, Key=key, **members)["UploadId"]
    return upload


def send(s3: Any, bucket: str, upload: str, number: int, body: bytes, **members: Any) -> dict[str, Any]:
    answer = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, Body=body, **members)
    sums = {name: value for name, value in answer.items() if name.startswith("Checksum")}
    return {"PartNumber": number, "ETag": answer["ETag"], **sums}


def complete(s3: Any, bucket: str, upload: str, parts: list[dict[str, Any]], **members: Any) -> Any:
    return s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts}, **members
    )


def md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_boto3_sends_and_fetches_in_parts(s3: Any, bucket: str, algorithm: str) -> None:
    """upload_fileobj, download_fileobj; the ETag is that of S3: MD5 of the parts' MD5s, with their number."""
    data = os.urandom(2 * PART + 7)
    extra = {"ChecksumAlgorithm": algorithm, "Metadata": {"a": "1"}, "ContentType": "text/x", "Tagging": "t=1"}
    s3.upload_fileobj(io.BytesIO(data), bucket, "k", ExtraArgs=extra, Config=PARTS)
    found = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    digest = hashlib.md5(
        b"".join(md5(data[start : start + PART]) for start in (0, PART, 2 * PART)), usedforsecurity=False
    )
    assert found["ETag"] == f'"{digest.hexdigest()}-3"'
    assert (found["Metadata"], found["ContentType"], found["TagCount"]) == ({"a": "1"}, "text/x", 1)
    is_full = algorithm == "CRC64NVME"
    assert found["ChecksumType"] == ("FULL_OBJECT" if is_full else "COMPOSITE")
    assert found[f"Checksum{algorithm}"].endswith("=" if is_full else "-3")
    fetched = io.BytesIO()
    s3.download_fileobj(bucket, "k", fetched, Config=PARTS)
    assert fetched.getvalue() == data
    with ThreadPoolExecutor(3) as pool:  # each part by its number, as other clients fetch
        parts = list(pool.map(lambda n: s3.get_object(Bucket=bucket, Key="k", PartNumber=n)["Body"].read(), [1, 2, 3]))
    assert b"".join(parts) == data
    with refused("InvalidPartNumber", 416):
        s3.get_object(Bucket=bucket, Key="k", PartNumber=4)


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME"])
def test_the_whole_objects_checksum_comes_from_its_parts(s3: Any, bucket: str, algorithm: str) -> None:
    """Combined, never read again; it equals that of the same bytes put whole, and is checked if it is sent."""
    data = os.urandom(PART + 3)
    upload = begin(s3, bucket, ChecksumAlgorithm=algorithm, ChecksumType="FULL_OBJECT")
    parts = [
        send(s3, bucket, upload, n, body, ChecksumAlgorithm=algorithm)
        for n, body in ((1, data[:PART]), (2, data[PART:]))
    ]
    digests = Digests([algorithm])
    digests.update(data)
    name = f"Checksum{algorithm}"
    with refused("BadDigest", 400):
        complete(s3, bucket, upload, parts, **{name: parts[0][name]})
    answer = complete(s3, bucket, upload, parts, **{name: digests[algorithm]}, MpuObjectSize=len(data))
    assert (answer[name], answer["ChecksumType"]) == (digests[algorithm], "FULL_OBJECT")


def test_parts_may_come_again_and_in_any_order(s3: Any, bucket: str) -> None:
    """The last one sent of each number counts; numbers may have gaps; what is not named is lost."""
    upload = begin(s3, bucket)
    three = send(s3, bucket, upload, 30, b"end")
    send(s3, bucket, upload, 1, b"old" * PART)
    one = send(s3, bucket, upload, 1, b"n" * PART)
    send(s3, bucket, upload, 7, b"unnamed")
    complete(s3, bucket, upload, [one, three])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"n" * PART + b"end"


def test_nothing_is_seen_before_the_end(s3: Any, bucket: str) -> None:
    """Neither a new object nor a change of the old one; an aborted upload leaves nothing."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"old")
    upload = begin(s3, bucket)
    part = send(s3, bucket, upload, 1, b"new")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"old"
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"old"
    for act in (
        lambda: complete(s3, bucket, upload, [part]),
        lambda: send(s3, bucket, upload, 2, b"x"),
        lambda: s3.list_parts(Bucket=bucket, Key="k", UploadId=upload),
        lambda: s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload),
    ):
        with refused("NoSuchUpload", 404):
            act()


def test_what_cannot_be_completed(s3: Any, bucket: str) -> None:
    """S3's errors, and the upload goes on."""
    upload = begin(s3, bucket)
    one, two = send(s3, bucket, upload, 1, b"small"), send(s3, bucket, upload, 2, b"x")
    with refused("EntityTooSmall", 400):
        complete(s3, bucket, upload, [one, two])
    with refused("InvalidPartOrder", 400):
        complete(s3, bucket, upload, [two, one])
    with refused("InvalidPart", 400):
        complete(s3, bucket, upload, [{"PartNumber": 1, "ETag": two["ETag"]}])
    with refused("InvalidPart", 400):
        complete(s3, bucket, upload, [{"PartNumber": 3, "ETag": two["ETag"]}])
    with refused("MalformedXML", 400):
        complete(s3, bucket, upload, [])
    with refused("InvalidArgument", 400):
        send(s3, bucket, upload, 10_001, b"x")
    with refused("InvalidRequest", 400):
        complete(s3, bucket, upload, [two], MpuObjectSize=7)
    s3.put_object(Bucket=bucket, Key="k", Body=b"there")
    with refused("PreconditionFailed", 412):
        complete(s3, bucket, upload, [two], IfNoneMatch="*")
    assert (
        complete(s3, bucket, upload, [two])["ETag"]
        == f'"{hashlib.md5(md5(b"x"), usedforsecurity=False).hexdigest()}-1"'
    )
    with refused("InvalidRequest", 400):
        begin(s3, bucket, ChecksumAlgorithm="SHA256", ChecksumType="FULL_OBJECT")
    with refused("NoSuchBucket", 404):
        begin(s3, "no-such-bucket")


def test_parts_can_be_copied(s3: Any, bucket: str) -> None:
    """Whole objects and ranges; boto3's managed copy goes this way."""
    data = os.urandom(2 * PART + 7)
    s3.upload_fileobj(io.BytesIO(data), bucket, "source", Config=PARTS)
    s3.copy({"Bucket": bucket, "Key": "source"}, bucket, "copy", Config=PARTS)
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == data
    upload = begin(s3, bucket)
    members = {"Bucket": bucket, "Key": "k", "UploadId": upload, "PartNumber": 1, "CopySource": f"{bucket}/source"}
    result = s3.upload_part_copy(**members, CopySourceRange="bytes=5-14")["CopyPartResult"]
    assert result["ETag"] == f'"{md5(data[5:15]).hex()}"'
    with refused("InvalidRange", 416):
        s3.upload_part_copy(**members, CopySourceRange=f"bytes={3 * PART}-{4 * PART}")
    with refused("InvalidArgument", 400):
        s3.upload_part_copy(**members, CopySourceRange="5-14")
    complete(s3, bucket, upload, [{"PartNumber": 1, "ETag": result["ETag"]}])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == data[5:15]


def test_parts_are_listed(s3: Any, bucket: str) -> None:
    """By number, page by page, with their checksums."""
    upload = begin(s3, bucket, ChecksumAlgorithm="SHA256")
    for number in (3, 1, 2):
        send(s3, bucket, upload, number, b"%d" % number, ChecksumAlgorithm="SHA256")
    pages = list(
        s3.get_paginator("list_parts").paginate(
            Bucket=bucket, Key="k", UploadId=upload, PaginationConfig={"PageSize": 2}
        )
    )
    parts = [part for page in pages for part in page["Parts"]]
    assert [len(page["Parts"]) for page in pages] == [2, 1]
    assert [(part["PartNumber"], part["Size"], part["ETag"]) for part in parts] == [
        (number, 1, f'"{md5(b"%d" % number).hex()}"') for number in (1, 2, 3)
    ]
    assert parts[0]["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(b"1").digest()).decode()
    assert pages[0]["ChecksumAlgorithm"] == "SHA256"


def test_uploads_are_listed(s3: Any, bucket: str) -> None:
    """By key, then by time; with prefix and delimiter; page by page."""
    keys = ["a/1", "a/2", "b", "c +é", "c +é"]
    names = [begin(s3, bucket, key) for key in keys]
    whole = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [(upload["Key"], upload["UploadId"]) for upload in whole] == list(zip(keys, names, strict=True))
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2})
    assert [upload["UploadId"] for page in pages for upload in page["Uploads"]] == names
    rolled = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert [entry["Prefix"] for entry in rolled["CommonPrefixes"]] == ["a/"]
    assert [upload["Key"] for upload in rolled["Uploads"]] == keys[2:]
    some = s3.list_multipart_uploads(Bucket=bucket, Prefix="a/", EncodingType="url")
    assert [upload["Key"] for upload in some["Uploads"]] == keys[:2]


def test_a_bucket_goes_with_its_uploads(s3: Any, bucket: str) -> None:
    """Uploads under way do not keep a bucket."""
    upload = begin(s3, bucket)
    send(s3, bucket, upload, 1, b"x" * MIB)
    s3.delete_bucket(Bucket=bucket)
    with refused("NoSuchBucket", 404):
        send(s3, bucket, upload, 2, b"x")
