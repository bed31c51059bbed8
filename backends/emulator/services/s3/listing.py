"""S3's listings: of objects in their two versions and a third that knows of versions, and of uploads."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar
from urllib.parse import quote

from backends.emulator.protocol.models import Members
from backends.emulator.services.s3.buckets import OWNER, read_token, token_behind
from backends.emulator.services.s3.conditions import quoted
from backends.sagemaker.readings import ServiceError
from backends.stores.buckets import Buckets, StoredObject
from backends.stores.uploads import Upload, Uploads

_LARGEST_PAGE = 1000
_ENCODED = ("Delimiter", "KeyMarker", "Marker", "NextKeyMarker", "NextMarker", "Prefix", "StartAfter")

Entry = TypeVar("Entry", StoredObject, Upload)


class ListOperations:
    """The operations of :class:`S3` that list what is in a bucket."""

    def __init__(self, buckets: Buckets, uploads: Uploads) -> None:
        self._buckets = buckets
        self._uploads = uploads

    def list_objects_v2(self, request: Members) -> Members:
        """ListObjectsV2."""
        after = read_token(request.get("ContinuationToken")) or request.get("StartAfter", "")
        answer = self._page(request, after, _owned if request.get("FetchOwner") else _described)
        last = answer.pop("NextMarker", None)
        answer["KeyCount"] = len(answer["Contents"]) + len(answer["CommonPrefixes"])
        if last is not None:
            answer["NextContinuationToken"] = token_behind(last)
        return _told(request, answer, "ContinuationToken", "StartAfter")

    def list_objects(self, request: Members) -> Members:
        """ListObjects. The next marker is told only with a delimiter; without, it is the last key."""
        answer = self._page(request, request.get("Marker", ""), _owned)
        if not request.get("Delimiter"):
            answer.pop("NextMarker", None)
        return _told(request, answer | {"Marker": request.get("Marker", "")})

    def list_object_versions(self, request: Members) -> Members:
        """ListObjectVersions: the one version that each object has."""
        answer = self._page(request, request.get("KeyMarker", ""), _version)
        answer["Versions"] = answer.pop("Contents")
        last = answer.pop("NextMarker", None)
        if last is not None:
            answer |= {"NextKeyMarker": last, "NextVersionIdMarker": "null"}
        markers = {"KeyMarker": request.get("KeyMarker", ""), "VersionIdMarker": request.get("VersionIdMarker", "")}
        return _told(request, answer | markers)

    def list_multipart_uploads(self, request: Members) -> Members:
        """ListMultipartUploads: by key, then by time."""
        prefix, delimiter, size = request.get("Prefix", ""), request.get("Delimiter", ""), _size(request, "MaxUploads")
        after = request.get("KeyMarker", ""), request.get("UploadIdMarker", "")
        under_way = self._uploads.under_way(request["Bucket"], prefix=prefix)
        page, last = _cut(_rolled(under_way, prefix, delimiter, after), size)
        answer: Members = {
            "Bucket": request["Bucket"],
            "KeyMarker": after[0],
            "UploadIdMarker": after[1],
            "MaxUploads": size,
            "IsTruncated": last is not None,
            "Uploads": [_upload(entry) for entry in page if isinstance(entry, Upload)],
            "CommonPrefixes": [entry for entry in page if isinstance(entry, str)],
        }
        if last is not None:
            answer["NextKeyMarker"] = last if isinstance(last, str) else last.key
            answer["NextUploadIdMarker"] = "" if isinstance(last, str) else last.name
        return _told(request, answer)

    def _page(self, request: Members, after: str, describe: Callable[[StoredObject], Members]) -> Members:
        size = _size(request, "MaxKeys")
        entries = self._buckets.entries(
            request["Bucket"],
            prefix=request.get("Prefix", ""),
            delimiter=request.get("Delimiter", ""),
            after=after,
            page_rows=size + 1,
        )
        page, last = _cut(entries, size)
        answer: Members = {
            "Name": request["Bucket"],
            "MaxKeys": size,
            "IsTruncated": last is not None,
            "Contents": [describe(entry) for entry in page if isinstance(entry, StoredObject)],
            "CommonPrefixes": [entry for entry in page if isinstance(entry, str)],
        }
        if last is not None:
            answer["NextMarker"] = last if isinstance(last, str) else last.key
        return answer


def _cut(entries: Iterable[Entry | str], size: int) -> tuple[list[Entry | str], Entry | str | None]:
    """The first *size* of *entries*, and the last of those if more come behind it."""
    found = list(islice(entries, size + 1))
    return found[:size], found[size - 1] if len(found) > size > 0 else None


def _size(request: Members, name: str) -> int:
    size: int = request.get(name, _LARGEST_PAGE)
    if size < 0:
        raise ServiceError("InvalidArgument", f"Argument {name} must be an integer between 0 and 2147483647")
    return min(size, _LARGEST_PAGE)


def _rolled(uploads: Iterable[Upload], prefix: str, delimiter: str, after: tuple[str, str]) -> Iterator[Upload | str]:
    """*uploads* with those that go on behind the *delimiter* as one string, from behind *after* on."""
    key_marker, upload_marker = (after[0].encode(), after[1])
    shown = ""
    for upload in uploads:
        _, found, _ = upload.key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
        if found:
            shared = upload.key[: upload.key.index(delimiter, len(prefix)) + len(delimiter)]
            if shared != shown and shared.encode() > key_marker:
                yield shared
            shown = shared
        elif upload.key.encode() > key_marker or (
            upload.key.encode() == key_marker and upload_marker and upload.name > upload_marker
        ):
            yield upload


def _told(request: Members, answer: Members, *echoed: str) -> Members:
    """*answer* with what every listing repeats of its *request*, and keys encoded if that was asked for."""
    answer |= {name: request[name] for name in ("Prefix", "Delimiter", "EncodingType", *echoed) if name in request}
    answer.setdefault("Prefix", "")
    encode = _quote if request.get("EncodingType") == "url" else str
    answer |= {name: encode(answer[name]) for name in _ENCODED if name in answer}
    for entries in ("Contents", "Versions", "Uploads"):
        for entry in answer.get(entries, ()):
            entry["Key"] = encode(entry["Key"])
    answer["CommonPrefixes"] = [{"Prefix": encode(prefix)} for prefix in answer["CommonPrefixes"]]
    return answer


def _quote(text: str) -> str:
    return quote(text, safe="/*-._")


def _described(found: StoredObject) -> Members:
    described: Members = {
        "Key": found.key,
        "LastModified": found.modified,
        "ETag": quoted(found.etag),
        "Size": found.size_bytes,
        "StorageClass": found.attributes.headers.get("StorageClass", "STANDARD"),
    }
    if found.checksum:
        described |= {"ChecksumAlgorithm": [found.checksum.algorithm], "ChecksumType": found.checksum.type}
    return described


def _owned(found: StoredObject) -> Members:
    return _described(found) | {"Owner": OWNER}


def _version(found: StoredObject) -> Members:
    return _owned(found) | {"VersionId": "null", "IsLatest": True}


def _upload(upload: Upload) -> Members:
    return {
        "Key": upload.key,
        "UploadId": upload.name,
        "Initiated": upload.created,
        "StorageClass": upload.attributes.headers.get("StorageClass", "STANDARD"),
        "Owner": OWNER,
        "Initiator": OWNER,
        "ChecksumAlgorithm": upload.algorithm,
        "ChecksumType": upload.checksum_type,
    }
