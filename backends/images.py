"""Building an image with the Docker engine, from files named one by one, and pushing it to a registry."""

import tarfile
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from docker import APIClient
from docker.errors import APIError, ImageNotFound

from backends.engine.runners.base import NO_SPACE
from backends.engine.runners.docker import DISK_FULL, answering, connect
from backends.errors import BackendError, NotFound

_LAST_LINES = 20
_VERSION_SECONDS = 10
# Only what can differ between two builds of the same files: the owner, who is always root, and the clock, stopped.
_CLOCK = 315_532_800  # 1980-01-01T00:00:00Z


Say = Callable[[str], None]
Advance = Callable[[float], None]


class PushFailed(BackendError):
    """The registry did not take an image; the text holds its own words."""


class BuildFailed(BackendError):
    """The engine gave a build up; the text holds the last lines of it."""


def engine_version() -> str:
    """The version of the Docker engine that images and containers are made with. Raises BackendUnavailable: none."""
    with answering("say its version"):
        client = connect(timeout_seconds=_VERSION_SECONDS)
        try:
            return str(client.version()["Version"])
        finally:
            client.close()


def build(
    files: Mapping[str, Path],
    *,
    dockerfile: str,
    tag: str,
    base: str,
    arguments: Mapping[str, str],
    say: Say,
    platform: str = "",
) -> str:
    """Build the image *tag* on the image *base* and return its id.

    *files* is the whole build context: each file by its path there, *dockerfile* among them. *say* is called with each
    line of progress. Layers whose files have not changed come from the engine's cache. *platform*, such as
    ``linux/amd64``, is the engine's own if empty.

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
            _fetch(client, base, say, platform)
            return _build(
                client, files, dockerfile=dockerfile, tag=tag, arguments=arguments, say=say, platform=platform
            )
        finally:
            client.close()


def push(image: str, uri: str, *, username: str, password: str, advance: Advance) -> None:
    """Push the engine's *image* to the registry as *uri*, its host included; no other name of it stays in the engine.

    The credentials go to the engine with this one request: no file of Docker's holds them. *advance* is called with
    the share of bytes that are there, 0 to 1, of the layers that have begun so far.

    Raises:
        PushFailed: the registry refuses, is not reached, or has not all of it.
        BackendUnavailable: no engine answers.
    """
    repository, _, tag = uri.rpartition(":")
    with answering(f"push {image!r}"):
        client = connect()
        try:
            client.tag(image, repository, tag)
            try:
                messages = client.push(
                    repository,
                    tag=tag,
                    stream=True,
                    decode=True,
                    auth_config={"username": username, "password": password},
                )
                _follow(messages, advance)
            except _Refused:
                deque(messages, maxlen=0)  # A connection is given back at the end of its answer.
                raise
            finally:
                client.remove_image(uri, noprune=True)
        except _Refused as exc:
            raise PushFailed(
                f"{uri} was not pushed: {exc}. Nothing is used of it; do it again, and what is there already is not "
                "sent again.",
                kind="image",
                name=uri,
            ) from exc
        finally:
            client.close()


def _follow(messages: Iterator[Mapping[str, Any]], advance: Advance) -> None:
    sizes: dict[str, tuple[int, int]] = {}
    for message in messages:
        _check(message)
        detail = message.get("progressDetail") or {}
        if "total" in detail:
            sizes[message["id"]] = (min(detail["current"], detail["total"]), detail["total"])
            there, whole = (sum(part) for part in zip(*sizes.values(), strict=True))
            advance(there / max(1, whole))


def _fetch(client: APIClient, base: str, say: Say, platform: str) -> None:
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
        for message in client.pull(repository, version, stream=True, decode=True, platform=platform or None):
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
    client: APIClient,
    files: Mapping[str, Path],
    *,
    dockerfile: str,
    tag: str,
    arguments: Mapping[str, str],
    say: Say,
    platform: str,
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
            platform=platform or None,
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
            hint = f" ({DISK_FULL})" if NO_SPACE.lower() in str(exc).lower() else ""
            raise BuildFailed(
                f"building image {tag!r} failed: {exc}{hint}; the last lines:\n{shown}", kind="image", name=tag
            ) from exc
    return str(client.inspect_image(tag)["Id"])  # type: ignore[no-untyped-call]


class _Refused(Exception):
    """The engine's own words in a stream of progress."""


def _lines(messages: Iterator[Mapping[str, str]]) -> Iterator[str]:
    for message in messages:
        _check(message)
        yield from (line.rstrip() for line in message.get("stream", "").splitlines() if line.strip())


def _check(message: Mapping[str, Any]) -> None:
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
