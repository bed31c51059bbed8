"""An engine that runs in a container itself: ``python3 -m tests.engine.in_container IMAGE``.

Prints what became of a job and of two endpoints, one of them isolated, as one JSON object.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from backends.engine import Engine
from tests.engine.conftest import ROLE, Stage, settings_for, variant


class Inside(Stage):
    """Without the service model, which loads slowly."""

    def call(self, operation: str, **request: Any) -> dict[str, Any]:
        return self.engine.call(operation, request)


def main() -> None:
    home, image = Path("/tmp/home"), sys.argv[1]
    stage = Inside(Engine(replace(settings_for(home), runner="docker")), home, image)
    job = stage.train("inner")
    seen = {"job": job["TrainingJobStatus"], "reason": job.get("FailureReason", "")}
    stage.model("inner-open")
    model = {"ModelName": "inner-shut", "PrimaryContainer": {"Image": image}, "EnableNetworkIsolation": True}
    stage.call("CreateModel", **model, ExecutionRoleArn=ROLE)
    for name in ("inner-open", "inner-shut"):
        stage.call("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=[variant(name)])
        stage.call("CreateEndpoint", EndpointName=name, EndpointConfigName=name)
    for name in ("inner-open", "inner-shut"):
        endpoint = stage.settled(name)
        seen[name] = endpoint.get("FailureReason") or stage.invoke(name, b"x")["Body"].decode()
    stage.strike()
    stage.engine.close()
    subprocess.run(["rm", "-rf", home], check=True)
    print(json.dumps(seen))  # noqa: T201  what it prints is read


if __name__ == "__main__":
    main()
