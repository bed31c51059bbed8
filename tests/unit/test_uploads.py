import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.errors import Conflict, NotFound
from backends.stores.buckets import Attributes, Buckets, Checksum, Part, StoredObject
from backends.stores.uploads import Upload, Uploads

UNHURRIED = settings(deadline=None, max_examples=60)
REPOSITORY = Path(__file__).parents[2]
SUM = Checksum("SHA256", "sum-1")  # whoever speaks S3 works it out
SIZE = 10_000


@pytest.fixture
def buckets(tmp_path: Path) -> Iterator[Buckets]:
    with closing(Buckets(tmp_path / "store")) as opened:
        opened.create("bucket")
        yield opened


@pytest.fixture
def uploads(buckets: Buckets) -> Uploads:
    return Uploads(buckets)


def begin(uploads: Uploads) -> Upload:
    return uploads.begin("bucket", "k", Attributes(), algorithm="SHA256", checksum_type="COMPOSITE")


def send(uploads: Uploads, upload: Upload, number: int, data: bytes, *, size_is_known: bool = True) -> Part:
    with uploads.arriving(upload, number, len(data) if size_is_known else None, ["SHA256"]) as arriving:
        arriving.write(data[:7])
        arriving.write(data[7:])
        return uploads.put_part(upload, number, arriving)


def content(buckets: Buckets) -> bytes:
    with buckets.open("bucket", "k")[1] as stream:
        return stream.read()


def files(buckets: Buckets) -> list[Path]:
    return [path for path in buckets.folder.root.rglob("*") if len(path.name) == 32]


@UNHURRIED
@given(
    sent=st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from([1, 50, 9_000, 10_000]), st.booleans()), min_size=1, max_size=8
    ),
    chosen=st.sets(st.integers(1, 4), min_size=1),
)
def test_an_object_is_its_parts(
    tmp_path_factory: pytest.TempPathFactory, sent: list[tuple[int, int, bool]], chosen: set[int]
) -> None:
    """Whatever their sizes and order, sent once or again, all of them or some: one file, and nothing besides."""
    with closing(Buckets(tmp_path_factory.mktemp("store"))) as buckets:
        buckets.create("bucket")
        uploads = Uploads(buckets)
        upload = begin(uploads)
        last = {}
        for turn, (number, size, size_is_known) in enumerate(sent):
            data = bytes([turn + 1]) * size
            last[number] = (send(uploads, upload, number, data, size_is_known=size_is_known), data)
        numbers = sorted(chosen & last.keys()) or [min(last)]
        assert uploads.parts(upload) == [last[number][0] for number in sorted(last)]
        made = uploads.complete(upload, [last[number][0] for number in numbers], checksum=SUM)
        assert content(buckets) == b"".join(last[number][1] for number in numbers)
        assert buckets.stat("bucket", "k") == made
        assert [part.number for part in buckets.parts_of("bucket", "k")] == numbers
        assert len(files(buckets)) == 1
        buckets.delete("bucket", "k")
        assert files(buckets) == []
        for table in ("uploads", "slots", "parts"):
            assert buckets.folder.query(f"SELECT * FROM {table}") == []  # noqa: S608


def test_parts_are_not_written_twice(buckets: Buckets, uploads: Uploads) -> None:
    """Those of one size lie where they will stay, however they come."""
    upload = begin(uploads)
    parts = {number: send(uploads, upload, number, bytes([number]) * SIZE) for number in (3, 1, 2)}
    parts[4] = send(uploads, upload, 4, b"end")
    (file,) = files(buckets)
    uploads.complete(upload, [parts[number] for number in (1, 2, 3, 4)], checksum=SUM)
    assert files(buckets) == [file]
    assert content(buckets) == bytes([1]) * SIZE + bytes([2]) * SIZE + bytes([3]) * SIZE + b"end"


