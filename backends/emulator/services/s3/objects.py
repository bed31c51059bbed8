"""S3's operations on objects."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import accumulate
from typing import BinaryIO
from urllib.parse import parse_qsl, unquote

from backends.emulator.protocol.models import Members
from backends.emulator.protocol.serialize import FilePart
from backends.emulator.services.s3.arrival import take_in
from backends.emulator.services.s3.buckets import FULL_CONTROL, check_acl, check_version, not_implemented
from backends.emulator.services.s3.conditions import check_read, quoted, wanted_range, write_check
from backends.emulator.services.s3.payload import Payload
from backends.naming import MAX_KEY_BYTES
from backends.sagemaker.readings import ServiceError
from backends.stores import PIECE_BYTES
from backends.stores.blobs import SMALL_BYTES, Arriving
from backends.stores.buckets import Attributes, Buckets, Checksum, StoredObject
from backends.stores.checksums import DEFAULT_ALGORITHM

_MOST_TAGS = 10
_MOST_DELETED = 1000
_DEFAULT_TYPE = "binary/octet-stream"
_DESCRIBING = ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "Expires")
_PLACING = ("WebsiteRedirectLocation", "StorageClass", "ServerSideEncryption", "SSEKMSKeyId")
_UNSUPPORTED = {
    "SSECustomerAlgorithm": "encryption with a customer's key",
    "CopySourceSSECustomerAlgorithm": "encryption with a customer's key",
    "ObjectLockMode": "object lock",
    "ObjectLockLegalHoldStatus": "object lock",
    "WriteOffsetBytes": "appending",
}


class ObjectOperations:
    """The operations of :class:`S3` on objects."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets

    async def put_object(self, request: Members) -> Members:
        """PutObject."""
        payload: Payload = request["Body"]
        bucket, key, check = request["Bucket"], checked_key(request["Key"]), write_check(request)
        attributes = requested_attributes(request)
        algorithm = payload.checksum_algorithm or DEFAULT_ALGORITHM

        def receiving(algorithms: set[str]) -> AbstractContextManager[Arriving]:
            return self._buckets.arriving(bucket, key, {algorithm, *algorithms})

        def finish(arriving: Arriving, *, may_wait: bool = True) -> StoredObject:
            checksum = Checksum(algorithm, arriving.digests[algorithm])
            return self._buckets.put(
                bucket, key, arriving, attributes, checksum=checksum, check=check, may_wait=may_wait
            )

        made = await take_in(payload, receiving, finish, hurried=partial(finish, may_wait=False))
        return {"ETag": quoted(made.etag), **told_checksum(made.checksum), **told_encryption(made.attributes)}

    # To look something up in the index, and to read a small object there, takes less than to hand it to a thread.

    async def get_object(self, request: Members) -> Members:
        """GetObject, or a range or a part of it."""
        found, stream = self._buckets.open(request["Bucket"], request["Key"])
        with ExitStack() as opened:
            opened.enter_context(stream)
            answer, start, end = self._described(found, request)
            stream.seek(start)
            if found.size_bytes <= SMALL_BYTES:
                return answer | {"Body": stream.read(end - start)}
            if end - start <= PIECE_BYTES:
                return answer | {"Body": await asyncio.to_thread(stream.read, end - start)}
            opened.pop_all()  # whoever sends the body closes it
        return answer | {"Body": FilePart(stream, start, end - start)}

    async def head_object(self, request: Members) -> Members:
        """HeadObject."""
        found = self._buckets.stat(request["Bucket"], request["Key"])
        return self._described(found, request)[0]

    def get_object_attributes(self, request: Members) -> Members:
        """GetObjectAttributes."""
        found = self._buckets.stat(request["Bucket"], request["Key"])
        parts = self._buckets.parts_of(found.bucket, found.key)
        checksum = told_checksum(found.checksum)
        told: Members = {
            "ETag": found.etag,
            "Checksum": checksum or None,
            "ObjectParts": {"TotalPartsCount": len(parts)} if parts else None,
            "StorageClass": found.attributes.headers.get("StorageClass", "STANDARD"),
            "ObjectSize": found.size_bytes,
        }
        return {name: told[name] for name in request["ObjectAttributes"]} | {"LastModified": found.modified}

    def delete_object(self, request: Members) -> Members:
        """DeleteObject."""
        self._buckets.require(request["Bucket"])
        self._buckets.delete(request["Bucket"], request["Key"], check=write_check(request))
        return {}

    def delete_objects(self, request: Members) -> Members:
        """DeleteObjects."""
        self._buckets.require(request["Bucket"])
        entries = request["Delete"]["Objects"]
        if not 0 < len(entries) <= _MOST_DELETED:
            text = "The XML you provided was not well-formed or did not validate against our published schema"
            raise ServiceError("MalformedXML", text)
        deleted, errors = [], []
        for entry in entries:
            try:
                check_version(entry)
                check = write_check({"Key": entry["Key"], "IfMatch": entry.get("ETag")})
                self._buckets.delete(request["Bucket"], checked_key(entry["Key"]), check=check)
                deleted.append({name: entry[name] for name in ("Key", "VersionId") if name in entry})
            except ServiceError as exc:
                errors.append({"Key": entry["Key"], "Code": exc.code, "Message": exc.message})
        return {"Errors": errors} | ({} if request["Delete"].get("Quiet") else {"Deleted": deleted})

    def copy_object(self, request: Members) -> Members:
        """CopyObject."""
        bucket, key = request["Bucket"], checked_key(request["Key"])
        with opened_source(self._buckets, request) as (found, stream):
            is_same = (found.bucket, found.key) == (bucket, key)
            if is_same and request.get("MetadataDirective") != "REPLACE" and not {*_PLACING} & request.keys():
                text = (
                    "This copy request is illegal because it is trying to copy an object to itself without changing "
                    "the object's metadata, storage class, website redirect location or encryption attributes."
                )
                raise ServiceError("InvalidRequest", text)
            source_algorithm = found.checksum.algorithm if found.checksum else DEFAULT_ALGORITHM
            algorithm = request.get("ChecksumAlgorithm", source_algorithm)
            with self._buckets.arriving(bucket, key, {algorithm}) as arriving:
                while piece := stream.read(PIECE_BYTES):
                    arriving.write(piece)
                made = self._buckets.put(
                    bucket,
                    key,
                    arriving,
                    _copied_attributes(found.attributes, request),
                    checksum=Checksum(algorithm, arriving.digests[algorithm]),
                    check=write_check(request),
                )
        result = {"ETag": quoted(made.etag), "LastModified": made.modified, **told_checksum(made.checksum)}
        return {"CopyObjectResult": result, **told_encryption(made.attributes)}

    def get_object_tagging(self, request: Members) -> Members:
        """GetObjectTagging."""
        tags = self._buckets.stat(request["Bucket"], request["Key"]).attributes.tags
        return {"TagSet": [{"Key": name, "Value": value} for name, value in tags.items()]}

    def put_object_tagging(self, request: Members) -> Members:
        """PutObjectTagging."""
        tags = _checked_tags([(tag["Key"], tag["Value"]) for tag in request["Tagging"]["TagSet"]])
        self._buckets.set_tags(request["Bucket"], request["Key"], tags)
        return {}

    def delete_object_tagging(self, request: Members) -> Members:
        """DeleteObjectTagging."""
        self._buckets.set_tags(request["Bucket"], request["Key"], {})
        return {}

    def get_object_acl(self, request: Members) -> Members:
        """GetObjectAcl: all is the owner's."""
        self._buckets.stat(request["Bucket"], request["Key"])
        return FULL_CONTROL

    def put_object_acl(self, request: Members) -> Members:
        """PutObjectAcl: only what is so anyway."""
        self._buckets.stat(request["Bucket"], request["Key"])
        check_acl(request)
        return {}

    def _described(self, found: StoredObject, request: Members) -> tuple[Members, int, int]:
        """The members that GET and HEAD share, the first byte that is wanted and the one after the last."""
        check_read(found, request)
        attributes = found.attributes
        answer: Members = {
            "AcceptRanges": "bytes",
            "LastModified": found.modified,
            "ETag": quoted(found.etag),
            "ContentType": attributes.content_type,
            "Metadata": attributes.metadata,
            **{name: attributes.headers[name] for name in _DESCRIBING if name in attributes.headers},
            **{name: attributes.headers[name] for name in _PLACING if name in attributes.headers},
            **told_encryption(attributes),
        }
        if "Expires" in answer:
            answer["Expires"] = datetime.fromisoformat(answer["Expires"])
        if answer.get("StorageClass") == "STANDARD":
            del answer["StorageClass"]
        if attributes.tags:
            answer["TagCount"] = len(attributes.tags)
        for name in ("ContentType", *_DESCRIBING):
            if f"Response{name}" in request:
                answer[name] = request[f"Response{name}"]
        wanted = wanted_range(request.get("Range"), found.size_bytes)
        if "PartNumber" in request:
            wanted = self._part(found, request["PartNumber"], answer)
        if wanted:
            answer["ContentRange"] = f"bytes {wanted[0]}-{wanted[1] - 1}/{found.size_bytes}"
        elif request.get("ChecksumMode") == "ENABLED":
            answer |= told_checksum(found.checksum)
        start, end = wanted or (0, found.size_bytes)
        return answer | {"ContentLength": end - start}, start, end

    def _part(self, found: StoredObject, number: int, answer: Members) -> tuple[int, int] | None:
        sizes = [part.size_bytes for part in self._buckets.parts_of(found.bucket, found.key)]
        if sizes:
            answer["PartsCount"] = len(sizes)
        ends = list(accumulate(sizes or [found.size_bytes]))
        if not 0 < number <= len(ends):
            raise ServiceError("InvalidPartNumber", "The requested partnumber is not satisfiable", status=416)
        start = ends[number - 2] if number > 1 else 0
        return (start, ends[number - 1]) if found.size_bytes else None


