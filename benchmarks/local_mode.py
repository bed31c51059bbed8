"""The SageMaker Python SDK's local mode, to be measured: a program that runs in the SDK's own environment.

    python local_mode.py IMAGE MODEL.tar.gz FOLDER PORT

For each line of its input, a JSON list of a verb and its arguments, it answers with the seconds that it took. It calls
the client with which the SDK replaces boto3's, so that both sides carry out the same requests; nothing reaches AWS.
"""

import json
import os
import sys
import time
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import boto3

QUIET = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}


class LocalMode:
    """One local session and what it is asked to do."""

    def __init__(self, image: str, artifact: str, folder: str, port: int) -> None:
        account = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")  # noqa: S106  no secret
        self.session = local_session()(boto_session=account, sagemaker_config=QUIET)
        self.session.config = {"local": {"local_code": True, "serving_port": port}}
        self.client = self.session.sagemaker_client
        self.image, self.artifact, self.folder = image, Path(artifact).as_uri(), Path(folder)

    def train(self) -> float:
        """One training job without channels."""
        began = time.perf_counter()
        self.client.create_training_job(
            TrainingJobName=fresh("train"),
            AlgorithmSpecification={"TrainingImage": self.image, "TrainingInputMode": "File"},
            OutputDataConfig={"S3OutputPath": (self.folder / "artifacts").as_uri()},
            ResourceConfig={"InstanceType": "local", "InstanceCount": 1},
            HyperParameters={},
        )
        return time.perf_counter() - began

    def deploy(self) -> float:
        """From CreateEndpoint to InService."""
        name = fresh("endpoint")
        self.model(name, {})
        variant = {"VariantName": "all", "ModelName": name, "InstanceType": "local", "InitialInstanceCount": 1}
        self.client.create_endpoint_config(name, [variant])
        began = time.perf_counter()
        self.client.create_endpoint(name, name)
        self.endpoint = name
        return time.perf_counter() - began

    def invoke(self, calls: int, clients: int) -> list[float]:
        """The seconds of each of *calls* invocations; the last number is the time of all together."""

        def one(_: int) -> float:
            began = time.perf_counter()
            answer = self.session.sagemaker_runtime_client.invoke_endpoint(
                EndpointName=self.endpoint, Body=b"a film like any other\n", ContentType="text/csv"
            )
            answer["Body"].read()
            return time.perf_counter() - began

        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            times = list(pool.map(one, range(calls)))
        return [*times, time.perf_counter() - began]

    def delete(self) -> float:
        """End the endpoint."""
        began = time.perf_counter()
        self.client.delete_endpoint(self.endpoint)
        return time.perf_counter() - began

    def transform(self, source: str, strategy: str, environment: dict[str, str]) -> float:
        """One batch transform over the lines of the files in *source*, its container's start included."""
        name = fresh("transform")
        self.model(name, environment)
        began = time.perf_counter()
        self.client.create_transform_job(
            TransformJobName=name,
            ModelName=name,
            TransformInput={
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": Path(source).as_uri()}},
                "ContentType": "text/csv",
                "SplitType": "Line",
            },
            TransformOutput={
                "S3OutputPath": (self.folder / name).as_uri(),
                "AssembleWith": "Line",
                "Accept": "text/csv",
            },
            TransformResources={"InstanceType": "local", "InstanceCount": 1},
            BatchStrategy=strategy,
            MaxPayloadInMB=6,
        )
        return time.perf_counter() - began

    def model(self, name: str, environment: dict[str, str]) -> None:
        """Name the image and the model's archive."""
        self.client.create_model(
            name, {"Image": self.image, "ModelDataUrl": self.artifact, "Environment": dict(environment)}
        )


def local_session() -> Any:
    """The class of that name, of whichever version is here."""
    try:
        module = import_module("sagemaker.core.local.local_session")
    except ModuleNotFoundError:  # Before 3.
        module = import_module("sagemaker.local")
    return module.LocalSession


def fresh(stem: str) -> str:
    """A name for something new."""
    return f"{stem}-{uuid.uuid4().hex[:8]}"


def main() -> None:
    """Answer until the input ends."""
    image, artifact, folder, port = sys.argv[1:]
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # The SDK prints when it is imported, and the containers' output.
        mode: Any = LocalMode(image, artifact, folder, int(port))
        for line in sys.stdin:
            verb, *arguments = json.loads(line)
            try:
                print(json.dumps(getattr(mode, verb)(*arguments)), file=answers, flush=True)
            except Exception:  # noqa: BLE001  the SDK's threads would keep this process
                traceback.print_exc()
                os._exit(1)


if __name__ == "__main__":
    main()
