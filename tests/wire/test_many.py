"""Many at once through one server: jobs, endpoints, clients."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.wire.conftest import ENDPOINT
from tests.wire.test_sagemaker import ROLE, SOON, fresh, training_job

JOBS = ENDPOINTS = 8
CLIENTS, CALLS = 64, 1024


@pytest.fixture
def endpoints(sagemaker: Any) -> Any:
    """As many endpoints, created together."""
    names = [fresh("many") for _ in range(ENDPOINTS)]
    model = fresh("many")
    container = {"Image": "probe", "ModelDataUrl": "s3://wire/model.tar.gz"}
    sagemaker.create_model(ModelName=model, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    for name in names:
        variant = {"VariantName": "all", "ModelName": model, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    yield names
    for name in names:
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=SOON)
        sagemaker.delete_endpoint(EndpointName=name)
        sagemaker.delete_endpoint_config(EndpointConfigName=name)
    for name in names:
        sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig=SOON)
    sagemaker.delete_model(ModelName=model)


def test_jobs_endpoints_and_clients_together(sagemaker: Any, url: str, endpoints: list[str]) -> None:
    """Eight jobs and eight endpoints start together; 64 clients ask meanwhile and all get their own answer."""
    jobs = [fresh("many") for _ in range(JOBS)]
    for job in jobs:
        training_job(sagemaker, job)
    runtime = boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test").client(
        "sagemaker-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        config=Config(max_pool_connections=CLIENTS, retries={"total_max_attempts": 1}),
    )

    def ask(endpoint: str, number: int) -> bytes:
        answer: bytes = runtime.invoke_endpoint(EndpointName=endpoint, Body=f"review {number}".encode())["Body"].read()
        return answer

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(ask, [ENDPOINT] * CALLS, range(CALLS)))
        assert answers == [f"REVIEW {number}".encode() for number in range(CALLS)]
        for endpoint in endpoints:
            sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=endpoint, WaiterConfig=SOON)
        spread = [endpoints[number % ENDPOINTS] for number in range(CALLS)]
        answers = list(pool.map(ask, spread, range(CALLS)))
        assert answers == [f"REVIEW {number}".encode() for number in range(CALLS)]
    for job in jobs:
        sagemaker.get_waiter("training_job_completed_or_stopped").wait(TrainingJobName=job, WaiterConfig=SOON)
        assert sagemaker.describe_training_job(TrainingJobName=job)["TrainingJobStatus"] == "Completed"
    runtime.close()
