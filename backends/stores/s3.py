"""Objects in S3: AWS's own, or any server that speaks its protocol, through boto3.

Large objects travel in parts, several at once; a multipart upload shows nothing until it is complete,
so writes are atomic as the contract asks. boto3 is imported when a connection is made, not before.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from backends.base import ObjectStore
from backends.errors import BackendError, BackendUnavailable, NotFound
from backends.naming import split_uri
from backends.specs import ObjectInfo
from backends.stores import PIECE_BYTES, pieces, stream_of

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.literals import BucketLocationConstraintType

_PART_BYTES = 8 * 1024**2
_CONCURRENT_PARTS = 4
_MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_OVERLOADED = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "500", "502", "503", "504"}


class S3Store(ObjectStore):
    """An object store in S3 through *client*, which stays the caller's to close.

    Listings carry no content type (S3 does not send it): it is the default there.
    """

    def __init__(self, client: "S3Client") -> None:
        from boto3.s3.transfer import TransferConfig  # noqa: PLC0415  heavy

        self._client = client
        self._owned = False
        self._transfer = TransferConfig(
            multipart_threshold=_PART_BYTES,
            multipart_chunksize=_PART_BYTES,
            max_concurrency=_CONCURRENT_PARTS,
        )
        # How many parts of a stream may wait in memory; s3transfer reads it, boto3 has no argument for it.
        self._transfer.max_in_memory_upload_chunks = _CONCURRENT_PARTS

    @classmethod
    def connect(
        cls,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
    ) -> Self:
        """A store with a client of its own.

        Without *endpoint_url* it is AWS's S3. Without keys boto3 looks for credentials in its own
        places; pass any pair of words to a local server, so that real ones are never sent there.
        """
        import boto3  # noqa: PLC0415  heavy
        from botocore.config import Config  # noqa: PLC0415  heavy

        elsewhere = Config(
            # Buckets are not host names on a local server, and few know AWS's trailing checksums.
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        session = boto3.Session(
            aws_access_key_id=access_key_id, aws_secret_access_key=secret_access_key, region_name=region
        )
        config = Config(retries={"mode": "standard", "max_attempts": 5})
        client = session.client(
            "s3", endpoint_url=endpoint_url, config=config.merge(elsewhere) if endpoint_url else config
        )
        store = cls(client)
        store._owned = True
        return store

    # The contract of all that follows without docstring is ObjectStore's.

    def ensure_bucket(self, bucket: str) -> None:
        split_uri(f"s3://{bucket}", key_required=False)
        try:
            with self._translated("bucket", bucket):
                self._client.head_bucket(Bucket=bucket)
        except NotFound:
            self._create_bucket(bucket)

    def _create_bucket(self, bucket: str) -> None:
        region = self._client.meta.region_name
        owned = self._client.exceptions.BucketAlreadyOwnedByYou
        with self._translated("bucket", bucket):
            try:
                if region == "us-east-1":  # the one region that may not be named
                    self._client.create_bucket(Bucket=bucket)
                else:
                    place: BucketLocationConstraintType = region  # type: ignore[assignment]  # any region's name
                    self._client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": place})
            except owned:
                pass  # another process was quicker

    def write(self, uri: str, source: BinaryIO, *, content_type: str = "application/octet-stream") -> ObjectInfo:
        bucket, key = split_uri(uri)
        head, rest = _first_part(source)
        if len(head) < _PART_BYTES:
            return self._put_whole(bucket, key, head, content_type)
        with self._translated("object", uri):
            self._client.upload_fileobj(
                stream_of(chain([head], rest)),
                bucket,
                key,
                ExtraArgs={"ContentType": content_type},
                Config=self._transfer,
            )
        return self.stat(uri)

    def _put_whole(self, bucket: str, key: str, data: bytes, content_type: str) -> ObjectInfo:
        uri = f"s3://{bucket}/{key}"
        with self._translated("object", uri):
            self._client.put_object(Bucket=bucket, Key=key, Body=data, ContentType=content_type)
        return self.stat(uri)  # the answer's Date is not yet the object's time

    def reader(self, uri: str) -> BinaryIO:
        bucket, key = split_uri(uri)
        with self._translated("object", uri):
            body = self._client.get_object(Bucket=bucket, Key=key)["Body"]
        return stream_of(_Body(body, partial(self._translated, "object", uri)))

    def stat(self, uri: str) -> ObjectInfo:
        bucket, key = split_uri(uri)
        with self._translated("object", uri):
            answer = self._client.head_object(Bucket=bucket, Key=key)
        return ObjectInfo(
            uri=uri,
            size_bytes=answer["ContentLength"],
            etag=answer["ETag"].strip('"'),
            modified=answer["LastModified"],
            content_type=answer["ContentType"],
        )

    def delete(self, uri: str) -> None:
        bucket, key = split_uri(uri)
        try:
            with self._translated("object", uri):
                self._client.delete_object(Bucket=bucket, Key=key)
        except NotFound:
            pass  # the whole bucket is gone

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        bucket, start = split_uri(prefix, key_required=False)
        pages = iter(self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start))
        while True:
            with self._translated("bucket", bucket):
                page = next(pages, None)
            if page is None:
                return
            for entry in page.get("Contents", []):
                yield ObjectInfo(
                    uri=f"s3://{bucket}/{entry['Key']}",
                    size_bytes=entry["Size"],
                    etag=entry["ETag"].strip('"'),
                    modified=entry["LastModified"],
                )

    def download(self, uri: str, path: Path) -> None:
        """As the contract says; a large object's parts are fetched several at once."""
        bucket, key = split_uri(uri)
        with self._translated("object", uri):
            self._client.download_file(bucket, key, str(path), Config=self._transfer)

    def close(self) -> None:
        if self._owned:
            self._client.close()

    @contextmanager
    def _translated(self, kind: str, name: str) -> Iterator[None]:
        """Restate what boto3 and botocore raise as ours."""
        from boto3.exceptions import Boto3Error  # noqa: PLC0415  heavy
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  heavy

        try:
            yield
        except ClientError as exc:
            raise self._restated(kind, name, exc) from exc
        except Boto3Error as exc:
            # boto3 packs a failed transfer's ClientError into an error of its own.
            cause = exc.__context__
            if isinstance(cause, ClientError):
                raise self._restated(kind, name, cause) from exc
            raise BackendError(f"{kind} {name!r} at {self._place}: {exc}", kind=kind, name=name) from exc
        except BotoCoreError as exc:
            raise BackendUnavailable(
                f"{kind} {name!r}: S3 at {self._place} could not be reached: {exc}. "
                "Is the address right, the server up, and are there credentials for it?",
                kind=kind,
                name=name,
                reason=str(exc),
            ) from exc

    def _restated(self, kind: str, name: str, exc: "ClientError") -> BackendError:
        code = exc.response.get("Error", {}).get("Code", "")
        text = exc.response.get("Error", {}).get("Message", "")
        sentence = f"{kind} {name!r} at {self._place}: {code}: {text}"
        if code in _MISSING:
            return NotFound(f"{sentence}. Nothing is stored there.", kind=kind, name=name, reason=code)
        if code in _OVERLOADED:
            return BackendUnavailable(f"{sentence}. Try again later.", kind=kind, name=name, reason=code)
        return BackendError(sentence, kind=kind, name=name, reason=code)

    @property
    def _place(self) -> str:
        return self._client.meta.endpoint_url


def _first_part(source: BinaryIO) -> tuple[bytes, Iterator[bytes]]:
    """The first part of *source*, shorter than a part only if it is all, and an iterator over the rest."""
    rest = pieces(source)
    head = bytearray()
    for piece in rest:
        head += piece
        if len(head) >= _PART_BYTES:
            break
    return bytes(head), rest


class _Body:
    """An answer's body in pieces. Not a generator: closing one that was never begun would leave it open."""

    def __init__(self, body: "StreamingBody", translated: Callable[[], AbstractContextManager[None]]) -> None:
        self._body = body
        self._translated = translated

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._translated():
                piece = self._body.read(PIECE_BYTES)
            if not piece:
                return
            yield piece

    def close(self) -> None:
        self._body.close()