@contextmanager
def opened_source(buckets: Buckets, request: Members) -> Iterator[tuple[StoredObject, BinaryIO]]:
    """What a request copies, if its CopySourceIf… members allow.

    Raises:
        ServiceError: 412, or the CopySource names nothing.
    """
    path, _, version = request["CopySource"].partition("?versionId=")
    bucket, _, key = unquote(path).removeprefix("/").partition("/")
    if not bucket or not key:
        text = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        raise ServiceError("InvalidArgument", text, ArgumentName="x-amz-copy-source")
    check_version({"VersionId": version or None})
    found, stream = buckets.open(bucket, key)
    with stream:
        check_read(found, request, prefix="CopySource")
        yield found, stream


def requested_attributes(request: Members) -> Attributes:
    """What the headers of a write say of the object. Raises ServiceError: they ask for what is not there."""
    for name, what in _UNSUPPORTED.items():
        if name in request:
            raise not_implemented(what)
    check_acl(request)
    headers = {name: request[name] for name in (*_DESCRIBING, *_PLACING) if name in request}
    if "Expires" in headers:
        headers["Expires"] = headers["Expires"].isoformat()
    codings = [part.strip() for part in headers.pop("ContentEncoding", "").split(",")]
    if kept := ", ".join(part for part in codings if part not in {"", "aws-chunked"}):
        headers["ContentEncoding"] = kept
    try:
        tags = parse_qsl(
            request.get("Tagging", ""), keep_blank_values=True, strict_parsing=bool(request.get("Tagging"))
        )
    except ValueError as exc:
        text = "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters."
        raise ServiceError("InvalidArgument", text) from exc
    return Attributes(
        request.get("ContentType", _DEFAULT_TYPE), request.get("Metadata", {}), headers, _checked_tags(tags)
    )


