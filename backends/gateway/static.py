"""The page's files, as they are on disk now, with the headers that keep them to themselves."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from backends.gateway.events import HttpRequest, HttpResponse
from backends.page import CACHE_CONTROL, SECURITY_HEADERS, content_type

_OK, _PERMANENT_REDIRECT, _NOT_MODIFIED = 200, 308, 304


@dataclass(frozen=True)
class WebFolder:
    """A folder of files served under ``/``. Nothing outside it, hidden in it, or reached by a link is."""

    root: Path

    def answer(self, request: HttpRequest) -> HttpResponse | None:
        """The file *request* asks for, or None when there is none. Reads the disk."""
        try:
            return self._found(request)
        except (OSError, ValueError):
            # Not there, not ours to read, or no possible name.
            return None

    def _found(self, request: HttpRequest) -> HttpResponse | None:
        path = self._path(request.path)
        if path is None:
            return None
        if path.is_dir():
            if not request.path.endswith("/"):
                return self._redirect(path)
            path /= "index.html"
        elif request.path.endswith("/"):
            return None
        return _file_response(path, request)

    def _path(self, url_path: str) -> Path | None:
        """The path below the root that *url_path* means, if every part of it is plain and no link."""
        parts = [part for part in unquote(url_path, errors="surrogateescape").split("/") if part]
        if any(part.startswith(".") or "\\" in part or "\0" in part for part in parts):
            return None
        path = self.root
        for part in parts:
            path /= part
            if path.is_symlink():
                return None
        return path

    def _redirect(self, folder: Path) -> HttpResponse:
        # Relative links in its index.html need the slash. Built from the folder's path, so it cannot leave this host.
        location = quote("/" + folder.relative_to(self.root).as_posix() + "/")
        return HttpResponse(_PERMANENT_REDIRECT, (("location", location), *SECURITY_HEADERS), b"")


def _file_response(path: Path, request: HttpRequest) -> HttpResponse | None:
    # Not followed, should a link have taken its place; not blocking, should it be a pipe nobody writes to.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
        headers = (("cache-control", CACHE_CONTROL), ("etag", etag), *SECURITY_HEADERS)
        if etag in (tag.strip().removeprefix("W/") for tag in request.header("if-none-match").split(",")):
            return HttpResponse(_NOT_MODIFIED, headers, b"")
        return HttpResponse(_OK, (("content-type", content_type(path.suffix)), *headers), file.read())
