"""The SageMaker SDKs' programs, which are asked to do things."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.requirements import require

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "sdk.sh"
LOG_LINES = 40
# The SDKs find the account's bucket by asking STS at its real address, whatever AWS_ENDPOINT_URL says, and report to
# their maker what they did, unless this file says otherwise.
SETTINGS = """
SchemaVersion: "1.0"
SageMaker:
  PythonSDK:
    Modules:
      TelemetryOptOut: true
      Session:
        DefaultS3Bucket: sagemaker-us-east-1-000000000000
"""


class Client:
    """A program of tests/wire/clients that runs with an SDK."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def ask(self, act: str, *arguments: Any) -> Any:
        """What the function *act* returns there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([act, *arguments]), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        said = self._log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        assert line, "the program ended:\n" + "\n".join(said)
        told = json.loads(line)
        assert "raised" not in told, "\n".join([*said, told["raised"]])
        return told["returned"]


@contextmanager
def client(sdk: str, url: str, folder: Path) -> Iterator[Client]:
    """The program for *sdk*, in its own environment, told of *url* by AWS's variables and the SDK's own file."""

    def installed() -> bool:
        return subprocess.run([SCRIPT, sdk, "is_installed"], check=False).returncode == 0

    require("sdk", installed, f"{sdk} is not installed: scripts/sdk.sh {sdk}")
    venv = subprocess.run([SCRIPT, sdk, "folder"], stdout=subprocess.PIPE, check=True, text=True).stdout.strip()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(folder / "sdk.yaml"),
    }
    (folder / "sdk.yaml").write_text(SETTINGS)
    log = folder / "client.log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            [f"{venv}/bin/python", "-m", "tests.wire.clients.answering", sdk],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        ) as process,
    ):
        try:
            yield Client(process, log)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.terminate()
