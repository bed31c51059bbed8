import hashlib
import io
import itertools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer

from backends.errors import BackendError, BackendUnavailable, InvalidSpec, NotFound
from backends.stores import stream_of
from backends.stores.s3 import S3Store

MIB = 1024**2
_BUCKETS = (f"bucket-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def endpoint_url() -> Iterator[str]:
    """An S3 of moto's on a free port of this machine."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def store(endpoint_url: str) -> Iterator[S3Store]:
    with closing(connect(endpoint_url)) as opened:
        yield opened


@pytest.fixture
def bucket(store: S3Store) -> str:
    """A bucket's URI, fresh for each test."""
    name = next(_BUCKETS)
    store.ensure_bucket(name)
    return f"s3://{name}"


def connect(endpoint_url: str) -> S3Store:
    return S3Store.connect(
        endpoint_url=endpoint_url, region="eu-central-1", access_key_id="local", secret_access_key="local"
    )


def test_an_object_is_described_as_it_was_written(store: S3Store, bucket: str) -> None:
    """Size, MD5 as the ETag without quotes, type and time; the same from write and stat."""
    written = store.put(f"{bucket}/a", b"abc", content_type="text/csv")
    assert (written.size_bytes, written.etag) == (3, hashlib.md5(b"abc", usedforsecurity=False).hexdigest())
    assert abs(datetime.now(UTC) - written.modified) < timedelta(minutes=1)
    seen = store.stat(f"{bucket}/a")
    assert (seen.size_bytes, seen.etag, seen.content_type) == (3, written.etag, "text/csv")
    assert abs(seen.modified - written.modified) < timedelta(seconds=5)
    (listed,) = store.list_objects(bucket)
    assert (listed.uri, listed.size_bytes, listed.etag) == (f"{bucket}/a", 3, written.etag)


@pytest.mark.parametrize("size", [0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 20 * MIB])
def test_sizes_around_a_part_round_trip(store: S3Store, bucket: str, tmp_path: Path, size: int) -> None:
    """In one piece or in parts, from a stream that cannot seek, to a stream and to a file."""
    data = bytes(range(251)) * (size // 251 + 1)
    data = data[:size]
    chunks = (data[start : start + 300_000] for start in range(0, size, 300_000))
    assert store.write(f"{bucket}/a", stream_of(chunks)).size_bytes == size
    assert store.get(f"{bucket}/a") == data
    store.download(f"{bucket}/a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data


def test_the_source_stays_open(store: S3Store, bucket: str) -> None:
    """What is written from belongs to the caller, in parts too."""
    for size in (10, 9 * MIB):
        source = io.BytesIO(bytes(size))
        store.write(f"{bucket}/a", source)
        assert not source.closed


def test_a_source_that_fails_changes_nothing(store: S3Store, bucket: str) -> None:
    """An upload whose source breaks in a later part leaves the old object, and the error is the source's."""

    def broken() -> Iterator[bytes]:
        yield bytes(18 * MIB)
        raise ZeroDivisionError

    store.put(f"{bucket}/a", b"old")
    with pytest.raises(ZeroDivisionError):
        store.write(f"{bucket}/a", stream_of(broken()))
    assert store.get(f"{bucket}/a") == b"old"


@pytest.mark.parametrize(
    "key", ["a/b", "a//b", "/a", "a b+c", "żółć/🙂", "%2e%2e", "a%2Fb", "a?b=c&d#e", "a\\b", "a.", "x" * 1024, "~'()*"]
)
def test_keys_round_trip(store: S3Store, bucket: str, key: str) -> None:
    """Keys with every kind of special character come back as they were, from listings too."""
    store.put(f"{bucket}/{key}", b"x")
    assert store.get(f"{bucket}/{key}") == b"x"
    assert [info.uri for info in store.list_objects(bucket)] == [f"{bucket}/{key}"]


def test_listings_go_on_over_pages(store: S3Store, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More objects than one answer of the server holds, by string prefix, in order."""
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    for number in range(35):
        store.put(f"{bucket}/n{number:04}", b"")
    store.put(f"{bucket}/other", b"")
    found = [info.uri for info in store.list_objects(f"{bucket}/n")]
    assert found == [f"{bucket}/n{number:04}" for number in range(35)]


def test_what_is_missing_is_not_found(store: S3Store, bucket: str, tmp_path: Path) -> None:
    """Unknown keys and buckets raise NotFound with their place; deleting them is quiet."""
    for call in (store.stat, store.reader, store.get):
        with pytest.raises(NotFound, match=f"{bucket}/nothing.*127.0.0.1"):
            call(f"{bucket}/nothing")
    with pytest.raises(NotFound):
        store.download(f"{bucket}/nothing", tmp_path / "copy")
    for size in (1, 9 * MIB):
        with pytest.raises(NotFound):
            store.put("s3://no-such-bucket/a", bytes(size))
    with pytest.raises(NotFound):
        list(store.list_objects("s3://no-such-bucket"))
    store.delete(f"{bucket}/nothing")
    store.delete("s3://no-such-bucket/a")
    assert not store.exists(f"{bucket}/nothing")


def test_making_a_bucket_twice_changes_nothing(store: S3Store, bucket: str) -> None:
    """ensure_bucket keeps what is in a bucket that exists."""
    store.put(f"{bucket}/a", b"x")
    store.ensure_bucket(bucket.removeprefix("s3://"))
    assert store.get(f"{bucket}/a") == b"x"
    with pytest.raises(InvalidSpec):
        store.ensure_bucket("Not A Bucket")


def test_a_refusal_keeps_the_servers_words(store: S3Store, bucket: str) -> None:
    """Any other error of the server's is a BackendError with its code: here an archived object."""
    name = bucket.removeprefix("s3://")
    store._client.put_object(Bucket=name, Key="a", Body=b"x", StorageClass="GLACIER")
    with pytest.raises(BackendError, match=f"{bucket}/a.*InvalidObjectState") as caught:
        store.get(f"{bucket}/a")
    assert caught.value.reason == "InvalidObjectState"
    assert not isinstance(caught.value, NotFound | BackendUnavailable)


def test_a_server_that_is_down_is_unavailable() -> None:
    """A connection that fails says where to, and what to look at."""
    client = boto3.client(
        "s3",
        endpoint_url="http://127.0.0.1:9",
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(retries={"max_attempts": 0}, connect_timeout=2),
    )
    with closing(client), closing(S3Store(client)) as store:
        with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:9 could not be reached"):
            store.get("s3://bucket/a")
        with pytest.raises(BackendUnavailable):
            store.put("s3://bucket/a", bytes(9 * MIB))


def test_a_clients_owner_closes_it(store: S3Store, bucket: str, endpoint_url: str) -> None:
    """A client that was handed in still works after the store was closed."""
    client = boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name="eu-central-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    store.put(f"{bucket}/a", b"x")
    with closing(client):
        S3Store(client).close()
        assert S3Store(client).get(f"{bucket}/a") == b"x"


@pytest.mark.parametrize("size", [0, 5])
def test_closing_a_reader_lets_go_of_the_connection(store: S3Store, bucket: str, size: int) -> None:
    """Read from or not: an answer that is not wanted any more does not hold its connection."""
    store.put(f"{bucket}/a", bytes(3 * MIB))
    stream = store.reader(f"{bucket}/a")
    assert len(stream.read(size)) == size
    body = stream.raw._origin._body  # type: ignore[attr-defined]  # behind the face
    stream.close()
    assert body._raw_stream.closed


UP_AND_DOWN = """
import resource, sys
from backends.stores import pieces, stream_of
from backends.stores.s3 import S3Store

endpoint_url, uri = sys.argv[1:]
store = S3Store.connect(
    endpoint_url=endpoint_url, region="eu-central-1", access_key_id="local", secret_access_key="local"
)
store.put(uri, b"warm")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
piece = b"1" * 2**20
store.write(uri, stream_of(piece for _ in range(160)))
with store.reader(uri) as stream:
    assert sum(map(len, pieces(stream))) == 160 * 2**20
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_large_objects_take_flat_memory(endpoint_url: str, bucket: str) -> None:
    """160 MiB from and to streams that cannot seek: a few parts of 8 MiB are held, not the object."""
    done = subprocess.run(
        [sys.executable, "-c", UP_AND_DOWN, endpoint_url, f"{bucket}/a"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    unit = 1 if sys.platform == "linux" else 1024  # macOS counts bytes
    assert int(done.stdout) / unit < 80 * MIB