def checked_key(key: str) -> str:
    """Raises ServiceError: the key is too long, or no Unicode."""
    try:
        length = len(key.encode())
    except UnicodeEncodeError as exc:
        raise ServiceError("InvalidURI", "Couldn't parse the specified URI.") from exc
    if length > MAX_KEY_BYTES:
        text = "Your key is too long"
        raise ServiceError("KeyTooLongError", text, Size=length, MaxSizeAllowed=MAX_KEY_BYTES)
    return key


def told_checksum(checksum: Checksum | None) -> Members:
    """*checksum* as responses hold it."""
    return {f"Checksum{checksum.algorithm}": checksum.value, "ChecksumType": checksum.type} if checksum else {}


def told_encryption(attributes: Attributes) -> Members:
    """What S3 says of encryption at rest: since 2023 every object has it."""
    return {"ServerSideEncryption": attributes.headers.get("ServerSideEncryption", "AES256")} | {
        name: attributes.headers[name] for name in ("SSEKMSKeyId",) if name in attributes.headers
    }


def _copied_attributes(source: Attributes, request: Members) -> Attributes:
    asked = requested_attributes(request)
    copied = asked
    if request.get("MetadataDirective") != "REPLACE":
        described = {name: source.headers[name] for name in _DESCRIBING if name in source.headers}
        placed = {name: asked.headers[name] for name in _PLACING if name in asked.headers}
        copied = replace(source, headers=described | placed)
    return replace(copied, tags=asked.tags if request.get("TaggingDirective") == "REPLACE" else source.tags)


def _checked_tags(tags: list[tuple[str, str]]) -> Mapping[str, str]:
    if len(tags) > _MOST_TAGS:
        raise ServiceError("BadRequest", f"Object tags cannot be greater than {_MOST_TAGS}")
    named = dict(tags)
    if len(named) < len(tags):
        raise ServiceError("InvalidTag", "Cannot provide multiple Tags with the same key")
    if any(not 0 < len(name) <= 128 for name in named):
        raise ServiceError("InvalidTag", "The TagKey you have provided is invalid")
    if any(len(value) > 256 for value in named.values()):
        raise ServiceError("InvalidTag", "The TagValue you have provided is invalid")
    return named
