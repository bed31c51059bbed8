import hashlib
import io
from datetime import UTC, datetime, timedelta

import pytest

from backends.errors import InvalidSpec, NotFound
from tests.conformance.rigs import BUCKET, Rig

KEYS = [
    "plain",
    "a/b/c",
    "a",
    "double//slash",
    "/leading",
    "trailing/",
    "..",
    "../../etc/passwd",
    "a/../b",
    "%2e%2e/%2F",
    "back\\slash",
    "nul\0byte",
    "CON",
    "dot.",
    " space ",
    "Ünïcode/日本/😀",
    "Case",
    "case",
    "x" * 1024,
    "é" * 512,
]


def test_what_is_written_is_read(rig: Rig, prefix: str) -> None:
    """An object holds exactly its bytes, and a second write replaces them whole."""
    store = rig.backend.store
    store.put(f"{prefix}/object", b"first, and longer")
    store.put(f"{prefix}/object", b"second")
    assert rig.peek(f"{prefix}/object") == b"second"
    rig.plant(f"{prefix}/object", b"third")
    assert store.get(f"{prefix}/object") == b"third"


def test_an_object_is_described(rig: Rig, prefix: str) -> None:
    """Size, MD5 ETag, content type and time are there, from the write and from stat alike."""
    before = datetime.now(UTC) - timedelta(seconds=2)
    info = rig.backend.store.put(f"{prefix}/object", b"abc", content_type="text/plain")
    assert rig.backend.store.stat(f"{prefix}/object") == info
    assert (info.uri, info.size_bytes, info.content_type) == (f"{prefix}/object", 3, "text/plain")
    assert info.etag == hashlib.md5(b"abc", usedforsecurity=False).hexdigest()
    assert before <= info.modified <= datetime.now(UTC) + timedelta(seconds=2)


@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
def test_any_key_round_trips(rig: Rig, key: str) -> None:
    """Up to 1024 bytes of UTF-8, whatever they look like as a path."""
    uri = f"s3://{BUCKET}/{key}"
    rig.backend.store.put(uri, key.encode())
    assert rig.backend.store.get(uri) == key.encode()
    assert uri in [info.uri for info in rig.backend.store.list_objects(uri)]
    rig.backend.store.delete(uri)
    assert not rig.backend.store.exists(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "s3://",
        "s3://UPPER/key",
        "s3:///key",
        "file:///etc/passwd",
        "https://b/k",
        f"s3://{BUCKET}/" + "x" * 1025,
        f"s3://{BUCKET}/\ud800",
    ],
)
def test_illegal_addresses_are_refused(rig: Rig, uri: str) -> None:
    """Only s3://bucket/key with a legal bucket and a key of at most 1024 bytes."""
    with pytest.raises(InvalidSpec):
        rig.backend.store.put(uri, b"x")


def test_listing_is_by_prefix_in_byte_order(rig: Rig, prefix: str) -> None:
    """The prefix is a string, not a folder; the order is that of the keys' UTF-8 bytes."""
    names = ["in/b", "in/a", "in-2/c", "in/a/d", "in/Z", "in/é", "in/😀", "in/￿", "other"]
    for name in names:
        rig.plant(f"{prefix}/{name}", b"")
    listed = [info.uri.removeprefix(f"{prefix}/") for info in rig.backend.store.list_objects(f"{prefix}/in")]
    assert listed == sorted((name for name in names if name.startswith("in")), key=str.encode)


def test_an_empty_listing_is_empty(rig: Rig, prefix: str) -> None:
    """A prefix that nothing has is no error; a bucket that does not exist is."""
    assert list(rig.backend.store.list_objects(prefix)) == []
    with pytest.raises(NotFound):
        list(rig.backend.store.list_objects("s3://no-such-bucket-here/"))


def test_what_is_not_there_is_not_found(rig: Rig, prefix: str) -> None:
    """Reading fails by name; deleting is quiet."""
    store = rig.backend.store
    for act in (store.get, store.stat, store.reader):
        with pytest.raises(NotFound, match="missing"):
            act(f"{prefix}/missing")
    store.delete(f"{prefix}/missing")
    assert not store.exists(f"{prefix}/missing")


def test_writing_needs_a_bucket(rig: Rig) -> None:
    """A bucket is made on purpose, never by a typing error; making it twice is quiet."""
    with pytest.raises(NotFound):
        rig.backend.store.put("s3://no-such-bucket-here/key", b"x")
    rig.backend.store.ensure_bucket(BUCKET)


def test_a_reader_keeps_what_it_opened(rig: Rig, prefix: str) -> None:
    """An object replaced under an open reader stays whole for it."""
    rig.plant(f"{prefix}/object", b"old" * 100_000)
    with rig.backend.store.reader(f"{prefix}/object") as stream:
        start = stream.read(3)
        rig.backend.store.put(f"{prefix}/object", b"new")
        assert start + stream.read() == b"old" * 100_000


def test_a_failing_source_leaves_the_old_object(rig: Rig, prefix: str) -> None:
    """A write that does not come to its end changes nothing."""

    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            raise OSError("the source broke")

        def readinto(self, buffer: object) -> int:
            raise OSError("the source broke")

    rig.plant(f"{prefix}/object", b"old")
    with pytest.raises(OSError, match="the source broke"):
        rig.backend.store.write(f"{prefix}/object", Broken())  # type: ignore[arg-type]
    assert rig.peek(f"{prefix}/object") == b"old"


def test_a_prefix_can_be_deleted(rig: Rig, prefix: str) -> None:
    """The number of removed objects comes back; others stay."""
    for name in ("x/1", "x/2", "y/1"):
        rig.plant(f"{prefix}/{name}", b"")
    assert rig.backend.store.delete_prefix(f"{prefix}/x/") == 2
    assert [info.uri for info in rig.backend.store.list_objects(prefix)] == [f"{prefix}/y/1"]
