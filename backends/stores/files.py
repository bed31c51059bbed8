"""The object store of this machine: :class:`Buckets` behind the interface that the pipeline and the engine see."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from backends.base import ObjectStore
from backends.errors import AlreadyExists
from backends.naming import split_uri
from backends.specs import ObjectInfo
from backends.stores import pieces
from backends.stores.buckets import Attributes, Buckets, StoredObject

_NO_METADATA: Mapping[str, str] = MappingProxyType({})


class FileStore(ObjectStore):
    """A persistent object store under the folder *root*, which is made if it is missing (mode 0700).

    Safe for threads and for processes, each with its own instance; do not carry one across a fork.
    With *durable* every write waits for the disk: what is acknowledged survives a power cut too.
    ``buckets`` is the same store with what S3 knows beyond this interface.

    Raises:
        BackendUnavailable: *root* cannot be made, written or locked; also from every method.
    """

    def __init__(self, root: Path, *, durable: bool = False) -> None:
        self.buckets = Buckets(root, durable=durable)

    # The contract of all that follows without docstring is ObjectStore's.

    def ensure_bucket(self, bucket: str) -> None:
        split_uri(f"s3://{bucket}", key_required=False)
        with suppress(AlreadyExists):
            self.buckets.create(bucket)

    def write(
        self,
        uri: str,
        source: BinaryIO,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] = _NO_METADATA,
    ) -> ObjectInfo:
        """Replace the whole object, as the contract says; *metadata* are headers of the caller's own."""
        bucket, key = split_uri(uri)
        with self.buckets.arriving(bucket, key) as arriving:
            for piece in pieces(source):
                arriving.write(piece)
            return _info(self.buckets.put(bucket, key, arriving, Attributes(content_type, metadata)))

    def reader(self, uri: str) -> BinaryIO:
        """Open the object for streaming; the stream can seek, so any range can be read."""
        return self.buckets.open(*split_uri(uri))[1]

    def stat(self, uri: str) -> ObjectInfo:
        return _info(self.buckets.stat(*split_uri(uri)))

    def metadata(self, uri: str) -> dict[str, str]:
        """The headers given to :meth:`write`. Raises NotFound."""
        return dict(self.buckets.stat(*split_uri(uri)).attributes.metadata)

    def delete(self, uri: str) -> None:
        self.buckets.delete(*split_uri(uri))

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        bucket, start = split_uri(prefix, key_required=False)
        entries = self.buckets.entries(bucket, prefix=start)
        return (_info(entry) for entry in entries if isinstance(entry, StoredObject))

    def close(self) -> None:
        self.buckets.close()


def _info(found: StoredObject) -> ObjectInfo:
    return ObjectInfo(
        uri=f"s3://{found.bucket}/{found.key}",
        size_bytes=found.size_bytes,
        etag=found.etag,
        modified=found.modified,
        content_type=found.attributes.content_type,
    )
