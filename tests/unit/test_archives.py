import errno
import gzip
import io
import os
import socket
import stat
import tarfile
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.engine.archives import ArchiveRefused, Limits, create, extract, pack

UNHURRIED = settings(
    deadline=None,  # the machine may be busy with other tests
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example makes a folder of its own
)
MIB = 1024**2


def member(name: str, content: bytes = b"", **fields: object) -> bytes:
    """One tar entry as the standard library writes it, in GNU format (any name up to any length)."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    return member("././@PaxHeader", records, type=kind)


def record(keyword: str, value: str) -> bytes:
    body = f" {keyword}={value}\n".encode()
    length = len(body) + len(str(len(body) + len(str(len(body)))))
    return str(length).encode() + body


def archive(*entries: bytes) -> io.BytesIO:
    return io.BytesIO(gzip.compress(b"".join(entries) + bytes(1024), compresslevel=1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder whose surroundings are watched."""
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    return inner


def refused(stream: io.BytesIO, folder: Path, limits: Limits | None = None) -> ArchiveRefused:
    """Extract, expecting a refusal that leaves nothing, inside or outside."""
    before = sorted(folder.parent.parent.rglob("*"))
    with pytest.raises(ArchiveRefused) as caught:
        extract(stream, folder, limits or Limits())
    assert sorted(folder.parent.parent.rglob("*")) == before
    assert list(folder.iterdir()) == []
    return caught.value


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


# Refusals


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "a/..", "..", "/etc/passwd", "//x", "./../x", "a/b/../../../x", "/", "a/./../.."],
)
def test_names_that_leave_the_folder_are_refused(folder: Path, name: str) -> None:
    """S1: dot-dot anywhere and absolute paths refuse the whole archive, and the error names the member."""
    error = refused(archive(member("good", b"x"), member(name, b"y")), folder)
    assert error.name == name
    assert repr(name) in str(error)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "character device"),
        (tarfile.BLKTYPE, "block device"),
        (tarfile.FIFOTYPE, "fifo"),
        (tarfile.GNUTYPE_SPARSE, "sparse"),
        (b"V", "type b'V'"),
        (b"M", "type b'M'"),
    ],
)
def test_only_files_and_folders_exist(folder: Path, kind: bytes, words: str) -> None:
    """S2, S4: links, devices, fifos, sparse and unknown entries are refused by name."""
    entry = member("odd", type=kind, linkname="good")
    assert words in str(refused(archive(member("good", b"x"), entry, member("odd/x", b"y")), folder))


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6777])
def test_set_id_files_are_refused(folder: Path, mode: int) -> None:
    """S4: a set-user-id or set-group-id file is refused; on a folder the bit is dropped."""
    assert "set-user-id" in str(refused(archive(member("tool", b"x", mode=mode)), folder))
    extract(archive(member("dir", type=tarfile.DIRTYPE, mode=mode)), folder)
    assert stat.S_IMODE((folder / "dir").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a", "a"], "twice"),
        (["a", "./a"], "twice"),
        (["d/a", "d//a"], "twice"),
        (["a", "A"], "only by case"),
        (["d/x", "D/y"], "only by case"),
        (["straße", "STRASSE"], "only by case"),
        (["é", "e\u0301"], "accents"),
        (["a", "a/b"], "twice"),
        (["a/b", "a"], "twice"),
    ],
)
def test_no_two_names_are_alike(folder: Path, names: list[str], words: str) -> None:
    """S4: a name given twice, by another spelling, case or encoding, or as file and folder, is refused."""
    error = refused(archive(*(member(name, b"x") for name in names)), folder)
    assert words in str(error)
    assert error.name == names[1]


@pytest.mark.parametrize(
    "name", ["x" * 300, "é" * 128, "d/" * 600 + "x", "d/" * 65 + "x", "/".join(["n" * 200] * 6), "a\0b", ""]
)
def test_odd_names_are_refused(folder: Path, name: str) -> None:
    """S4: components over 255 bytes, paths over 1024, folders too deep, NUL and no name at all."""
    refused(archive(pax(record("path", name)), member("harmless", b"x")), folder)


