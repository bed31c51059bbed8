"""A debugger in the container: debugpy from this installation, and what makes the first Python there wait for it."""

import io
import tarfile
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from backends.engine.runners.containers import DEBUG_FOLDER, DEBUG_PORT_VARIABLE
from backends.errors import NotSupported
from backends.stores import pieces

# Python runs a module of this name before any program.
_HOOK = f"""\
import os

port = os.environ.pop("{DEBUG_PORT_VARIABLE}", "")
if port:
    import sys

    import debugpy

    debugpy.listen(("0.0.0.0", int(port)))
    print(f"[greenroom] waiting for a debugger at 127.0.0.1:{{port}}", file=sys.stderr, flush=True)
    debugpy.wait_for_client()
"""


def files() -> Iterator[bytes]:
    """The tar, for the container's root folder, of debugpy and of the hook that starts it.

    Raises:
        NotSupported: debugpy is not installed here.
    """
    found = find_spec("debugpy")
    if found is None or not found.submodule_search_locations:
        raise NotSupported("--debug puts debugpy into the container: pip install 'greenroom[debug]'.")
    folder = DEBUG_FOLDER.lstrip("/")
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as tape:
            tape.add(Path(found.submodule_search_locations[0]), f"{folder}/debugpy")
            hook = tarfile.TarInfo(f"{folder}/sitecustomize.py")
            hook.size = len(_HOOK)
            hook.mode = 0o644
            tape.addfile(hook, io.BytesIO(_HOOK.encode()))
        file.seek(0)
        yield from pieces(file)
