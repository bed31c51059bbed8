"""A second Docker engine, on a machine of its own as far as the kernel can tell."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import docker
import psutil
import requests

from tests.docker_engine import probe_image
from tests.requirements import require

_SMALL = Path(__file__).parent / "images" / "small.py"
_LIMIT_SECONDS = 30.0
# It ends with the process that started it, however that ends.
_ALONE = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
_ALONE += ["--mount-proc"]
_MACHINE = """
read -r _
ip link set lo up
ip address add $ADDRESS/30 dev cable
ip link set cable up
mount -t tmpfs tmpfs "$HIDDEN"
mount -t tmpfs tmpfs "$FOLDER/run"
[ "$DISK" = 0 ] || mount -t tmpfs -o size="${DISK}m" tmpfs "$FOLDER/data"
exec "$PYTHON" -c "$LISTEN" dockerd --data-root "$FOLDER/data" --exec-root "$FOLDER/run" --pidfile "$FOLDER/run/pid" \
    --log-level warn --shutdown-timeout 1 --host fd://
"""
# The port is handed to the engine, as systemd does it: one that it opens itself it first warns of, for seconds.
_LISTEN = """
import os, socket, sys
port = socket.create_server((os.environ["ADDRESS"], 2375))
os.dup2(port.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Machine:
    """A Docker engine that has processes, a network and mounts of its own, and sees nothing below *hidden*.

    A cable of two ends joins the networks; over it the engine is asked by TCP and published ports are reached. With
    *disk_mib* the engine's files lie on a disk of that size, which is empty after each start.
    """

    def __init__(self, hidden: Path, disk_mib: int = 0) -> None:
        self._hidden = hidden
        self._disk_mib = disk_mib
        self._folder = Path(tempfile.mkdtemp(prefix="gr-"))  # Short, for sockets' paths.
        for name in ("data", "run"):
            (self._folder / name).mkdir()
        # A network of four addresses out of those that are kept for tests (RFC 2544).
        number = int.from_bytes(os.urandom(2)) & ~3
        self._network, self._here, self._there = (f"198.18.{number >> 8}.{(number & 255) + host}" for host in range(3))
        # Where it is switched off it is missing at once; without this its address would be looked for in the world.
        _ip("route", "add", "unreachable", f"{self._network}/30", "metric", "9999")
        self._plug = f"gr{os.urandom(4).hex()}"
        self._shell: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What DOCKER_HOST is to say."""
        return f"tcp://{self._there}:2375"

    def start(self) -> None:
        """Switch it on; returns when the engine answers."""
        variables = {"ADDRESS": self._there, "HIDDEN": str(self._hidden), "FOLDER": str(self._folder)}
        variables |= {"DISK": str(self._disk_mib), "PYTHON": sys.executable, "LISTEN": _LISTEN}
        with (self._folder / "log").open("ab") as log:
            self._shell = subprocess.Popen(
                [*_ALONE, "sh", "-ec", _MACHINE],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **variables},
            )
        process = str(self._process().pid)
        _ip("link", "add", self._plug, "type", "veth", "peer", "name", "cable", "netns", process)
        _ip("address", "add", f"{self._here}/30", "dev", self._plug)
        _ip("link", "set", self._plug, "up")
        assert self._shell.stdin is not None
        self._shell.stdin.write(b"\n")
        self._shell.stdin.close()
        self._until_it_answers()

    def stop(self) -> None:
        """End the engine as ``systemctl stop docker`` does; quiet if it has ended."""
        self._end(signal.SIGTERM)

    def cut(self) -> None:
        """Take its power away: what runs there ends, and nobody is told."""
        self._unplug()
        self._end(signal.SIGKILL)

    def remove(self) -> None:
        """End it and delete its files."""
        try:
            self.stop()
        finally:
            _ip("route", "delete", "unreachable", f"{self._network}/30", "metric", "9999")
            shutil.rmtree(self._folder)

    def load(self, name: str) -> None:
        """Give it the probe's programs as the image *name*."""
        client = docker.APIClient(self.url)
        repository, tag = name.split(":")
        client.import_image_from_data(_small_image(), repository, tag)
        client.close()

    def _end(self, number: signal.Signals) -> None:
        if self._shell is not None:
            with suppress(psutil.NoSuchProcess):
                self._process().send_signal(number)
            try:
                self._shell.wait(_LIMIT_SECONDS)
            finally:
                self._shell.kill()
                self._shell.wait()
                self._shell = None
                self._unplug()

    def _unplug(self) -> None:
        # The kernel would do it too, but some time after the network's last process has ended.
        subprocess.run(["ip", "link", "delete", self._plug], stderr=subprocess.DEVNULL, check=False)

    def _process(self) -> psutil.Process:
        """The engine, or the shell that becomes it."""
        assert self._shell is not None
        deadline = time.monotonic() + _LIMIT_SECONDS
        while True:
            children = psutil.Process(self._shell.pid).children()
            if children:
                return children[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _until_it_answers(self) -> None:
        deadline = time.monotonic() + _LIMIT_SECONDS
        while True:
            with suppress(requests.RequestException):
                requests.get(f"http://{self._there}:2375/_ping", timeout=1)
                return
            assert self._shell is not None
            is_late = self._shell.poll() is not None or time.monotonic() > deadline
            assert not is_late, (self._folder / "log").read_text()
            time.sleep(0.02)


@contextmanager
def machine(hidden: Path, disk_mib: int = 0) -> Iterator[Machine]:
    """A running machine; skips where none can be made."""
    probe_image()
    require("netns", _can_unshare, "no other machine can be made (needs root, dockerd, unshare and ip)")
    made = Machine(hidden, disk_mib)
    try:
        made.start()
        made.load("small:1")
        yield made
    finally:
        made.remove()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@cache
def _can_unshare() -> bool:
    if not all(map(shutil.which, ("dockerd", "ip", "setpriv", "unshare"))):
        return False
    return subprocess.run([*_ALONE, "true"], capture_output=True, check=False).returncode == 0


@cache
def _small_image() -> bytes:
    with _SMALL.open("rb") as program:
        run = ["docker", "run", "--rm", "--interactive", "--network", "none", probe_image(), "python3", "-"]
        return subprocess.run(run, stdin=program, stdout=subprocess.PIPE, check=True).stdout