def test_names_that_are_not_utf8_are_refused(folder: Path) -> None:
    """A name must be text, or its errors and its object key could not be."""
    assert "not UTF-8" in str(refused(archive(member("a\udcff", b"x")), folder))


@pytest.mark.parametrize("name", ["../x", "/x", "good", "GOOD"])
def test_names_are_judged_after_every_override(folder: Path, name: str) -> None:
    """S4: a harmless name in the header does not excuse what a PAX or GNU header makes of it."""
    good = member("good", b"x")
    refused(archive(good, pax(record("path", name)), member("harmless", b"y")), folder)
    long_name = member("././@LongLink", name.encode() + b"\0", type=tarfile.GNUTYPE_LONGNAME)
    refused(archive(good, long_name, member("harmless", b"y")), folder)


@pytest.mark.parametrize(
    ("extended", "words"),
    [
        (pax(record("path", "a") + record("path", "b")), "twice"),
        (pax(record("path", "a")) + pax(record("path", "b")), "two extended headers"),
        (member("L", b"a\0", type=b"L") + pax(record("path", "b")), "twice"),
        (pax(record("path", "../x"), kind=b"g"), "global header"),
        (pax(record("size", "0"), kind=b"g"), "global header"),
        (pax(record("GNU.sparse.major", "1")), "sparse"),
        (pax(record("GNU.sparse.map", "0,1")), "sparse"),
        (pax(record("size", "-1")), "not a number"),
        (pax(record("size", "1_0")), "not a number"),
        (pax(record("size", str(2**62))), "unpacks to more"),
        (pax(b"99999 path=a\n"), "damaged"),
        (pax(b"0 path=a\n"), "damaged"),
        (pax(b"path=a\n"), "not a number"),
        (pax(b"7 path\n"), "damaged"),
    ],
)
def test_tricks_with_extended_headers_are_refused(folder: Path, extended: bytes, words: str) -> None:
    """S4: contradictory, global, sparse, negative or broken PAX headers."""
    assert words in str(refused(archive(extended, member("file", b"x")), folder))


def test_an_extended_header_for_nothing_is_refused(folder: Path) -> None:
    """An override at the end of the archive describes no entry."""
    refused(archive(pax(record("path", "a"))), folder)


def test_harmless_extended_headers_are_read(folder: Path) -> None:
    """Comments, times and vendor keywords mean nothing to us; path and size are followed."""
    records = record("comment", "git") + record("mtime", "1.5") + record("SCHILY.xattr.user.x", "y")
    body = record("path", "żółć/" + "n" * 200) + record("size", "3") + records
    entry = pax(record("comment", "x"), kind=b"g") + pax(body) + member("short", b"abc")
    extract(archive(entry, member("next", b"z")), folder)
    assert tree(folder) == {"next": b"z", "żółć": None, "żółć/" + "n" * 200: b"abc"}


# Damage and bombs


def test_what_is_no_gzip_or_no_tar_is_refused(folder: Path) -> None:
    """Text, a plain tar, gzip of something else and nothing at all are named as what they are not."""
    for data in (b"hello", member("a", b"x") + bytes(1024), b"", zlib.compress(b"x")):
        assert "must be a gzip-compressed tar" in str(refused(io.BytesIO(data), folder))
    assert "tar header" in str(refused(io.BytesIO(gzip.compress(b"x" * 2048)), folder))


def test_a_cut_or_changed_archive_is_refused_wherever(folder: Path) -> None:
    """S5: cut anywhere or with a wrong checksum at its very end, nothing of it stays."""
    whole = archive(member("a", os.urandom(700)), member("d/b", b"y")).getvalue()
    for length in range(0, len(whole), 7):
        refused(io.BytesIO(whole[:length]), folder)
    refused(io.BytesIO(whole[:-8] + bytes(4) + whole[-4:]), folder)
    cut_tar = gzip.compress(member("a", b"x" * 2000)[:1024])
    assert "ends in the middle" in str(refused(io.BytesIO(cut_tar), folder))


