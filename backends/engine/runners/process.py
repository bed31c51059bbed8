"""The embedded default: an image's own ``train`` and ``serve`` as processes of this machine.

An image is a folder that holds the two programs. /opt/ml is re-rooted through ``SAGEMAKER_BASE_DIR`` and the
port given through ``SAGEMAKER_BIND_TO_PORT``, the variables that SageMaker's own toolkits read. The program has
the user's rights and the user's network: this runner isolates mistakes, not malice (docs/fidelity.md).
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from backends.engine.logs import tail
from backends.engine.runners.base import (
    DUMMY_CREDENTIALS,
    NO_SPACE,
    Address,
    ImageMissing,
    Program,
    Runner,
    Running,
)

LABEL_VARIABLE = "GREENROOM_RUN"
# Below the range from which Linux and macOS take the ports of outgoing connections and of bind(0), so that nothing
# takes a port by chance between our choice and the program's bind.
_PORTS = range(20_000, 32_000)
_SWEEP_PAUSE_SECONDS = 0.01


class ProcessRunner(Runner):
    """Runs programs as process groups of this machine.

    *images* maps image names to folders. *aws_endpoint_url* is AWS for the programs, as SageMaker's training toolkit
    and boto3 are told; empty, they are told nothing.
    """

    most_hosts = 1

    def __init__(self, images: Mapping[str, str], aws_endpoint_url: str = "") -> None:
        self._images = images
        names = ("AWS_ENDPOINT_URL", "S3_ENDPOINT_URL") if aws_endpoint_url else ()
        self._aws = {**DUMMY_CREDENTIALS, **dict.fromkeys(names, aws_endpoint_url)}

    def check(self, image: str) -> None:
        self._folder(image)

    def start(self, program: Program) -> Running:
        folder = self._folder(program.image)
        command = [*program.entrypoint, *program.arguments] or [program.argument]
        port = _free_port() if program.serves else 0
        environment = _environment(program, folder, port, self._aws)
        executable = _executable(command[0], folder, environment["PATH"])
        if executable is None:
            raise ImageMissing(
                f"image {program.image!r} ({folder}) has no executable {command[0]!r} on its PATH; "
                f"put one there (chmod +x) or give the job an entrypoint."
            )
        with program.log_path.open("ab") as log:
            process = subprocess.Popen(
                command,
                executable=executable,
                cwd=program.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return _RunningProcess(process, port, program)

    def sweep(self, label: str) -> int:
        ended: set[int] = set()
        while left := set(_labelled(label)):
            for process_id in left:
                with suppress(ProcessLookupError):
                    os.kill(process_id, signal.SIGKILL)
            ended |= left
            time.sleep(_SWEEP_PAUSE_SECONDS)  # What was being started meanwhile is found by the next look.
        return len(ended)

    def _folder(self, image: str) -> Path:
        for name in _spellings(image):
            if name in self._images:
                folder = Path(self._images[name])
                if folder.is_dir():
                    return folder
                raise ImageMissing(f"image {image!r} is configured as the folder {folder}, which does not exist.")
        known = ", ".join(sorted(self._images)) or "none"
        raise ImageMissing(
            f"no folder is configured for image {image!r} (known: {known}). The process runner runs an image's "
            "train and serve programs from a folder: name it under [images] in the configuration."
        )


class _RunningProcess(Running):
    def __init__(self, process: subprocess.Popen[bytes], port: int, program: Program) -> None:
        self._process = process
        self._port = port
        self._root = program.root
        self._log_path = program.log_path
        self._ended = threading.Event()
        self._is_swept = False
        # A thread in waitpid notices the end at once, where Popen.wait(timeout) would look every 50 ms.
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def address(self) -> Address:
        return "127.0.0.1", self._port

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        if not self._ended.wait(timeout_seconds):
            return None
        code = self._process.returncode
        return code if code >= 0 else 128 - code

    def diagnosis(self) -> str:
        if NO_SPACE in tail(self._log_path):
            return f"the disk is full: make room for {self._log_path.parent}, then run it again"
        return ""

    def collect(self) -> None:
        pass  # The program wrote where it belongs.

    def peek(self, folder: str, draft: Path) -> Path:
        del draft
        return self._root / folder

    def terminate(self) -> None:
        if not self._ended.is_set():
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        # The group outlives its leader as long as one child is left, so this is right after the end too; but only
        # once, for later its number may be another's.
        if not self._is_swept:
            self._is_swept = self._ended.is_set()
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _watch(self) -> None:
        self._process.wait()
        self._ended.set()


def _spellings(image: str) -> Iterator[str]:
    """*image*, then without its registry, then without its tag: scripts written for AWS run too."""
    for name in dict.fromkeys([image, image.rpartition("/")[2]]):
        yield name
        yield f"{name}:latest" if ":" not in name else name.partition(":")[0]


def _environment(program: Program, folder: Path, port: int, aws: Mapping[str, str]) -> dict[str, str]:
    """A clean environment: nothing of the user's own but where programs and temporary files are found."""
    scratch = program.root.parent / "tmp"
    scratch.mkdir(mode=0o700, exist_ok=True)
    search = [str(folder), str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]
    environment = {
        "PATH": os.pathsep.join(search),
        "HOME": str(program.root),
        "TMPDIR": str(scratch),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        **aws,
        **program.environment,
        "SAGEMAKER_BASE_DIR": str(program.root),
        LABEL_VARIABLE: program.label,
    }
    if program.serves:
        environment["SAGEMAKER_BIND_TO_PORT"] = str(port)
    return environment


def _executable(command: str, folder: Path, search_path: str) -> str | None:
    """The program's file. A relative path counts from the image's folder, as it would from its WORKDIR."""
    if os.sep in command:
        return shutil.which(folder / command)
    return shutil.which(command, path=search_path)


def _free_port() -> int:
    import random  # noqa: PLC0415  training jobs start sooner without these two
    import socket  # noqa: PLC0415

    while True:
        port = random.choice(_PORTS)  # noqa: S311  no secret
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _labelled(label: str) -> Iterator[int]:
    """The processes whose environment carries *label*, whatever became of their group or parent."""
    import psutil  # noqa: PLC0415  needed after a crash only

    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(LABEL_VARIABLE) == label and process.status() != psutil.STATUS_ZOMBIE:
                yield process.pid
