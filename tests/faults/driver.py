"""A process that opens an engine and acts, to be killed: ``python driver.py HOME SEED``.

It prints what it has been told is so, one JSON value a line, before it goes on.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

from backends.engine import Engine
from backends.sagemaker.readings import ServiceError
from tests.engine.conftest import Stage, settings_for


class Driver(Stage):
    """Without the service model, which loads slowly."""

    def call(self, operation: str, **request: Any) -> dict[str, Any]:
        return self.engine.call(operation, request)


def main() -> None:
    home, seed = Path(sys.argv[1]), int(sys.argv[2])
    chance = random.Random(seed)  # noqa: S311  repeatable, not secret
    stage = Driver(Engine(settings_for(home)), home)
    number = 0
    while True:
        number += 1
        act(stage, chance, f"d{seed}-{number}")


def act(stage: Stage, chance: random.Random, name: str) -> None:
    kind = chance.choice(["copy", "copy", "hang", "transform", "endpoint", "delete", "stop"])
    try:
        if kind in {"delete", "stop"}:
            disturb(stage, chance, kind)
            return
        create(stage, kind, name)
    except ServiceError as error:
        if error.code != "ValidationException":
            raise
    else:
        print(json.dumps([kind, name]), flush=True)  # noqa: T201  what it prints is read


def create(stage: Stage, kind: str, name: str) -> None:
    if kind == "transform":
        stage.call("CreateTransformJob", **stage.transform_request(name))
    elif kind == "endpoint":
        stage.create_endpoint(name)
    else:
        stage.call("CreateTrainingJob", **stage.training_request(name, HyperParameters={"mode": kind}))


def disturb(stage: Stage, chance: random.Random, kind: str) -> None:
    if kind == "delete":
        endpoints = stage.call("ListEndpoints", MaxResults=100)["Endpoints"]
        if endpoints:
            stage.call("DeleteEndpoint", EndpointName=chance.choice(endpoints)["EndpointName"])
    else:
        jobs = stage.call("ListTrainingJobs", MaxResults=100)["TrainingJobSummaries"]
        if jobs:
            stage.call("StopTrainingJob", TrainingJobName=chance.choice(jobs)["TrainingJobName"])


if __name__ == "__main__":
    main()
