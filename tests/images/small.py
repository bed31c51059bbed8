"""Run in the probe's container: its Python and its programs as a tar, an eighth of the image.

What Python needs is found by looking at what this process has loaded.
"""

import http.server
import shutil
import sys
import tarfile
from pathlib import Path

UNUSED = {"__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tkinter"}


def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = Path(member.name).name
    return None if name in UNUSED or name.startswith("config-") else member


library = Path(http.server.__file__).parents[1]
mapped = {Path(line.split()[-1]) for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
files = {Path(sys.executable).resolve(), *Path("/").glob("lib*/ld-linux*")}
for path in mapped:
    if library not in path.parents:
        files.update(path.parent.glob(path.name.partition(".so")[0] + ".so*"))
for program in ("python3", "env", "sh", "train", "serve"):
    files.add(Path(shutil.which(program) or program))
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", dereference=True) as tape:
    for path in sorted(files):
        tape.add(path)
    tape.add(library, filter=wanted)