def test_the_header_checksum_is_verified(folder: Path) -> None:
    """A header changed after it was written is damage, not another file."""
    changed = bytearray(member("a", b"x"))
    changed[0] = ord("b")
    assert "checksum" in str(refused(archive(bytes(changed)), folder))


@pytest.mark.parametrize(
    "size", [b"77777777777\0", b"-0000000001\0", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"00000000 01\0"]
)
def test_sizes_that_lie_are_refused(folder: Path, size: bytes) -> None:
    """S4: huge, negative, binary and malformed sizes neither loop, nor allocate, nor write."""
    header = bytearray(member("a"))
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    refused(archive(bytes(header), b"content"), folder, Limits(max_bytes=MIB))


def zeros(total: int) -> Iterator[bytes]:
    """A tar.gz of one file of *total* zero bytes, made piece by piece."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    info = tarfile.TarInfo("zeros")
    info.size = total
    yield compressor.compress(info.tobuf())
    for _ in range(total // MIB):
        yield compressor.compress(bytes(MIB))
    yield compressor.compress(bytes(1024)) + compressor.flush()


def test_bombs_are_stopped_by_size(folder: Path) -> None:
    """S5: what claims more than the limit is refused before a byte of it is written."""
    packed = io.BytesIO(b"".join(zeros(8 * MIB)))
    error = refused(packed, folder, Limits(max_bytes=4 * MIB))
    assert "unpacks to more than 4194304 bytes" in str(error)
    assert error.name == "zeros"


def test_bombs_are_stopped_by_ratio_in_flat_memory(folder: Path) -> None:
    """S5: 1000 : 1 is refused once 64 MiB came out; small archives may pack as well as they can."""
    packed = io.BytesIO(b"".join(zeros(256 * MIB)))
    tracemalloc.start()
    try:
        error = refused(packed, folder)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
    assert "more than 200 times its size" in str(error)
    extract(io.BytesIO(b"".join(zeros(32 * MIB))), folder)
    assert (folder / "zeros").stat().st_size == 32 * MIB


def test_bombs_after_the_end_mark_count(folder: Path) -> None:
    """S5: zeros after the end of the tar are read only up to the limits."""
    packed = io.BytesIO(gzip.compress(member("a", b"x") + bytes(80 * MIB), compresslevel=9))
    refused(packed, folder)


def test_entries_are_counted(folder: Path) -> None:
    """S5: more entries than allowed are refused, extended headers included; as many are not."""
    entries = [member(f"d{number}", type=tarfile.DIRTYPE) for number in range(10)]
    assert "more than 9 entries" in str(refused(archive(*entries), folder, Limits(max_entries=9)))
    extract(archive(*entries), folder, Limits(max_entries=10))
    endless = [pax(b"", kind=b"g")] * 50
    (folder / "again").mkdir()
    refused(archive(*endless), folder / "again", Limits(max_entries=40))


def test_an_extended_header_is_not_buffered_without_limit(folder: Path) -> None:
    """S4: a PAX header that claims gigabytes is refused before it is read."""
    header = bytearray(pax(b""))
    header[124:136] = b"%011o\0" % (4 * 1024**3)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert "extended header of 4294967296 bytes" in str(refused(archive(bytes(header)), folder))


@UNHURRIED
@given(data=st.data())
def test_no_changed_archive_escapes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """S3: whatever bytes of a tar are changed, it is extracted within its folder or refused without rest."""
    blocks = bytearray(member("a/b", b"x" * 600) + pax(record("path", "c/d")) + member("e", b"y", mode=0o755))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(blocks) - 1))
        blocks[place] = data.draw(st.sampled_from(b"\0/.7012356xgLKS\xff \x80a"))
    for start in (0, 1536, 2560):
        if data.draw(st.booleans()):
            blocks[start + 148 : start + 156] = b" " * 8
            blocks[start + 148 : start + 156] = b"%06o\0 " % sum(blocks[start : start + 512])
    outer = tmp_path_factory.mktemp("outer")
    inner = outer / "inner"
    inner.mkdir()
    try:
        extract(archive(bytes(blocks)), inner, Limits(max_bytes=MIB))
    except ArchiveRefused:
        assert list(inner.iterdir()) == []
    assert list(outer.iterdir()) == [inner]
    for path in inner.rglob("*"):
        assert stat.S_ISREG(path.lstat().st_mode) or stat.S_ISDIR(path.lstat().st_mode)
        assert not path.stat().st_mode & 0o7022


def test_a_full_folder_is_no_target(folder: Path) -> None:
    """Only an empty folder is unpacked into, so that emptying it again can lose nothing."""
    (folder / "mine").write_bytes(b"x")
    with pytest.raises(ValueError, match="not empty"):
        extract(archive(member("a", b"x")), folder)
    assert tree(folder) == {"mine": b"x"}


def test_an_error_of_the_source_leaves_nothing(folder: Path) -> None:
    """If the stream breaks, the folder is empty again and the error is the stream's own."""

    def broken() -> Iterator[bytes]:
        yield archive(member("a", os.urandom(3000))).getvalue()[:2000]
        raise OSError(errno.ECONNRESET, "gone")

    with pytest.raises(OSError, match="gone"):
        extract(broken(), folder)
    assert list(folder.iterdir()) == []


