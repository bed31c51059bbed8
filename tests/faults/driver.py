"""A process that opens an engine and acts, to be killed: ``python driver.py HOME SEED``.

It prints what it has been told is so, one JSON value a line, before it goes on.
"""

import json
import random
import sys
from pathlib import Path

from backends.engine import Engine
from backends.sagemaker.readings import ServiceError
from tests.engine.conftest import Stage, settings_for


def main() -> None:
    home, seed = Path(sys.argv[1]), int(sys.argv[2])
    chance = random.Random(seed)
    stage = Stage(Engine(settings_for(home)), home)
    number = 0
    while True:
        number += 1
        act(stage, chance, f"d{seed}-{number}")


def act(stage: Stage, chance: random.Random, name: str) -> None:
    kind = chance.choice(["train", "train", "hang", "transform", "endpoint", "delete", "stop"])
    try:
        if kind in {"train", "hang"}:
            mode = {"HyperParameters": {"mode": kind.replace("train", "copy")}}
            stage.call("CreateTrainingJob", **stage.training_request(name, **mode))
        elif kind == "transform":
            stage.call("CreateTransformJob", **stage.transform_request(name))
        elif kind == "endpoint":
            stage.create_endpoint(name)
        elif kind == "delete":
            endpoints = stage.call("ListEndpoints", MaxResults=100)["Endpoints"]
            if endpoints:
                stage.call("DeleteEndpoint", EndpointName=chance.choice(endpoints)["EndpointName"])
        else:
            jobs = stage.call("ListTrainingJobs", MaxResults=100)["TrainingJobSummaries"]
            if jobs:
                stage.call("StopTrainingJob", TrainingJobName=chance.choice(jobs)["TrainingJobName"])
    except ServiceError as error:
        assert error.code == "ValidationException", error
    else:
        if kind not in {"delete", "stop"}:
            print(json.dumps([kind, name]), flush=True)


if __name__ == "__main__":
    main()
