"""A registry of container images on this machine that lets in who knows the password: Debian's docker-registry."""

import json
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.requirements import require

USERNAME, PASSWORD = "AWS", "only-for-tests"
_BCRYPT = "$2b$05$abcdefghijklmnopqrstuuDt8u8tY.Zm8YU.pieFNyF5h5afvnc0a"


@dataclass(frozen=True)
class Registry:
    """A registry at *host*, without a scheme, as image names have it."""

    host: str

    def document(self, path: str) -> Any:
        """What the registry answers about *path*; None if it has no such thing."""
        request = urllib.request.Request(f"http://{self.host}/v2/{path}")
        request.add_header("Authorization", "Basic " + b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return None


@contextmanager
def registry(folder: Path) -> Iterator[Registry]:
    """A fresh registry, gone afterwards; the Docker engine speaks plain HTTP to this machine's loopback."""
    require("registry", lambda: bool(shutil.which("docker-registry")), "there is no docker-registry (a Debian package)")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host = f"127.0.0.1:{taken.getsockname()[1]}"
    (folder / "htpasswd").write_text(f"{USERNAME}:{_BCRYPT}\n")
    settings = {
        "version": 0.1,
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "images")}},
        "http": {"addr": host, "secret": "of no use"},
        "auth": {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}},
    }
    (folder / "config.yml").write_text(json.dumps(settings))  # YAML is a superset of JSON.
    with subprocess.Popen(
        ["docker-registry", "serve", folder / "config.yml"], stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        try:
            assert any("listening on" in line for line in server.stderr), "the registry did not start"
            threading.Thread(target=server.stderr.read, daemon=True).start()  # Lest its log fill the pipe.
            yield Registry(host)
        finally:
            server.terminate()
            server.wait(20)