# What other programs write


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_other_programs_are_read(folder: Path, tmp_path: Path, form: int) -> None:
    """All three tar formats, a leading "./", long and non-ASCII names, modes, empty files and folders."""
    source = tmp_path / "source"
    long_name = "/".join(["part" * 12] * 3)
    (source / long_name).mkdir(parents=True)
    (source / long_name / "weights.bin").write_bytes(os.urandom(100_000))
    (source / "żółć.txt").write_bytes(b"")
    (source / "run.sh").write_bytes(b"#!")
    (source / "run.sh").chmod(0o775)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", format=form) as tar:
        tar.add(source, arcname=".")
    stream.seek(0)
    extract(stream, folder)
    assert tree(folder) == tree(source)
    assert stat.S_IMODE((folder / "run.sh").stat().st_mode) == 0o755


# Packing


def packed(folder: Path) -> io.BytesIO:
    stream = io.BytesIO()
    create(folder, stream)
    stream.seek(0)
    return stream


def test_a_model_is_packed_at_the_root(tmp_path: Path) -> None:
    """The contents lie at the archive's root, sorted, with their modes, readable for other programs."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").write_bytes(b"pass")
    (tmp_path / "model.json").write_bytes(b"{}")
    (tmp_path / "model.json").chmod(0o640)
    (tmp_path / "empty").mkdir(mode=0o700)
    with tarfile.open(fileobj=packed(tmp_path)) as tar:
        found = tar.getmembers()
    assert [entry.name for entry in found] == ["code", "code/inference.py", "empty", "model.json"]
    assert {entry.name: entry.mode for entry in found}["model.json"] == 0o640
    assert {(entry.uid, entry.gid, entry.uname, entry.gname) for entry in found} == {(0, 0, "", "")}


def test_packing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    """The archive depends on names, contents and modes, not on clocks or the order of creation."""
    for number, names in enumerate((["a", "b"], ["b", "a"])):
        side = tmp_path / str(number)
        side.mkdir()
        for name in names:
            (side / name).write_bytes(name.encode())
            os.utime(side / name, (number, number))
    assert packed(tmp_path / "0").getvalue() == packed(tmp_path / "1").getvalue()


def test_an_empty_folder_is_an_empty_archive(tmp_path: Path, folder: Path) -> None:
    """A job that left no model still has a valid model.tar.gz."""
    (tmp_path / "model").mkdir()
    stream = packed(tmp_path / "model")
    with tarfile.open(fileobj=stream) as tar:
        assert tar.getmembers() == []
    stream.seek(0)
    extract(stream, folder)
    assert tree(folder) == {}


def test_a_link_to_a_file_within_is_packed_as_the_file(tmp_path: Path, folder: Path) -> None:
    """Archives hold no links, so a link to a file of the same model becomes a copy of it."""
    model = tmp_path / "model"
    (model / "v1").mkdir(parents=True)
    (model / "v1" / "weights").write_bytes(b"w")
    (model / "latest").symlink_to("v1/weights")
    extract(packed(model), folder)
    assert tree(folder) == {"latest": b"w", "v1": None, "v1/weights": b"w"}
    assert not (folder / "latest").is_symlink()


@pytest.mark.parametrize("target", ["/etc/hostname", "../secret", "../model-2/secret", "nowhere", "loop", "v1", "."])
def test_every_other_link_is_refused(tmp_path: Path, target: str) -> None:
    """Links out of the model, to folders, to themselves or to nothing stop the packing and are named."""
    model = tmp_path / "model"
    (model / "v1").mkdir(parents=True)
    (tmp_path / "model-2").mkdir()
    (tmp_path / "model-2" / "secret").write_bytes(b"s")
    (tmp_path / "secret").write_bytes(b"s")
    (model / "loop").symlink_to(target)
    with pytest.raises(ArchiveRefused, match="'loop'"):
        packed(model)


def test_fifos_and_sockets_are_refused_without_waiting(tmp_path: Path) -> None:
    """What is neither file nor folder is refused, and opening it does not hang."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArchiveRefused, match=r"'pipe'.*neither a file nor a folder"):
        packed(tmp_path)
    (tmp_path / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(ArchiveRefused, match="'s'"):
            packed(tmp_path)


def test_names_that_extract_would_refuse_are_refused_at_packing(tmp_path: Path) -> None:
    """A model that could not be deployed fails the job that made it."""
    (tmp_path / "Model").write_bytes(b"x")
    (tmp_path / "model").write_bytes(b"x")
    if len(list(tmp_path.iterdir())) == 2:  # a file system that tells cases apart
        with pytest.raises(ArchiveRefused, match="only by case"):
            packed(tmp_path)
        (tmp_path / "Model").unlink()
    try:
        Path(os.fsdecode(bytes(tmp_path) + b"/\xff")).write_bytes(b"x")
    except OSError:
        return  # a file system that only knows UTF-8
    with pytest.raises(ArchiveRefused, match="not UTF-8"):
        packed(tmp_path)


def test_packing_and_unpacking_take_flat_memory(tmp_path: Path, folder: Path) -> None:
    """A file of 64 MiB passes both ways in pieces."""
    model = tmp_path / "model"
    model.mkdir()
    noise = os.urandom(MIB)
    with (model / "weights").open("wb") as file:
        file.writelines(noise for _ in range(64))
    tracemalloc.start()
    try:
        extract(pack(model), folder)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
    assert (folder / "weights").stat().st_size == 64 * MIB


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=6).filter(
    lambda name: name not in {".", ".."}
)
TREES = st.recursive(
    st.binary(max_size=1500),
    lambda inner: st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
).filter(lambda found: isinstance(found, dict))


def build(folder: Path, contents: dict[str, object]) -> None:
    for name, content in contents.items():
        if isinstance(content, dict):
            (folder / name).mkdir()
            build(folder / name, content)
        elif isinstance(content, bytes):
            (folder / name).write_bytes(content)


@UNHURRIED
@given(contents=TREES)
def test_what_is_packed_is_unpacked(tmp_path_factory: pytest.TempPathFactory, contents: dict[str, object]) -> None:
    """Any tree of files comes out as it went in, here and in the standard library, or its names collide."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    build(source, contents)
    try:
        stream = packed(source)
    except ArchiveRefused as refusal:
        assert "only by case" in str(refusal)  # noqa: PT017  a refusal is the rarer of two right ends
        return
    extract(stream, target)
    assert tree(target) == tree(source)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        names = [entry.name for entry in tar.getmembers()]
    assert sorted(names) == sorted(tree(source))
