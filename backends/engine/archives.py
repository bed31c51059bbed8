"""``model.tar.gz`` both ways: unpacking what others made, with suspicion, and packing what a job left.

The tar reader is our own, over a stream that is read once, front to back. The standard library's
reader buffers whole extended headers of any claimed size, follows sizes backwards, and its ``data``
filter has been led astray by links; here only regular files and folders exist at all, every name is
judged after all ways to override it, and every byte that comes out of gzip counts against a limit.

Both ways obey one rule book, so whatever :func:`pack` writes :func:`extract` takes.

Between this machine and a container files travel as plain tar: :func:`tar` and :func:`receive`. There the framing is
the container engine's own, so the standard library reads it; names and links are judged as above.
"""

import os
import posixpath
import shutil
import stat
import tarfile
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, Never

from backends.engine.records import CorruptGzip, gunzip
from backends.errors import InvalidSpec
from backends.stores import PIECE_BYTES, pieces, stream_of

GIBIBYTE = 1024**3

_BLOCK = tarfile.BLOCKSIZE
_MAX_EXTENDED_HEADER_BYTES = 64 * 1024
_MAX_NAME_BYTES = 1024
_MAX_COMPONENT_BYTES = 255
_MAX_DEPTH = 64
# Small archives may be anything (a file of zeros packs 1000 : 1); the ratio is judged from here on.
_RATIO_COUNTS_FROM_BYTES = 64 * 1024**2
_SETUID_OR_SETGID = stat.S_ISUID | stat.S_ISGID
# Nothing that trains twice alike should differ in its archive, so no clock enters it. Not 0: GNU tar
# warns of "implausibly old" files.
_PACKED_MTIME = 315_532_800  # 1980-01-01T00:00:00Z
# Dense float weights shrink to 93 % at any level; sparse ones to 54 % at level 1 and 48 % at zlib's usual 6,
# which takes four times as long. A rehearsal on this machine is better served by the time.
_PACKED_LEVEL = 1

_GZIP_FORMAT = 31  # zlib's window size 15, plus 16 for a gzip frame

_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a fifo",
    b"S": "a sparse file",
}


