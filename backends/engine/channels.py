"""Objects of the store → files of a channel.

A prefix is a string prefix; a key becomes the path behind the prefix's folder (contract A.7). A manifest names its
objects one by one. A key that cannot be a file is a clear failure of the job, never a path outside the channel.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from backends.base import ObjectStore
from backends.errors import InvalidSpec
from backends.naming import split_uri

_MAX_COMPONENT_BYTES = 255


class UnusableKey(InvalidSpec):
    """An object's key cannot become a file of the channel."""


def relative_key(prefix: str, key: str) -> str:
    """The part of *key* that names it within *prefix*.

    ``p/input`` + ``p/input/a/b`` → ``a/b``; ``p/in`` + ``p/input/a`` → ``input/a``; a prefix that is the whole
    key → its last component.
    """
    if key == prefix:
        return key.rpartition("/")[2]
    if key.startswith(prefix.rstrip("/") + "/"):
        return key[len(prefix.rstrip("/")) + 1 :]
    return key[len(prefix.rpartition("/")[0]) :].lstrip("/") if "/" in prefix else key


def download(
    store: ObjectStore,
    uri: str,
    folder: Path,
    *,
    share: tuple[int, int] = (0, 1),
    is_manifest: bool = False,
    takes_folders: bool = True,
) -> int:
    """Copy the objects whose URI starts with *uri*, or that the manifest there names, into *folder*; return how many.

    *share* (i, n) is ShardedByS3Key's: of the sorted keys (of a manifest: in its order) those whose number is i modulo
    n. SageMaker does not say how it deals them out. *takes_folders* false refuses empty objects that stand for folders,
    as SageMaker does in models (B.3).

    Raises:
        UnusableKey: a key has a component such as ``..``, or two keys want the same path.
        InvalidSpec: the manifest is none.
        NotFound: it names an object that is not there.
    """
    count = 0
    turn, shares = share
    found = _in_manifest(store, uri) if is_manifest else _below(store, uri)
    for source, relative, is_folder in islice(found, turn, None, shares):
        if is_folder and not takes_folders:
            raise UnusableKey(f"{source} stands for a folder, which a model may not hold; delete that object.")
        if is_folder and not relative.rstrip("/"):
            continue  # The prefix's own folder object, which S3's console makes.
        target = _target(folder, relative, source)
        _claim(target, source, is_folder=is_folder)
        if not is_folder:
            store.download(source, target)
            count += 1
    return count


def download_one(store: ObjectStore, uri: str, folder: Path) -> None:
    """Copy the object *uri* into *folder*, under the last part of its key. Raises UnusableKey or NotFound."""
    _, key = split_uri(uri)
    store.download(uri, _target(folder, key.rpartition("/")[2], uri))


def _below(store: ObjectStore, uri: str) -> Iterator[tuple[str, str, bool]]:
    """URI and path within the channel of each object; whether it stands for a folder."""
    _, prefix = split_uri(uri, key_required=False)
    for info in store.list_objects(uri):
        _, key = split_uri(info.uri)
        yield info.uri, relative_key(prefix, key), key.endswith("/") and info.size_bytes == 0


def _in_manifest(store: ObjectStore, uri: str) -> Iterator[tuple[str, str, bool]]:
    """The same for the objects of a manifest: ``[{"prefix": "s3://bucket/p/"}, "a", "b/c"]``."""
    try:
        head, *suffixes = json.loads(store.get(uri))
        prefix = head["prefix"]
        uris = [prefix + suffix for suffix in suffixes]
    except (ValueError, TypeError, KeyError) as exc:
        raise InvalidSpec(
            f'{uri} is not a manifest: a JSON list is due that begins with {{"prefix": "s3://…"}} and goes on with the '
            "ends of keys.",
            kind="manifest",
            name=uri,
        ) from exc
    for source, suffix in zip(uris, suffixes, strict=True):
        split_uri(source)
        yield source, suffix.lstrip("/"), False


def _target(folder: Path, relative: str, uri: str) -> Path:
    parts = relative.rstrip("/").split("/")
    for part in parts:
        if part in {"", ".", ".."} or "\0" in part or len(part.encode()) > _MAX_COMPONENT_BYTES:
            raise UnusableKey(
                f"{uri} cannot become a file of the channel: its key has the component {part!r}. "
                "Rename the object, or narrow the channel's prefix."
            )
    return folder.joinpath(*parts)


def _claim(target: Path, uri: str, *, is_folder: bool) -> None:
    try:
        (target if is_folder else target.parent).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as exc:
        raise UnusableKey(f"{uri} needs a folder where another object of the channel is a file.") from exc
    if target.exists() and not is_folder:
        raise UnusableKey(f"{uri} needs the path {target.name!r}, which another object of the channel took.")
