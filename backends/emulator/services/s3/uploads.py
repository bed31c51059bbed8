"""S3's operations on multipart uploads."""

from collections.abc import Sequence
from itertools import pairwise

from backends.emulator.protocol.models import Members
from backends.emulator.services.s3.arrival import take_in
from backends.emulator.services.s3.buckets import OWNER
from backends.emulator.services.s3.conditions import quoted, wanted_range, write_check
from backends.emulator.services.s3.objects import (
    checked_key,
    opened_source,
    requested_attributes,
    told_checksum,
    told_encryption,
)
from backends.emulator.services.s3.payload import Payload
from backends.errors import Conflict
from backends.sagemaker.readings import ServiceError
from backends.stores import PIECE_BYTES
from backends.stores.buckets import Buckets, Checksum, Part
from backends.stores.checksums import COMPOSITE, DEFAULT_ALGORITHM, FULL_OBJECT, combined, composite, is_crc
from backends.stores.uploads import Upload, Uploads

_MOST_PARTS = 10_000
_LARGEST_PAGE = 1000
_SMALLEST_PART_BYTES = 5 * 1024**2


class UploadOperations:
    """The operations of :class:`S3` on multipart uploads."""

    def __init__(self, buckets: Buckets, uploads: Uploads) -> None:
        self._buckets = buckets
        self._uploads = uploads

    def create_multipart_upload(self, request: Members) -> Members:
        """CreateMultipartUpload."""
        algorithm = request.get("ChecksumAlgorithm", DEFAULT_ALGORITHM)
        usual = FULL_OBJECT if algorithm == DEFAULT_ALGORITHM else COMPOSITE
        checksum_type = request.get("ChecksumType", usual)
        if checksum_type == (COMPOSITE if algorithm == DEFAULT_ALGORITHM else FULL_OBJECT) and (
            algorithm == DEFAULT_ALGORITHM or not is_crc(algorithm)
        ):
            text = f"The {checksum_type} checksum type cannot be used with the {algorithm.lower()} checksum algorithm."
            raise ServiceError("InvalidRequest", text)
        upload = self._uploads.begin(
            request["Bucket"],
            checked_key(request["Key"]),
            requested_attributes(request),
            algorithm=algorithm,
            checksum_type=checksum_type,
        )
        told = {"ChecksumAlgorithm": algorithm, "ChecksumType": checksum_type} if "ChecksumAlgorithm" in request else {}
        names = {"Bucket": upload.bucket, "Key": upload.key, "UploadId": upload.name}
        return names | told | told_encryption(upload.attributes)

    async def upload_part(self, request: Members) -> Members:
        """UploadPart."""
        number, upload = _number(request), self._upload(request)
        payload: Payload = request["Body"]
        part = await take_in(
            payload,
            lambda algorithms: self._uploads.arriving(
                upload, number, payload.size_bytes, {upload.algorithm, *algorithms}
            ),
            lambda arriving: self._uploads.put_part(upload, number, arriving),
        )
        told = {f"Checksum{upload.algorithm}": part.checksum} if payload.checksum_algorithm else {}
        return {"ETag": quoted(part.etag), **told, **told_encryption(upload.attributes)}

    def upload_part_copy(self, request: Members) -> Members:
        """UploadPartCopy."""
        number, upload = _number(request), self._upload(request)
        with opened_source(self._buckets, request) as (found, stream):
            start, end = 0, found.size_bytes
            if "CopySourceRange" in request:
                wanted = wanted_range(request["CopySourceRange"], found.size_bytes)
                if wanted is None:
                    text = "The x-amz-copy-source-range value must be of the form bytes=first-last"
                    raise ServiceError("InvalidArgument", text)
                start, end = wanted
            stream.seek(start)
            with self._uploads.arriving(upload, number, end - start, {upload.algorithm}) as arriving:
                while arriving.size_bytes < end - start:
                    arriving.write(stream.read(min(PIECE_BYTES, end - start - arriving.size_bytes)))
                part = self._uploads.put_part(upload, number, arriving)
        return {"CopyPartResult": {"ETag": quoted(part.etag), "LastModified": part.modified}}

    def complete_multipart_upload(self, request: Members) -> Members:
        """CompleteMultipartUpload."""
        upload = self._upload(request)
        parts = _chosen(self._uploads.parts(upload), request, upload.algorithm)
        checksum = _checksum(upload, parts)
        claimed = request.get(f"Checksum{upload.algorithm}")
        if claimed is not None and claimed.partition("-")[0] != checksum.value.partition("-")[0]:
            text = f"The {upload.algorithm} you specified did not match the calculated checksum."
            raise ServiceError("BadDigest", text)
        size_bytes = sum(part.size_bytes for part in parts)
        if request.get("MpuObjectSize", size_bytes) != size_bytes:
            text = f"The provided 'x-amz-mp-object-size' header does not match what was computed: {size_bytes}."
            raise ServiceError("InvalidRequest", text)
        try:
            made = self._uploads.complete(upload, parts, checksum=checksum, check=write_check(request))
        except Conflict as exc:
            raise _invalid_part(upload.name) from exc
        return {
            "Location": f"/{upload.bucket}/{upload.key}",
            "Bucket": upload.bucket,
            "Key": upload.key,
            "ETag": quoted(made.etag),
            **told_checksum(checksum),
            **told_encryption(upload.attributes),
        }

    def abort_multipart_upload(self, request: Members) -> Members:
        """AbortMultipartUpload."""
        self._uploads.abort(self._upload(request))
        return {}

    def list_parts(self, request: Members) -> Members:
        """ListParts."""
        upload, after = self._upload(request), int(request.get("PartNumberMarker", 0))
        size = min(request.get("MaxParts", _LARGEST_PAGE), _LARGEST_PAGE)
        found = self._uploads.parts(upload, after=after, limit=size + 1)
        page = found[:size]
        return {
            "Bucket": upload.bucket,
            "Key": upload.key,
            "UploadId": upload.name,
            "PartNumberMarker": after,
            "NextPartNumberMarker": page[-1].number if page else 0,
            "MaxParts": size,
            "IsTruncated": len(found) > size,
            "Parts": [
                {
                    "PartNumber": part.number,
                    "LastModified": part.modified,
                    "ETag": quoted(part.etag),
                    "Size": part.size_bytes,
                    f"Checksum{upload.algorithm}": part.checksum,
                }
                for part in page
            ],
            "Initiator": OWNER,
            "Owner": OWNER,
            "StorageClass": upload.attributes.headers.get("StorageClass", "STANDARD"),
            "ChecksumAlgorithm": upload.algorithm,
            "ChecksumType": upload.checksum_type,
        }

    def _upload(self, request: Members) -> Upload:
        return self._uploads.find(request["Bucket"], request["Key"], request["UploadId"])