class ArchiveRefused(InvalidSpec):
    """An archive that will not be unpacked, or a folder that cannot be packed; ``name`` is the member."""

    def __init__(self, member: str, reason: str) -> None:
        shown = ascii(member) if member else "the archive itself"
        super().__init__(f"archive refused because of {shown}: {reason}", kind="archive", name=member, reason=reason)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one archive may cost.

    *max_bytes* counts what comes out of gzip, headers included; by default the volume that SageMaker
    gives a batch transform. *max_entries* counts headers of every kind. *max_ratio* is how many bytes
    may come out for each that went in, judged once more than 64 MiB came out.
    """

    max_bytes: int = 30 * GIBIBYTE
    max_entries: int = 100_000
    max_ratio: float = 200


DEFAULT_LIMITS = Limits()


def extract(stream: BinaryIO | Iterable[bytes], folder: Path, limits: Limits = DEFAULT_LIMITS) -> None:
    """Unpack the tar.gz *stream* into the empty *folder*.

    Files keep their permission bits, without write for group and others and never without read and
    write for the owner; owners, times and the set-id bits of folders are not restored. Should anything
    go wrong, *folder* is emptied again.

    Raises:
        ArchiveRefused: a name that leaves the folder or is given twice (also by case), a link, device,
            fifo, sparse or set-id file, a limit, damage; its ``name`` is the member's.
        ValueError: *folder* is not empty.
    """
    if any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; archives are only unpacked into an empty folder")
    try:
        _unpack(_Tape(stream, limits), folder)
    except CorruptGzip as exc:
        _empty(folder)
        raise ArchiveRefused("", f"{exc} A model archive must be a gzip-compressed tar.") from exc
    except BaseException:
        _empty(folder)
        raise


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _unpack(tape: "_Tape", folder: Path) -> None:
    names = _Names()
    folder_modes: dict[str, int] = {}
    for member in _members(tape):
        inner = names.admit(member.name, is_folder=member.is_folder)
        parents = inner if member.is_folder else inner[:-1]
        for depth in range(1, len(parents) + 1):
            _make_folder(folder, "/".join(parents[:depth]), folder_modes)
        if member.is_folder and inner:
            folder_modes["/".join(inner)] = member.mode & 0o755 | 0o700
        elif inner:
            _write_file(tape, member, folder / "/".join(inner))
    for path, mode in folder_modes.items():
        (folder / path).chmod(mode)


def _make_folder(root: Path, path: str, made: dict[str, int]) -> None:
    if path not in made:
        (root / path).mkdir(mode=0o700)
        made[path] = 0o755


def _write_file(tape: "_Tape", member: "_Member", path: Path) -> None:
    # EXCL and NOFOLLOW: even a link that another process planted is not written through.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as file:  # noqa: PTH123  of a descriptor
        file.writelines(tape.content(member))
        os.fchmod(file.fileno(), member.mode & 0o755 | 0o600)


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    mode: int
    is_folder: bool


class _Tape:
    """The decompressed archive, read front to back under *limits*."""

    def __init__(self, stream: BinaryIO | Iterable[bytes], limits: Limits) -> None:
        self._limits = limits
        self._packed_bytes = 0
        self._bytes = 0
        self._entries = 0
        self._chunks = gunzip(self._counted(stream))
        self._held = memoryview(b"")
        self.member = ""

    def _counted(self, stream: BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces(stream):
            self._packed_bytes += len(piece)
            yield piece

    def _some(self, most: int) -> memoryview:
        """At least one and at most *most* bytes; none at the end."""
        if not self._held:
            self._held = memoryview(next(self._chunks, b""))
            self._bytes += len(self._held)
            self._check()
        some, self._held = self._held[:most], self._held[most:]
        return some

    def _check(self) -> None:
        if self._bytes > self._limits.max_bytes:
            self.refuse(f"the archive unpacks to more than {self._limits.max_bytes} bytes")
        allowed = max(_RATIO_COUNTS_FROM_BYTES, self._limits.max_ratio * self._packed_bytes)
        if self._bytes > allowed:
            self.refuse(f"the archive unpacks to more than {self._limits.max_ratio:g} times its size")

    def refuse(self, reason: str) -> Never:
        raise ArchiveRefused(self.member, reason)

    def pieces_of(self, size: int) -> Iterator[memoryview]:
        """The next *size* bytes."""
        while size:
            piece = self._some(size)
            if not piece:
                self.refuse("the archive ends in the middle of it")
            size -= len(piece)
            yield piece

    def block(self) -> bytes:
        """The next header block; empty at the end mark or the end of the data."""
        self.member = ""
        first = self._some(_BLOCK)
        if not first:
            return b""
        block = b"".join([first, *self.pieces_of(_BLOCK - len(first))])
        return block if any(block) else b""

    def count_entry(self) -> None:
        """Note one more header of any kind."""
        self._entries += 1
        if self._entries > self._limits.max_entries:
            self.refuse(f"the archive has more than {self._limits.max_entries} entries")

    def extended(self, size: int) -> bytes:
        """The content of an extended header."""
        if size > _MAX_EXTENDED_HEADER_BYTES:
            self.refuse(f"an extended header of {size} bytes")
        content = b"".join(self.pieces_of(size))
        self._skip_padding(size)
        return content

    def content(self, member: _Member) -> Iterator[memoryview]:
        """The member's content; must be read to its end before the next header."""
        if member.size > self._limits.max_bytes - self._bytes + len(self._held):
            self.refuse(f"the archive unpacks to more than {self._limits.max_bytes} bytes")
        yield from self.pieces_of(member.size)
        self._skip_padding(member.size)

    def _skip_padding(self, size: int) -> None:
        for _ in self.pieces_of(-size % _BLOCK):
            pass

    def finish(self) -> None:
        """Read what follows the end mark, so that gzip's checksum is verified."""
        while self._some(PIECE_BYTES):
            pass


def _members(tape: _Tape) -> Iterator[_Member]:
    """Yield files and folders; anything else is refused. The caller reads each file's content."""
    override = _Override()
    while block := tape.block():
        header = _Header(block, tape)
        tape.count_entry()
        if header.kind in b"xgLK":
            override.read(header, tape)
            continue
        member = header.member(override, tape)
        override = _Override()
        yield member
    if override != _Override():
        tape.refuse("an extended header without the entry that it describes")
    tape.finish()