def test_what_was_acknowledged_stays_until_it_is_replaced(buckets: Buckets, uploads: Uploads) -> None:
    """A part that is sent again and breaks off leaves the one before; its place can be written anew if it had none."""
    upload = begin(uploads)
    one = send(uploads, upload, 1, b"1" * SIZE)

    def break_off(number: int) -> None:
        with uploads.arriving(upload, number, SIZE, ["SHA256"]) as arriving:
            arriving.write(b"x" * (SIZE // 2))
            raise ZeroDivisionError

    for number in (1, 2):
        with pytest.raises(ZeroDivisionError):
            break_off(number)
    two = send(uploads, upload, 2, b"2" * SIZE)
    assert len(files(buckets)) == 1
    uploads.complete(upload, [one, two], checksum=SUM)
    assert content(buckets) == b"1" * SIZE + b"2" * SIZE


def test_a_writer_that_is_still_under_way_does_no_harm(buckets: Buckets, uploads: Uploads) -> None:
    """A slow first try of a part goes on writing while a second one is completed: the object is the second's."""
    upload = begin(uploads)
    with uploads.arriving(upload, 1, SIZE, ["SHA256"]) as slow:
        slow.write(b"s" * (SIZE // 2))
        quick = send(uploads, upload, 1, b"q" * SIZE)
        uploads.complete(upload, [quick], checksum=SUM)
        slow.write(b"s" * (SIZE // 2))
        with pytest.raises(NotFound):
            uploads.put_part(upload, 1, slow)
    assert content(buckets) == b"q" * SIZE
    assert len(files(buckets)) == 1


def test_an_upload_goes_on_after_a_completion_that_failed(buckets: Buckets, uploads: Uploads) -> None:
    """More parts may come, others may be chosen."""

    def refuse(found: StoredObject | None) -> None:
        raise Conflict("no")

    upload = begin(uploads)
    parts = [send(uploads, upload, number, bytes([number]) * SIZE) for number in (1, 2)]
    with pytest.raises(Conflict, match="no"):
        uploads.complete(upload, parts, checksum=SUM, check=refuse)
    parts[1] = send(uploads, upload, 2, b"n" * SIZE)
    parts.append(send(uploads, upload, 3, b"end"))
    uploads.complete(upload, parts, checksum=SUM)
    assert content(buckets) == bytes([1]) * SIZE + b"n" * SIZE + b"end"
    with pytest.raises(NotFound):
        uploads.complete(upload, parts, checksum=SUM)


def test_parts_come_at_once(buckets: Buckets, uploads: Uploads) -> None:
    """Eight threads, each number sent twice with the same bytes, as by a client that tries again."""
    upload = begin(uploads)

    def work(first: int) -> None:
        for number in range(first, 33, 4):
            send(uploads, upload, number, bytes([number]) * SIZE)

    threads = [threading.Thread(target=work, args=(first,)) for first in (1, 2, 3, 4) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    uploads.complete(upload, uploads.parts(upload), checksum=SUM)
    assert content(buckets) == b"".join(bytes([number]) * SIZE for number in range(1, 33))
    assert len(files(buckets)) == 1


KILLED_EVERYWHERE = """
import os, signal, sys
from pathlib import Path
from backends.stores import uploads as module
from backends.stores.buckets import Attributes, Buckets, Checksum
from tests.unit.test_uploads import SIZE, SUM, begin, content, files, send

root = Path(sys.argv[1])

def child(upload, last_step):
    steps = 0
    def count(frame, event, argument):
        nonlocal steps
        if os.path.dirname(frame.f_code.co_filename) == os.path.dirname(module.__file__):
            steps += 1
            if steps == last_step:
                os.kill(os.getpid(), signal.SIGKILL)
    uploads = module.Uploads(Buckets(root))
    sys.setprofile(count)
    two = send(uploads, upload, 2, b"2" * SIZE)
    uploads.complete(upload, [uploads.parts(upload)[0], two], checksum=SUM)
    sys.setprofile(None)
    os._exit(0)

step, survived, ends = 0, False, set()
while not survived:
    step += 7
    buckets = Buckets(root)
    uploads = module.Uploads(buckets)
    upload = begin(uploads)
    send(uploads, upload, 1, b"1" * SIZE)
    buckets.close()
    pid = os.fork()
    if pid == 0:
        child(upload, step)
    survived = os.waitpid(pid, 0)[1] == 0
    buckets = Buckets(root)
    uploads = module.Uploads(buckets)
    if list(uploads.under_way("bucket")):
        ends.add("under way")
        uploads.complete(upload, [uploads.parts(upload)[0], send(uploads, upload, 2, b"2" * SIZE)], checksum=SUM)
    else:
        ends.add("complete")
    assert content(buckets) == b"1" * SIZE + b"2" * SIZE, step
    assert len(files(buckets)) == 1, (step, files(buckets))
    buckets.delete("bucket", "k")
    assert files(buckets) == [], step
    buckets.close()
assert ends == {"under way", "complete"}, ends
print(step)
"""


def test_killed_at_every_step(buckets: Buckets) -> None:
    """S25: the upload is under way or complete, it can be brought to its end, and no file is left over."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED_EVERYWHERE, buckets.folder.root],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
