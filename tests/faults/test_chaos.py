"""Hundreds of random operations, all at once (S27)."""

import random
import threading
from collections.abc import Callable
from pathlib import Path

from backends.sagemaker.readings import ServiceError
from tests.engine.conftest import Stage
from tests.faults.conftest import processes_of

ALLOWED = {"ValidationException", "ValidationError", "ResourceInUse", "ModelError"}


def test_random_operations_leave_no_orphan(open_stage: Callable[[], Stage], home: Path) -> None:
    """Create, stop, delete, ask, twice and too early: every answer is the contract's, and nothing stays behind."""
    stage = open_stage()
    stage.model("model")
    stage.put("batch/a", b"x\n")
    surprises: list[object] = []

    def run(seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311  repeatable, not secret
        for _ in range(60):
            try:
                operate(stage, chance)
            except ServiceError as error:
                if error.code not in ALLOWED:
                    surprises.append(error)
            except Exception as error:  # noqa: BLE001  reported below, with the others
                surprises.append(error)

    stage.training_request("once")
    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert surprises == []
    stage.strike()
    stage.until(lambda: processes_of(home), lambda left: left == [])
    assert not list(home.glob("endpoint/*"))
    stage.until(lambda: list((home / "supervisors").iterdir()), lambda seats: seats == [])


def operate(stage: Stage, chance: random.Random) -> None:
    job, endpoint = f"job-{chance.randrange(6)}", f"endpoint-{chance.randrange(2)}"
    mode = chance.choice(["copy", "hang", "fail", "stubborn"])
    operations: list[tuple[str, dict[str, object]]] = [
        ("CreateTrainingJob", stage.training_request(job, HyperParameters={"mode": mode})),
        ("StopTrainingJob", {"TrainingJobName": job}),
        ("StopTrainingJob", {"TrainingJobName": job}),
        ("DeleteTrainingJob", {"TrainingJobName": job}),
        ("DescribeTrainingJob", {"TrainingJobName": job}),
        ("CreateTransformJob", stage.transform_request(f"transform-{chance.randrange(9)}")),
        ("StopTransformJob", {"TransformJobName": f"transform-{chance.randrange(9)}"}),
        ("CreateEndpointConfig", {"EndpointConfigName": endpoint, "ProductionVariants": [VARIANT]}),
        ("CreateEndpoint", {"EndpointName": endpoint, "EndpointConfigName": endpoint}),
        ("UpdateEndpoint", {"EndpointName": endpoint, "EndpointConfigName": f"endpoint-{chance.randrange(2)}"}),
        ("UpdateEndpointWeightsAndCapacities", {"EndpointName": endpoint, "DesiredWeightsAndCapacities": [WISH]}),
        ("DeleteEndpoint", {"EndpointName": endpoint}),
        ("DescribeEndpoint", {"EndpointName": endpoint}),
        ("InvokeEndpoint", {"EndpointName": endpoint, "Body": chance.choice([b"x", b"x", b"die"])}),
        ("ListTrainingJobs", {}),
        ("DeleteEndpointConfig", {"EndpointConfigName": endpoint}),
    ]
    operation, request = chance.choice(operations)
    stage.engine.call(operation, request)


VARIANT = {"VariantName": "AllTraffic", "ModelName": "model", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
WISH = {"VariantName": "AllTraffic", "DesiredWeight": 2.0}
