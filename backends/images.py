"""Building an image with the Docker engine, from files named one by one."""

import tarfile
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from docker import APIClient
from docker.errors import APIError, ImageNotFound

from backends.engine.runners.docker import answering, connect
from backends.errors import BackendError, NotFound

_LAST_LINES = 20
# Only what can differ between two builds of the same files: the owner, who is always root, and the clock, stopped.
_CLOCK = 315_532_800  # 1980-01-01T00:00:00Z

Say = Callable[[str], None]


class BuildFailed(BackendError):
    """The engine gave a build up; the text holds the last lines of it."""


def build(
    files: Mapping[str, Path], *, dockerfile: str, tag: str, base: str, arguments: Mapping[str, str], say: Say
) -> str:
    """Build the image *tag* on the image *base* and return its id.

    *files* is the whole build context: each file by its path there, *dockerfile* among them. *say* is called with each
    line of progress. Layers whose files have not changed come from the engine's cache.

    Raises:
        NotFound: a file, or the base image, is neither here nor to be had.
        BuildFailed: a step of the Dockerfile failed.
        BackendUnavailable: no engine answers.
    """
    for path in files.values():
        if not path.is_file():
            raise NotFound(f"the build of image {tag!r} needs {path}, which is not there.", kind="file", name=str(path))
    with answering(f"build {tag!r}"):
        client = connect()
        try:
            _fetch(client, base, say)
            return _build(client, files, dockerfile=dockerfile, tag=tag, arguments=arguments, say=say)
        finally:
            client.close()


def _fetch(client: APIClient, base: str, say: Say) -> None:
    """Pull *base* if the engine has no image of that name."""
    try:
        client.inspect_image(base)  # type: ignore[no-untyped-call]
    except ImageNotFound:
        say(f"fetching {base}")
    else:
        return
    name, colon, version = base.rpartition(":")
    repository, version = (name, version) if colon and "/" not in version else (base, "latest")
    try:
        for message in client.pull(repository, version, stream=True, decode=True):
            _check(message)
    except (APIError, _Refused) as exc:
        said = getattr(exc, "explanation", "") or exc
        raise NotFound(
            f"the base image {base!r} is not here and could not be fetched: {said}. Name another that has Python 3.11 "
            "or newer with --base-image; on Debian, scripts/base-image.sh makes one from packages.",
            kind="image",
            name=base,
        ) from exc


def _build(
    client: APIClient, files: Mapping[str, Path], *, dockerfile: str, tag: str, arguments: Mapping[str, str], say: Say
) -> str:
    lines: deque[str] = deque(maxlen=_LAST_LINES)
    with tempfile.TemporaryFile() as context:
        _pack(files, context)
        messages = client.build(
            fileobj=context,
            custom_context=True,
            dockerfile=dockerfile,
            tag=tag,
            buildargs=dict(arguments),
            rm=True,
            forcerm=True,
            decode=True,
        )
        try:
            for line in _lines(messages):
                lines.append(line)
                say(line)
        except _Refused as exc:
            shown = "\n".join(lines)
            raise BuildFailed(
                f"building image {tag!r} failed: {exc}; the last lines:\n{shown}", kind="image", name=tag
            ) from exc
    return str(client.inspect_image(tag)["Id"])  # type: ignore[no-untyped-call]


class _Refused(Exception):
    """The engine's own words in a stream of progress."""


def _lines(messages: Iterator[Mapping[str, str]]) -> Iterator[str]:
    for message in messages:
        _check(message)
        yield from (line.rstrip() for line in message.get("stream", "").splitlines() if line.strip())


def _check(message: Mapping[str, str]) -> None:
    if "error" in message:
        raise _Refused(message["error"].strip())


def _pack(files: Mapping[str, Path], context: BinaryIO) -> None:
    with tarfile.open(fileobj=context, mode="w") as tape:
        for name, path in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = path.stat().st_size
            entry.mtime = _CLOCK
            with path.open("rb") as file:
                tape.addfile(entry, file)
    context.seek(0)
