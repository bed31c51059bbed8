"""A debugger in the container: debugpy from this installation, and what makes the first Python there start it."""

import io
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from backends.engine.runners.base import Program, RunnerFailed
from backends.engine.runners.containers import DEBUG_PORT
from backends.stores import pieces

_FOLDER = "/opt/greenroom/debug"
_MODE_VARIABLE = "GREENROOM_DEBUG"
_PATH_VARIABLE = "PYTHONPATH"
# Python runs a module of this name before any program. While nobody has come, SIGTERM must end it: the first process
# of a container does not hear it otherwise.
_HOOK = f"""\
import os

mode = os.environ.pop("{_MODE_VARIABLE}", "")
if mode:
    import signal
    import sys

    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    import debugpy

    debugpy.listen(("0.0.0.0", {DEBUG_PORT}))
    waits = mode == "wait"
    print("[greenroom] debugpy listens" + (" and waits for a client" if waits else ""), file=sys.stderr, flush=True)
    if waits:
        before = signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
        debugpy.wait_for_client()
        signal.signal(signal.SIGTERM, before)
"""


def equipped(program: Program, image_environment: Iterable[str], mode: str) -> Program:
    """*program* with the variables that start the debugger, beside the image's own search path.

    Raises:
        RunnerFailed: debugpy is not installed here, or nothing could reach it in the container.
    """
    if find_spec("debugpy") is None:
        raise RunnerFailed("docker.debug puts debugpy into the container: pip install 'greenroom[debug]'.")
    if program.is_isolated:
        raise RunnerFailed(
            "EnableNetworkIsolation: no debugger reaches a program without network; ask for one of them."
        )
    environment = {**dict(line.partition("=")[::2] for line in image_environment), **program.environment}
    path = [_FOLDER, *filter(None, [environment.get(_PATH_VARIABLE)])]
    added = {_PATH_VARIABLE: ":".join(path), _MODE_VARIABLE: mode}
    return replace(program, environment={**program.environment, **added})


def files() -> Iterator[bytes]:
    """The tar, for the container's root folder, of debugpy and of the hook that starts it."""
    found = find_spec("debugpy")
    assert found is not None
    assert found.origin is not None
    folder = _FOLDER.lstrip("/")
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as tape:
            tape.add(Path(found.origin).parent, f"{folder}/debugpy")
            hook = tarfile.TarInfo(f"{folder}/sitecustomize.py")
            hook.size = len(_HOOK)
            tape.addfile(hook, io.BytesIO(_HOOK.encode()))
        file.seek(0)
        yield from pieces(file)
