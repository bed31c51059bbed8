"""Local mode contacts nothing but loopback: shown by the kernel's own count of packets without a route."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.requirements import require

_SCRIPT = """
set -e
ip link set lo up
before=$(cat /proc/net/snmp /proc/net/snmp6)
"$@"
python3 - "$before" <<'PYTHON'
import sys
def no_routes(text):
    lines = text.splitlines()
    names, values = (line.split() for line in lines if line.startswith("Ip: "))
    six = [line.split() for line in lines if line.startswith("Ip6OutNoRoutes")]
    return int(values[names.index("OutNoRoutes")]) + int(six[0][1])
after = open("/proc/net/snmp").read() + open("/proc/net/snmp6").read()
print(no_routes(after) - no_routes(sys.argv[1]))
PYTHON
"""


def _can_isolate() -> bool:
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    return subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0


def _isolated(folder: Path, script: str) -> tuple[list[str], int]:
    """Run a shell *script* where only loopback exists; its output lines and the attempts to leave."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GREENROOM_")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"}
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", _SCRIPT, "sh", "sh", "-ec", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *lines, attempts = done.stdout.splitlines()
    return lines, int(attempts)


def test_the_counter_sees_an_attempt(tmp_path: Path) -> None:
    """The test's own instrument works: one connection to elsewhere counts."""
    require("netns", _can_isolate, "no network namespace can be made (needs root, unshare and ip)")
    attempt = "python3 -c 'import socket; socket.socket().connect_ex((\"192.0.2.1\", 80))'"
    assert _isolated(tmp_path, attempt)[1] > 0


def test_a_whole_run_stays_on_loopback(tmp_path: Path) -> None:
    """Training, batch transform, endpoint and prediction work without any network and never try to leave."""
    require("netns", _can_isolate, "no network namespace can be made (needs root, unshare and ip)")
    script = "sentiment run --json && sentiment predict 'A fine film.' --json && sentiment destroy --yes --json"
    lines, attempts = _isolated(tmp_path, script)
    assert attempts == 0
    assert json.loads(lines[0])["accuracy"] > 0.9
    assert not (tmp_path / ".greenroom").exists()