def _number(request: Members) -> int:
    number: int = request["PartNumber"]
    if not 0 < number <= _MOST_PARTS:
        text = f"Part number must be an integer between 1 and {_MOST_PARTS}, inclusive"
        raise ServiceError("InvalidArgument", text, ArgumentName="partNumber", ArgumentValue=number)
    return number


def _chosen(there: Sequence[Part], request: Members, algorithm: str) -> list[Part]:
    """The parts that a completion names. Raises ServiceError: they are not those that are there, or too small."""
    wanted = request.get("MultipartUpload", {}).get("Parts", [])
    numbers = [part.get("PartNumber", 0) for part in wanted]
    if not wanted:
        text = "The XML you provided was not well-formed or did not validate against our published schema"
        raise ServiceError("MalformedXML", text)
    if any(first >= second for first, second in pairwise(numbers)):
        text = "The list of parts was not in ascending order. Parts must be ordered by part number."
        raise ServiceError("InvalidPartOrder", text)
    by_number = {part.number: part for part in there}
    chosen = []
    for number, told in zip(numbers, wanted, strict=True):
        part = by_number.get(number)
        if part is None or told.get("ETag", "").strip('"') != part.etag:
            raise _invalid_part(request["UploadId"], number)
        if told.get(f"Checksum{algorithm}", part.checksum) != part.checksum:
            raise _invalid_part(request["UploadId"], number)
        chosen.append(part)
    for part in chosen[:-1]:
        if part.size_bytes < _SMALLEST_PART_BYTES:
            text = "Your proposed upload is smaller than the minimum allowed size"
            raise ServiceError(
                "EntityTooSmall",
                text,
                ProposedSize=part.size_bytes,
                MinSizeAllowed=_SMALLEST_PART_BYTES,
                PartNumber=part.number,
                ETag=part.etag,
            )
    return chosen


def _checksum(upload: Upload, parts: Sequence[Part]) -> Checksum:
    if upload.checksum_type == COMPOSITE:
        return Checksum(upload.algorithm, composite(upload.algorithm, [part.checksum for part in parts]))
    sums = [(part.checksum, part.size_bytes) for part in parts]
    return Checksum(upload.algorithm, combined(upload.algorithm, sums))


def _invalid_part(upload: str, number: int | None = None) -> ServiceError:
    text = (
        "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified "
        "entity tag may not match the part's entity tag."
    )
    return ServiceError("InvalidPart", text, UploadId=upload, **({} if number is None else {"PartNumber": number}))
