"""An engine with short limits. Every request and every answer is held against SageMaker's service model."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from backends.engine import Engine, EngineSettings
from backends.sagemaker.readings import ServiceError
from tests.archives import archive

PROBE = Path(__file__).parents[1] / "images" / "probe"
ROLE = "arn:aws:iam::000000000000:role/test"
LIMIT_SECONDS = 30.0
T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """An open engine and short ways to ask it."""

    engine: Engine
    home: Path

    def call(self, operation: str, **request: Any) -> dict[str, Any]:
        from tests.engine.shapes import request_problems, response_problems  # noqa: PLC0415  botocore loads slowly

        assert request_problems(operation, request) == []
        response = self.engine.call(operation, request)
        assert response_problems(operation, response) == []
        return response

    def refusal(self, operation: str, **request: Any) -> ServiceError:
        """The error with which the engine refuses; the request need not be well-formed."""
        with pytest.raises(ServiceError) as caught:
            self.engine.call(operation, request)
        return caught.value

    # Objects.

    def put(self, key: str, data: bytes) -> str:
        self.engine.site.store.ensure_bucket("bucket")
        self.engine.site.store.put(f"s3://bucket/{key}", data)
        return f"s3://bucket/{key}"

    def get(self, key: str) -> bytes:
        return self.engine.site.store.get(f"s3://bucket/{key}")

    def keys(self, prefix: str) -> list[str]:
        listed = self.engine.site.store.list_objects(f"s3://bucket/{prefix}")
        return [info.uri.removeprefix("s3://bucket/") for info in listed]

    # Training.

    def training_request(self, name: str, /, *, algorithm: Any = None, **members: Any) -> dict[str, Any]:
        self.put("in/data.txt", b"data\n")
        hyperparameters = members.pop("HyperParameters", None)
        request = {
            "TrainingJobName": name,
            "AlgorithmSpecification": {"TrainingImage": "probe", "TrainingInputMode": "File", **(algorithm or {})},
            "RoleArn": ROLE,
            "InputDataConfig": [channel("train", "s3://bucket/in/")],
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
            **members,
        }
        return request | ({"HyperParameters": hyperparameters} if hyperparameters else {})

    def train(self, name: str, /, **members: Any) -> dict[str, Any]:
        """Run a job to its end; its description."""
        self.call("CreateTrainingJob", **self.training_request(name, **members))
        return self.trained(name)

    def trained(self, name: str) -> dict[str, Any]:
        return self.until(
            lambda: self.call("DescribeTrainingJob", TrainingJobName=name),
            lambda job: job["TrainingJobStatus"] in {"Completed", "Failed", "Stopped"},
        )

    # Models, transforms, endpoints.

    def model(self, name: str, /, environment: Mapping[str, str] | None = None, **settings: Any) -> str:
        url = self.put(
            f"models/{name}.tar.gz", archive({"model.txt": b"m", "serve.json": json.dumps(settings).encode()})
        )
        container: dict[str, Any] = {"Image": "probe", "ModelDataUrl": url}
        if environment:
            container["Environment"] = dict(environment)
        self.call("CreateModel", ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
        return name

    def transform_request(self, name: str, /, **members: Any) -> dict[str, Any]:
        request: dict[str, Any] = {
            "TransformJobName": name,
            "ModelName": "model",
            "TransformInput": {
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/batch/"}},
                "ContentType": "text/csv",
                "SplitType": "Line",
            },
            "TransformOutput": {"S3OutputPath": f"s3://bucket/{name}", "Accept": "text/csv", "AssembleWith": "Line"},
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        }
        for key, value in members.items():
            request[key] = {**request[key], **value} if isinstance(request.get(key), dict) else value
        return request

    def transform(self, name: str, /, **members: Any) -> dict[str, Any]:
        """Run a transform to its end; its description."""
        self.call("CreateTransformJob", **self.transform_request(name, **members))
        return self.transformed(name)

    def transformed(self, name: str) -> dict[str, Any]:
        return self.until(
            lambda: self.call("DescribeTransformJob", TransformJobName=name),
            lambda job: job["TransformJobStatus"] in {"Completed", "Failed", "Stopped"},
        )

    def data_log(self, name: str) -> list[str]:
        return [
            line for line in self.engine.read_log("transform job", name, follow=False) if "[sagemaker logs]" in line
        ]

    def create_endpoint(self, name: str, /, **settings: Any) -> None:
        self.model(name, **settings)
        self.call("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=[variant(name)])
        self.call("CreateEndpoint", EndpointName=name, EndpointConfigName=name)

    def deploy(self, name: str, /, **settings: Any) -> str:
        """Bring an endpoint into service."""
        self.create_endpoint(name, **settings)
        assert self.settled(name)["EndpointStatus"] == "InService"
        return name

    def settled(self, name: str) -> dict[str, Any]:
        return self.until(
            lambda: self.call("DescribeEndpoint", EndpointName=name),
            lambda endpoint: endpoint["EndpointStatus"] in {"InService", "Failed"},
        )

    def invoke(self, name: str, body: bytes, **members: Any) -> dict[str, Any]:
        return self.call("InvokeEndpoint", EndpointName=name, Body=body, **members)

    def delete_endpoint(self, name: str) -> None:
        """Delete it and wait until it is gone."""
        self.call("DeleteEndpoint", EndpointName=name)
        self.until(lambda: self.exists(name), lambda exists: not exists)

    def exists(self, name: str) -> bool:
        try:
            self.call("DescribeEndpoint", EndpointName=name)
        except ServiceError as error:
            if not error.message.startswith("Could not find endpoint"):
                raise
            return False
        return True

    def strike(self) -> None:
        """Stop and delete whatever is left."""
        for job in self.engine.site.state.every("training job"):
            with suppress(ServiceError):
                self.call("StopTrainingJob", TrainingJobName=job.name)
        for job in self.engine.site.state.every("transform job"):
            with suppress(ServiceError):
                self.call("StopTransformJob", TransformJobName=job.name)
        for endpoint in self.engine.site.state.every("endpoint"):
            if endpoint.facts["status"] in {"Creating", "Updating"}:
                self.settled(endpoint.name)
            self.call("DeleteEndpoint", EndpointName=endpoint.name)
        self.until(self.engine.is_idle, bool)

    @staticmethod
    def until(look: Callable[[], T], done: Callable[[T], bool]) -> T:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not done(seen := look()):
            assert time.monotonic() < deadline, f"last seen: {seen}"
            time.sleep(0.01)
        return seen


def channel(name: str, uri: str, **members: Any) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, **members}


def variant(model: str, name: str = "AllTraffic", **members: Any) -> dict[str, Any]:
    return {
        "VariantName": name,
        "ModelName": model,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
        **members,
    }


def settings_for(home: Path) -> EngineSettings:
    return EngineSettings(
        home=home,
        images={"probe": str(PROBE)},
        training_grace_seconds=1.0,
        serving_grace_seconds=1.0,
        ping_timeout_seconds=0.5,
        startup_timeout_seconds=10.0,
        invocation_timeout_seconds=2.0,
        metric_timeout_seconds=0.5,
    )


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One engine for all tests of a module."""
    home = tmp_path_factory.mktemp("stage") / "home"
    opened = Stage(Engine(settings_for(home)), home)
    yield opened
    opened.strike()
    opened.engine.close()


@pytest.fixture
def make_stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """Opens an engine of the test's own, with other limits."""
    opened: list[Stage] = []

    def make(**limits: Any) -> Stage:
        home = tmp_path / "home"
        opened.append(Stage(Engine(replace(settings_for(home), **limits)), home))
        return opened[-1]

    yield make
    for stage in opened:
        stage.strike()
        stage.engine.close()