@dataclass
class _Override:
    """What extended headers say of the next entry, instead of its own header."""

    name: bytes | None = None
    size: int | None = None
    _seen: set[bytes] = field(default_factory=set)

    def read(self, header: "_Header", tape: _Tape) -> None:
        content = tape.extended(header.size)
        if header.kind in self._seen:
            tape.refuse("two extended headers of one kind for one entry")
        if header.kind == b"g":
            self._refuse_global(content, tape)
            return
        self._seen.add(header.kind)
        if header.kind == b"L":
            self._rename(content.removesuffix(b"\0"), tape)
        elif header.kind == b"x":
            self._read_pax(content, tape)

    def _rename(self, name: bytes, tape: _Tape) -> None:
        if self.name is not None:
            tape.refuse("its name is overridden twice")
        self.name = name

    def _read_pax(self, content: bytes, tape: _Tape) -> None:
        for keyword, value in _pax_records(content, tape):
            if keyword == b"path":
                self._rename(value, tape)
            elif keyword == b"size":
                self.size = _number(value, 10, tape)
            elif keyword.startswith(b"GNU.sparse."):
                tape.refuse(f"{_KINDS[b'S']} is not allowed in an archive")

    @staticmethod
    def _refuse_global(content: bytes, tape: _Tape) -> None:
        for keyword, _ in _pax_records(content, tape):
            if keyword in {b"path", b"linkpath", b"size"} or keyword.startswith(b"GNU.sparse."):
                tape.refuse(f"a global header overrides {keyword.decode()!r} of every entry")


def _pax_records(content: bytes, tape: _Tape) -> Iterator[tuple[bytes, bytes]]:
    """Yield keyword and value of each "length keyword=value" line; the length counts the whole line."""
    start = 0
    while start < len(content):
        digits, space, _ = content[start : start + 8].partition(b" ")
        end = start + _number(digits, 10, tape)
        keyword, equals, value = content[start + len(digits) + 1 : end - 1].partition(b"=")
        if not (space and equals and keyword and end <= len(content) and content[end - 1 : end] == b"\n"):
            tape.refuse("a damaged extended header")
        yield keyword, value
        start = end


def _number(digits: bytes, base: Literal[8, 10], tape: _Tape) -> int:
    # int() alone takes signs, blanks inside and underscores.
    if not digits or digits.strip(b"01234567" if base == 8 else b"0123456789") or len(digits) > 20:
        tape.refuse(f"{digits[:32]!r} is not a number of a tar header")
    return int(digits, base)


class _Header:
    """One 512-byte ustar, GNU or old-style header block."""

    def __init__(self, block: bytes, tape: _Tape) -> None:
        tape.member = _shown(block[:100].partition(b"\0")[0])
        self._block = block
        stated = self._octal(148, 8, tape)
        unsigned = sum(block) - sum(block[148:156]) + 8 * ord(" ")
        if stated != unsigned:
            tape.refuse("its header is damaged (wrong checksum)")
        self.kind = block[156:157]
        self.size = self._octal(124, 12, tape)
        self._mode = self._octal(100, 8, tape)

    def _octal(self, start: int, width: int, tape: _Tape) -> int:
        raw = self._block[start : start + width]
        if raw[0] == 0x80:  # GNU's mark of a binary number; 0xff would be a negative one
            return int.from_bytes(raw[1:])
        digits = raw.partition(b"\0")[0].strip(b" ")
        return _number(digits, 8, tape) if digits else 0

    def _own_name(self) -> bytes:
        name = self._block[:100].partition(b"\0")[0]
        prefix = self._block[345:500].partition(b"\0")[0]
        # Only POSIX headers have a prefix; GNU's, whose magic ends in blanks, keep times there.
        return prefix + b"/" + name if prefix and self._block[257:263] == b"ustar\0" else name

    def member(self, override: _Override, tape: _Tape) -> _Member:
        """The file or folder described by this header and what overrides it."""
        raw = self._own_name() if override.name is None else override.name
        tape.member = _shown(raw)
        size = self.size if override.size is None else override.size
        is_folder = self.kind == b"5" or (self.kind == b"\0" and raw.endswith(b"/"))
        if self.kind not in b"05\x007":
            kind = _KINDS.get(self.kind, f"an entry of type {self.kind!r}")
            tape.refuse(f"{kind} is not allowed in an archive")
        if not is_folder and self._mode & _SETUID_OR_SETGID:
            tape.refuse("a set-user-id or set-group-id file is not allowed in an archive")
        if is_folder and size:
            tape.refuse("a folder with content")
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            tape.refuse("its name is not UTF-8")
        return _Member(name, size, self._mode, is_folder)


def _shown(raw: bytes) -> str:
    return raw[:_MAX_NAME_BYTES].decode(errors="backslashreplace")


