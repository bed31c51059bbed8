import hashlib
import io
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.config import BackendConfig
from backends.errors import BackendError, BackendUnavailable, InvalidSpec, NotFound
from backends.local.backend import open_local
from backends.stores import stream_of
from backends.stores.blobs import SMALL_BYTES
from backends.stores.files import FileStore

UNHURRIED = settings(deadline=None)  # the machine may be busy with other tests
MIB = 1024**2
FILL = b"." * SMALL_BYTES  # with it, anything is large enough for a file of its own
REPOSITORY = Path(__file__).parents[2]
KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40) | st.text("a/.\\%\0A é", min_size=1, max_size=20)
HOSTILE = [
    *("a", "a/b", "a/", "/a", "//", "/", "..", "../../etc/passwd", ".", "a/../b", "a//b", "a/./b"),
    *("%2e%2e%2f", "%252e", "a\\b", "..\\x", "\0", "a\0b", "A", "a.", "a ", " ", "CON", "\n", "\u202e", "\uffff"),
    *("é", "e\u0301", "🙂", "x" * 1024, "é" * 512, "/" * 1024, "a/" * 512, "?x=1#y", "*", "~", "-rf", "index.sqlite"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Iterator[FileStore]:
    with closing(FileStore(root)) as opened:
        opened.ensure_bucket("bucket")
        yield opened


def uri(key: str) -> str:
    return f"s3://bucket/{key}"


def blobs(root: Path) -> list[Path]:
    return [path for path in (root / "blobs").rglob("*") if path.is_file()]


def incoming(root: Path) -> list[Path]:
    return list((root / "incoming").iterdir())


def run(program: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# Keys


def test_every_key_round_trips(store: FileStore, root: Path) -> None:
    """S12, S13: dot-dot, slashes, NUL, case pairs, 1024 bytes: each is an object of its own, contained."""
    for key in HOSTILE:
        store.put(uri(key), key.encode())
    assert {info.uri for info in store.list_objects("s3://bucket")} == {uri(key) for key in HOSTILE}
    for key in HOSTILE:
        assert store.get(uri(key)) == key.encode()
    assert {path.name for path in root.parent.iterdir()} == {"store"}
    for path in root.rglob("*"):
        assert path.name.split(".")[0] in {"blobs", "incoming", "index", "opening"} or int(path.name, 16) >= 0


@UNHURRIED
@given(found=st.dictionaries(KEYS, st.binary(max_size=20), max_size=12), prefix=st.text("a/.é", max_size=2))
def test_listings_are_in_byte_order(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, bytes], prefix: str
) -> None:
    """A prefix is a string prefix, and the order is that of the keys' UTF-8 bytes."""
    with closing(FileStore(tmp_path_factory.mktemp("store"))) as store:
        store.ensure_bucket("bucket")
        for key, data in found.items():
            store.put(uri(key), data)
        expected = sorted((key for key in found if key.startswith(prefix)), key=str.encode)
        assert [info.uri for info in store.list_objects(uri(prefix))] == list(map(uri, expected))
        assert {key: store.get(uri(key)) for key in found} == found


@pytest.mark.parametrize("key", ["", "x" * 1025, "é" * 513, "\ud800"])
def test_keys_outside_of_s3s_rules_are_refused(store: FileStore, key: str) -> None:
    """Empty, over 1024 bytes, or no Unicode."""
    with pytest.raises(InvalidSpec):
        store.put(uri(key), b"x")


def test_listings_go_on_over_pages(store: FileStore) -> None:
    """More objects than one page of the index come complete, once each, while others come and go."""
    for number in range(1, 2102):
        store.put(uri(f"{number:05}"), b"")
    seen: list[str] = []
    for info in store.list_objects(uri("0")):
        if not seen:
            store.put(uri("00000"), b"")
            store.delete(uri("02000"))
        seen.append(info.uri)
    assert seen == [uri(f"{number:05}") for number in range(1, 2102) if number != 2000]


def test_buckets_are_apart(store: FileStore) -> None:
    """The same key in two buckets is two objects, and a listing stays in its bucket."""
    store.ensure_bucket("bucket2")
    store.put(uri("a"), b"1")
    store.put("s3://bucket2/a", b"2")
    store.delete("s3://bucket2/a")
    assert [info.uri for info in store.list_objects("s3://bucket")] == [uri("a")]
    assert list(store.list_objects("s3://bucket2")) == []


# Objects


def test_an_object_is_described_as_it_was_written(store: FileStore) -> None:
    """Size, MD5 as the ETag, type, time and the caller's headers; the same from write, stat and listing."""
    written = store.write(uri("a"), io.BytesIO(b"abc"), content_type="text/csv", metadata={"owner": "żółć"})
    assert (written.size_bytes, written.etag) == (3, hashlib.md5(b"abc", usedforsecurity=False).hexdigest())
    assert written.content_type == "text/csv"
    assert timedelta(0) <= datetime.now(UTC) - written.modified < timedelta(minutes=1)
    assert store.stat(uri("a")) == written
    assert list(store.list_objects(uri("a"))) == [written]
    assert store.metadata(uri("a")) == {"owner": "żółć"}


def test_objects_outlive_the_store(root: Path, store: FileStore) -> None:
    """What was written is there for the next process, and for another one at the same time."""
    store.put(uri("a"), b"1")
    with closing(FileStore(root)) as second:
        assert second.get(uri("a")) == b"1"
        second.put(uri("a"), b"2")
    assert store.get(uri("a")) == b"2"


def test_what_is_missing_is_not_found(store: FileStore) -> None:
    """Unknown keys and buckets raise NotFound; deleting them is quiet."""
    for call in (store.stat, store.reader, store.get, store.metadata):
        with pytest.raises(NotFound, match="s3://bucket/nothing"):
            call(uri("nothing"))
    with pytest.raises(NotFound, match="'no-bucket' does not exist"):
        store.put("s3://no-bucket/a", b"x")
    with pytest.raises(NotFound):
        list(store.list_objects("s3://no-bucket"))
    store.delete(uri("nothing"))
    store.delete("s3://no-bucket/a")
    assert not store.exists(uri("nothing"))


def test_ranges_can_be_read(store: FileStore) -> None:
    """A reader can seek, so a part of a large object costs that part."""
    store.put(uri("a"), bytes(range(256)) * 1000)
    with store.reader(uri("a")) as stream:
        stream.seek(255_990)
        assert stream.read(5) == bytes(range(246, 251))


def test_an_open_reader_keeps_what_it_opened(store: FileStore) -> None:
    """Replacing and deleting an object does not touch a reader that is under way."""
    store.put(uri("a"), b"old" * 100_000)
    with store.reader(uri("a")) as stream:
        start = stream.read(10)
        store.put(uri("a"), b"new")
        store.delete(uri("a"))
        assert start + stream.read() == b"old" * 100_000


def test_replaced_and_deleted_bytes_leave_the_disk(store: FileStore, root: Path) -> None:
    """There is one file for each object, whatever was overwritten and deleted."""
    for number in range(20):
        store.put(uri("a"), FILL + b"%d" % number)
        store.put(uri(f"b{number}"), FILL + b"x")
    store.delete_prefix(uri("b"))
    assert len(blobs(root)) == 1
    assert incoming(root) == []


def test_a_source_that_fails_changes_nothing(store: FileStore, root: Path) -> None:
    """The old object stands, the error is the source's own, and nothing half written stays."""

    def broken() -> Iterator[bytes]:
        yield FILL + b"new"
        raise ZeroDivisionError

    store.put(uri("a"), FILL + b"old")
    with pytest.raises(ZeroDivisionError):
        store.write(uri("a"), stream_of(broken()))
    assert store.get(uri("a")) == FILL + b"old"
    assert (len(blobs(root)), incoming(root)) == (1, [])


def test_large_objects_take_flat_memory(store: FileStore, tmp_path: Path) -> None:
    """64 MiB go in and come out in pieces."""
    piece = b"\1" * MIB
    tracemalloc.start()
    try:
        info = store.write(uri("a"), stream_of(piece for _ in range(64)))
        store.download(uri("a"), tmp_path / "copy")
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
    assert info.size_bytes == (tmp_path / "copy").stat().st_size == 64 * MIB


def test_small_objects_are_rows(store: FileStore, root: Path) -> None:
    """Up to 8 KiB there is no file, in whatever pieces they came; replaced and deleted ones leave no row."""
    store.write(uri("a"), stream_of([b"x" * 1000] * 8))
    store.put(uri("b"), b"x" * SMALL_BYTES)
    store.put(uri("c"), b"")
    assert (store.get(uri("a")), store.get(uri("c"))) == (b"x" * 8000, b"")
    store.put(uri("a"), FILL + b"!")
    store.put(uri("b"), b"new")
    store.delete(uri("c"))
    assert len(blobs(root)) == 1
    assert store.get(uri("a")) == FILL + b"!"
    assert store.buckets.folder.query("SELECT data FROM objects ORDER BY key") == [(None,), (b"new",)]


def test_only_the_owner_may_look(store: FileStore, root: Path) -> None:
    """S10: folders are 0700 and files 0600, SQLite's too."""
    store.put(uri("a"), FILL + b"x")
    for path in (root, *root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


@pytest.mark.parametrize("durable", [False, True])
def test_durable_writes_wait_for_the_disk(root: Path, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:  # noqa: FBT001  pytest's
    """The configuration's `durable`: a file's bytes and its name in the folder, before its row in the index."""
    waited_for = []

    def fsync(descriptor: int) -> None:
        waited_for.append(Path(f"/proc/self/fd/{descriptor}").readlink().parent.name)
        real(descriptor)

    real = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    with open_local(BackendConfig(home=root, durable=durable)) as backend:
        backend.store.ensure_bucket("bucket")
        backend.store.put(uri("a"), FILL + b"x")
        assert backend.store.get(uri("a")) == FILL + b"x"
    assert waited_for == (["incoming", "objects"] if durable else [])


# Damage


def test_torn_bytes_are_reported(store: FileStore, root: Path) -> None:
    """S25: a file that lost bytes, or is gone, is an error of the read, never shorter content."""
    store.put(uri("a"), b"x" * 10_000)
    (blob,) = blobs(root)
    blob.write_bytes(b"x" * 50)
    with pytest.raises(BackendError, match="damaged: not 10000 bytes"):
        store.get(uri("a"))
    blob.unlink()
    with pytest.raises(BackendUnavailable, match="missing"):
        store.get(uri("a"))
    store.put(uri("a"), b"again")
    assert store.get(uri("a")) == b"again"


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """S26: a root below a file, or an index that is none, are errors that say where."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BackendUnavailable, match=f"open the store: .*{tmp_path}"):
        FileStore(tmp_path / "file" / "store")
    (tmp_path / "index.sqlite").write_bytes(b"rubbish" * 1000)
    with pytest.raises(BackendUnavailable, match="not a database"):
        FileStore(tmp_path)


def test_a_full_disk_changes_nothing(root: Path, store: FileStore) -> None:
    """S26: when no more bytes can be written the old object stands and nothing half written stays."""
    store.put(uri("a"), FILL + b"old")
    program = """
import resource, signal, sys
from pathlib import Path
from backends.errors import BackendUnavailable
from backends.stores.files import FileStore
store = FileStore(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    store.put("s3://bucket/a", bytes(3 * 2**20))
except BackendUnavailable as exc:
    print(exc)
"""
    with run(program, root) as writer:
        said, _ = writer.communicate(timeout=60)
    assert "could not store s3://bucket/a: the file store in" in said
    assert store.get(uri("a")) == FILL + b"old"
    assert (len(blobs(root)), incoming(root)) == (1, [])


# Many processes


SLOW_WRITER = """
import sys
from pathlib import Path
from backends.stores import stream_of
from backends.stores.files import FileStore

def source():
    yield b"n" * 2**20
    print("half", flush=True)
    sys.stdin.read(1)
    yield b"n"

store = FileStore(Path(sys.argv[1]))
store.write("s3://bucket/a", stream_of(source()))
print("done", flush=True)
"""


def read_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_killed_writer_leaves_the_old_object(store: FileStore, root: Path) -> None:
    """S25: killed in the middle of its bytes; the next store that opens clears them away."""
    store.put(uri("a"), b"old")
    with run(SLOW_WRITER, root) as writer:
        assert read_line(writer) == "half"
        writer.send_signal(signal.SIGKILL)
        writer.wait(timeout=60)
    assert store.get(uri("a")) == b"old"
    assert len(incoming(root)) == 1
    FileStore(root).close()
    assert incoming(root) == []
    assert store.get(uri("a")) == b"old"


def test_a_living_writer_is_left_alone(store: FileStore, root: Path) -> None:
    """A store that opens while another process writes takes nothing from it; readers see old, then new."""
    store.put(uri("a"), b"old")
    with run(SLOW_WRITER, root) as writer:
        assert read_line(writer) == "half"
        FileStore(root).close()
        assert store.get(uri("a")) == b"old"
        said, _ = writer.communicate("x", timeout=60)
    assert said.strip() == "done"
    assert store.get(uri("a")) == b"n" * (MIB + 1)
    assert (len(blobs(root)), incoming(root)) == (1, [])


KILLED_EVERYWHERE = """
import os, signal, sys
from pathlib import Path
from backends.stores import files
from backends.stores.blobs import SMALL_BYTES

FILL = b"." * SMALL_BYTES if sys.argv[2] == "large" else b""
root = Path(sys.argv[1])

def child(last_step):
    steps = 0
    def count(frame, event, argument):
        nonlocal steps
        if os.path.dirname(frame.f_code.co_filename) == os.path.dirname(files.__file__):
            steps += 1
            if steps == last_step:
                os.kill(os.getpid(), signal.SIGKILL)
    store = files.FileStore(root)
    sys.setprofile(count)
    store.put("s3://bucket/a", FILL + b"new")
    store.delete("s3://bucket/b")
    sys.setprofile(None)
    os._exit(0)

step, survived, ends = 0, False, set()
while not survived:
    step += 1
    store = files.FileStore(root)
    store.ensure_bucket("bucket")
    store.put("s3://bucket/a", FILL + b"old")
    store.put("s3://bucket/b", FILL + b"b")
    store.close()
    pid = os.fork()
    if pid == 0:
        child(step)
    survived = os.waitpid(pid, 0)[1] == 0
    store = files.FileStore(root)
    left = {info.uri: store.get(info.uri) for info in store.list_objects("s3://bucket")}
    doomed = store.buckets.folder.query("SELECT * FROM doomed")
    rows = store.buckets.folder.query("SELECT key FROM objects WHERE data IS NOT NULL")
    store.close()
    found = sum(path.is_file() for path in (root / "blobs").rglob("*"))
    assert found == (len(left) if FILL else 0), (step, found, left)
    assert not list((root / "incoming").iterdir()) and not doomed, step
    assert len(rows) == (0 if FILL else len(left)), step
    a, b = left["s3://bucket/a"], left.get("s3://bucket/b")
    ends.add((a, b))
assert ends == {(FILL + b"old", FILL + b"b"), (FILL + b"new", FILL + b"b"), (FILL + b"new", None)}, ends
print(step)
"""


@pytest.mark.parametrize("size", ["small", "large"])
def test_killed_at_every_step(root: Path, size: str) -> None:
    """S25: at whichever call a writer is killed, the objects are old or new and no file is left over."""
    with run(KILLED_EVERYWHERE, root, size) as driver:
        said, _ = driver.communicate(timeout=110)
    assert driver.returncode == 0
    assert int(said) > 50


BUSY_WRITER = """
import json, sys
from pathlib import Path
from backends.stores.files import FileStore

root, me = Path(sys.argv[1]), sys.argv[2]
store = FileStore(root)
store.ensure_bucket("bucket")
for number in range(60):
    store.put(f"s3://bucket/shared/{number % 3}", (me * 20_000).encode())
    store.put(f"s3://bucket/{me}/{number}", b"x" * 10_000)
    seen = store.get(f"s3://bucket/shared/{number % 3}").decode()
    assert len(seen) == 20_000 and len(set(seen)) == 1
    if number % 4 == 0:
        store.delete(f"s3://bucket/{me}/{number}")
store.close()
"""


def test_many_processes_write_at_once(root: Path) -> None:
    """Of two writers one wins whole, nobody's other objects are lost, and no file is left over."""
    writers = [run(BUSY_WRITER, root, me) for me in "abcd"]
    for writer in writers:
        writer.communicate(timeout=100)
        assert writer.returncode == 0
    with closing(FileStore(root)) as store:
        listed = [info.uri for info in store.list_objects("s3://bucket")]
    assert len(listed) == 3 + 4 * 45
    assert (len(blobs(root)), incoming(root)) == (len(listed), [])


def test_threads_share_a_store(store: FileStore, root: Path) -> None:
    """One instance serves many threads; each read sees one writer's whole object."""
    failures: list[str] = []

    def work(me: str) -> None:
        for _ in range(40):
            store.put(uri("a"), me.encode() * 10_000)
            seen = store.get(uri("a"))
            if len(set(seen)) != 1 or len(seen) != 10_000:
                failures.append(me)

    threads = [threading.Thread(target=work, args=(me,)) for me in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(blobs(root)) == 1


def test_the_index_is_plain_sqlite(store: FileStore, root: Path) -> None:
    """What is stored can be inspected with any SQLite tool."""
    store.write(uri("a"), io.BytesIO(b"x"), metadata={"k": "v"})
    with closing(sqlite3.connect(root / "index.sqlite")) as index:
        (row,) = index.execute("SELECT bucket, key, size_bytes, metadata FROM objects").fetchall()
    assert row[:3] == ("bucket", b"a", 1)
    assert json.loads(row[3]) == {"k": "v"}
