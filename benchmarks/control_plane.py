"""SageMaker's control plane over HTTP, against moto's server: one plain client, the same requests, in turns."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.figures import Figure
from benchmarks.places import BUCKET, backend_with
from benchmarks.servers import Client, authorization, greenroom, moto

ROUNDS = 3
ROLE = "arn:aws:iam::000000000000:role/any"
# What is recorded, and how often in a round; a training job is also run, by the emulator alone.
KINDS = {"Model": 300, "EndpointConfig": 300, "TrainingJob": 10}
QUESTIONS = 300
PAGE = 10
HEADERS = {"Authorization": authorization("sagemaker"), "Content-Type": "application/x-amz-json-1.1"}


_REQUESTS: dict[str, dict[str, Any]] = {
    "Model": {"PrimaryContainer": {"Image": "image"}, "ExecutionRoleArn": ROLE},
    "EndpointConfig": {
        "ProductionVariants": [
            {
                "VariantName": "AllTraffic",
                "ModelName": "model",
                "InitialInstanceCount": 1,
                "InstanceType": "ml.m5.large",
            }
        ]
    },
    "TrainingJob": {
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    },
}


def figures() -> list[Figure]:
    """The rows for the table."""
    measured = _as_often(measure())
    return [
        Figure(
            what=f"control plane: {operation}, one client",
            ours=f"{rates['greenroom']:,.0f} calls/s",
            peer=f"moto server {rates['moto']:,.0f} calls/s",
            ratio=f"{rates['greenroom'] / rates['moto']:.1f}",
            target="≥ 5",
        )
        for operation, rates in measured.items()
    ]


def measure() -> dict[str, dict[str, float]]:
    """Operation → server → calls per second: the median of rounds in turns."""
    rates: dict[str, dict[str, list[float]]] = {}
    with backend_with(train="") as (_, image), ExitStack() as opened:
        ours = greenroom(image.parent, f'[images]\nimage = "{image}"\n')
        servers = {"greenroom": opened.enter_context(ours), "moto": opened.enter_context(moto())}
        clients = {name: Client(server.url, HEADERS) for name, server in servers.items()}
        for client in clients.values():
            _call(client, "CreateModel", _request("Model", "model"))
        for number in range(ROUNDS):
            for name, client in clients.items():
                for kind, created in KINDS.items():
                    for operation, rate in _round(client, kind, created, number).items():
                        rates.setdefault(operation, {}).setdefault(name, []).append(rate)
    return {
        operation: {name: statistics.median(values) for name, values in by_server.items()}
        for operation, by_server in rates.items()
    }


def _as_often(measured: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """*measured*, and what a client gets who creates, describes and lists resources of a kind equally often."""
    mixed = {}
    for kind in KINDS:
        three = [measured[operation] for operation in (f"Create{kind}", f"Describe{kind}", f"List{kind}s")]
        mixed[f"{kind}, the three as often"] = {
            name: statistics.harmonic_mean([rates[name] for rates in three]) for name in three[0]
        }
    return measured | mixed


def _round(client: Client, kind: str, created: int, number: int) -> dict[str, float]:
    names = (f"round-{number}-{one}" for one in count())
    last = f"round-{number}-0"
    rates = {f"Create{kind}": _rate(lambda: _call(client, f"Create{kind}", _request(kind, next(names))), created)}
    while (
        kind == "TrainingJob"
        and _call(client, "ListTrainingJobs", {"StatusEquals": "InProgress"})["TrainingJobSummaries"]
    ):
        time.sleep(0.1)  # what runs would slow down what follows
    rates[f"Describe{kind}"] = _rate(lambda: _call(client, f"Describe{kind}", {f"{kind}Name": last}), QUESTIONS)
    rates[f"List{kind}s"] = _rate(lambda: _call(client, f"List{kind}s", {"MaxResults": PAGE}), QUESTIONS)
    return rates


def _request(kind: str, name: str) -> dict[str, Any]:
    return {f"{kind}Name": name, **_REQUESTS[kind]}


def _call(client: Client, operation: str, request: dict[str, Any]) -> Any:
    return json.loads(client.ask("POST", "/", json.dumps(request).encode(), X_Amz_Target=f"SageMaker.{operation}"))


def _rate(call: Callable[[], object], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return calls / (time.perf_counter() - began)


if __name__ == "__main__":
    for operation, rates in measure().items():
        print(f"{operation:24}" + "".join(f"{name:>12} {rate:8.1f}" for name, rate in rates.items()))