class _Names:
    """The rule book of names: relative, contained, short, and no two alike on any file system."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], tuple[tuple[str, ...], bool | None]] = {}

    def admit(self, name: str, *, is_folder: bool) -> tuple[str, ...]:
        """Judge the next entry's name; return its components (none for the root folder).

        Raises:
            ArchiveRefused: the name breaks a rule, by itself or together with an earlier one.
        """
        parts = self._parts(name)
        if not parts and not is_folder:
            raise ArchiveRefused(name, "a file needs a name")
        for depth in range(1, len(parts) + 1):
            self._enter(name, parts[:depth], is_folder=is_folder or depth < len(parts))
        return parts

    @staticmethod
    def _parts(name: str) -> tuple[str, ...]:
        parts = tuple(part for part in name.split("/") if part not in {"", "."})
        if "\0" in name:
            raise ArchiveRefused(name, "a NUL in its name")
        if name.startswith("/"):
            raise ArchiveRefused(name, "its path is absolute")
        if ".." in parts:
            raise ArchiveRefused(name, "its path leads out of the folder")
        sizes = [len(part.encode(errors="surrogatepass")) for part in parts]
        if sum(sizes) + len(parts) > _MAX_NAME_BYTES or max(sizes, default=0) > _MAX_COMPONENT_BYTES:
            raise ArchiveRefused(
                name, f"its name is too long ({_MAX_COMPONENT_BYTES} bytes a component, {_MAX_NAME_BYTES} in all)"
            )
        if len(parts) > _MAX_DEPTH:
            raise ArchiveRefused(name, f"it lies deeper than {_MAX_DEPTH} folders")
        return parts

    def _enter(self, name: str, path: tuple[str, ...], *, is_folder: bool) -> None:
        folded = tuple(unicodedata.normalize("NFC", part).casefold() for part in path)
        spelled, was_folder = self._known.setdefault(folded, (path, None))
        self._known[folded] = (spelled, is_folder)
        if spelled != path:
            raise ArchiveRefused(name, f"it differs only by case or accents' encoding from {'/'.join(spelled)!r}")
        if was_folder is not None and not (was_folder and is_folder):
            raise ArchiveRefused(name, "the same name is given twice")


def receive(chunks: Iterable[bytes], folder: Path, *, origin: str, limits: Limits = DEFAULT_LIMITS) -> None:
    """Unpack into the empty *folder* the tar that a container engine made of *origin*, such as ``/opt/ml/model``.

    Everything belongs to this process's user afterwards; files keep their times. A link to a file within *origin*
    becomes a copy of the file, as in :func:`pack`.

    Raises:
        ArchiveRefused: another link, a device or fifo, a name or a limit as in :func:`extract`.
    """
    names = _Names()
    made: dict[str, int] = {}
    links: dict[str, str] = {}
    top = posixpath.basename(origin)
    size = 0
    with tarfile.open(fileobj=stream_of(chunks), mode="r|") as tape:
        for count, member in enumerate(tape, start=1):
            size += member.size
            if count > limits.max_entries or size > limits.max_bytes:
                raise ArchiveRefused(member.name, f"more than {limits.max_entries} entries or {limits.max_bytes} bytes")
            inner = names.admit(member.name.removeprefix(top).lstrip("/"), is_folder=member.isdir())
            path = "/".join(inner)
            for depth in range(1, len(inner) + member.isdir()):
                _make_folder(folder, "/".join(inner[:depth]), made)
            if member.issym():
                links[path] = _within(origin, posixpath.join(origin, posixpath.dirname(path), member.linkname), path)
            elif member.islnk():
                links[path] = _within(origin, posixpath.join(posixpath.dirname(origin), member.linkname), path)
            elif member.isreg():
                _write_received(tape, member, folder / path)
            elif not member.isdir():
                raise ArchiveRefused(path, "it is neither a file nor a folder")
    _copy_linked(folder, links)


def _within(origin: str, target: str, link: str) -> str:
    """The path below *origin* of the absolute *target* of a link."""
    path = posixpath.normpath(target)
    if not path.startswith(f"{origin}/"):
        raise ArchiveRefused(link, f"a link to {path!r}, which is not a file within the folder")
    return path.removeprefix(f"{origin}/")


def _write_received(tape: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    content = tape.extractfile(member)
    assert content is not None
    with open(os.open(path, flags, 0o600), "wb") as file:  # noqa: PTH123  of a descriptor
        shutil.copyfileobj(content, file, PIECE_BYTES)
        os.fchmod(file.fileno(), member.mode & 0o777 | 0o600)
    os.utime(path, (member.mtime, member.mtime))


def _copy_linked(folder: Path, links: dict[str, str]) -> None:
    for link, named in links.items():
        target, seen = named, {link}
        while target in links and target not in seen:
            seen.add(target)
            target = links[target]
        if not (folder / target).is_file():
            raise ArchiveRefused(link, f"a link to {target!r}, which is not a file within the folder")
        shutil.copy2(folder / target, folder / link)


def create(folder: Path, destination: BinaryIO) -> None:
    """Write what :func:`pack` yields for *folder* to *destination*."""
    destination.writelines(pack(folder))


def pack(folder: Path) -> Iterator[bytes]:
    """Yield the tar.gz of what is in *folder*, with its contents at the archive's root.

    The same files give the same bytes: names are sorted, owners are 0, times are fixed, permission bits
    are kept without set-id and sticky bits. An empty folder gives a valid archive without entries.

    A link to a regular file within *folder* is packed as a copy of that file, because archives with
    links are refused wherever they are unpacked. Every other link is refused: following it could carry
    off files of this machine, or a folder without end. So are fifos, sockets and devices: leaving them
    out silently would hide a broken model.

    Raises:
        ArchiveRefused: something in *folder* cannot be packed, or :func:`extract` would refuse its name.
    """
    compressor = zlib.compressobj(_PACKED_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
    yield from filter(None, map(compressor.compress, _tar_of(folder, _Names())))
    yield compressor.flush()


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and path of every file that :func:`pack` would pack. Raises ArchiveRefused as it does."""
    root, names = os.path.realpath(folder), _Names()
    for name, entry in _tree(folder, ""):
        is_folder = entry.is_dir(follow_symlinks=False)
        names.admit(name, is_folder=is_folder)
        if not is_folder:
            yield name, Path(_file_within(root, name, entry))


def tar(folder: Path) -> Iterator[bytes]:
    """Yield the uncompressed tar of what is in *folder*, for a container's file system: any names, root's files.

    Raises:
        ArchiveRefused: a link that leads out of *folder*, a fifo, a socket or a device.
    """
    return _tar_of(folder, None)


def _tar_of(folder: Path, names: _Names | None) -> Iterator[bytes]:
    root = os.path.realpath(folder)
    for name, entry in _tree(folder, ""):
        is_folder = entry.is_dir(follow_symlinks=False)
        if names is not None:
            names.admit(name, is_folder=is_folder)
        if is_folder:
            yield _tar_header(name, entry.stat(follow_symlinks=False), 0)
        else:
            yield from _tar_file(name, _file_within(root, name, entry))
    yield bytes(2 * _BLOCK)


def _tree(folder: str | Path, inner: str) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Yield everything below *folder* with its name in the archive; a folder before what is in it."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    for entry in found:
        name = inner + entry.name
        if not _is_unicode(name):
            raise ArchiveRefused(name, "its name is not UTF-8")
        yield name, entry
        if entry.is_dir(follow_symlinks=False):
            yield from _tree(entry.path, f"{name}/")


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _file_within(root: str, name: str, entry: "os.DirEntry[str]") -> str:
    """The path of the regular file that *entry* is, or is a link to."""
    if not entry.is_symlink():
        if not entry.is_file():
            raise ArchiveRefused(name, "it is neither a file nor a folder")
        return entry.path
    try:
        target = os.path.realpath(entry.path, strict=True)
    except OSError as exc:
        raise ArchiveRefused(name, "a link that leads nowhere") from exc
    if not target.startswith(root.rstrip("/") + "/") or not Path(target).is_file():
        raise ArchiveRefused(name, f"a link to {target!r}, which is not a file within the folder")
    return target


def _tar_file(name: str, path: str) -> Iterator[bytes]:
    # NONBLOCK: should a fifo have taken the file's place, opening it must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123  of a descriptor
        status = os.fstat(descriptor)
        left = status.st_size
        yield _tar_header(name, status, left)
        while left:
            piece = file.read(min(left, PIECE_BYTES))
            if not piece:
                raise ArchiveRefused(name, "it became shorter while it was packed")
            left -= len(piece)
            yield piece
    yield bytes(-status.st_size % _BLOCK)


def _tar_header(name: str, status: os.stat_result, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if stat.S_ISDIR(status.st_mode) else tarfile.REGTYPE
    info.size = size
    info.mode = status.st_mode & 0o777
    info.mtime = _PACKED_MTIME
    return info.tobuf(tarfile.PAX_FORMAT)
