"""The SageMaker Python SDK, third line, as its users write it."""

from pathlib import Path
from typing import Any

from sagemaker.core.helper.session_helper import Session
from sagemaker.core.resources import Endpoint, EndpointConfig, Model, TrainingJob
from sagemaker.core.shapes import ContainerDefinition, MetricDefinition, ProductionVariant
from sagemaker.core.training.configs import Compute, InputData, SourceCode
from sagemaker.core.transformer import Transformer
from sagemaker.serve.model_builder import ModelBuilder
from sagemaker.train import ModelTrainer

ROLE = "arn:aws:iam::000000000000:role/greenroom-role"
INSTANCE = "ml.m5.large"
SCRIPT = Path(__file__).parent / "script"
SOON = 1


def trainer(image: str, **more: Any) -> ModelTrainer:
    return ModelTrainer(
        training_image=image, role=ROLE, compute=Compute(instance_type=INSTANCE, instance_count=1), **more
    )


def train(path: str) -> dict[str, Any]:
    """Train on a folder of this machine."""
    made = trainer("probe", base_job_name="third", hyperparameters={"say": "hello", "depth": 3})
    made.train(input_data_config=[InputData(channel_name="train", data_source=path)])
    job = made._latest_training_job
    names = [one.training_job_name for one in TrainingJob.get_all(name_contains="third")]
    return {
        "job": job.training_job_name,
        "status": job.training_job_status,
        "hyperparameters": job.hyper_parameters,
        "data": job.model_artifacts.s3_model_artifacts,
        "names": names,
    }


def script(path: str, image: str) -> dict[str, Any]:
    """Run the user's script in a container that knows nothing of SageMaker."""
    made = trainer(
        image,
        base_job_name="script",
        source_code=SourceCode(source_dir=str(SCRIPT), entry_script="mean.py"),
        hyperparameters={"factor": 2},
    ).with_metric_definitions([MetricDefinition(name="mean", regex="mean=(.*?);")])
    made.train(input_data_config=[InputData(channel_name="train", data_source=path)])
    job = made._latest_training_job
    metrics = [[one.metric_name, one.value] for one in job.final_metric_data_list]
    return {"status": job.training_job_status, "metrics": metrics}


def transform(data: str, path: str) -> str:
    """A batch transform of a file of this machine by the model at *data*."""
    session = Session()
    container = ContainerDefinition(image="probe", model_data_url=data)
    model = Model.create(model_name="third-transform", primary_container=container, execution_role_arn=ROLE)
    made = Transformer(
        model.model_name, 1, INSTANCE, "SingleRecord", "Line", accept="text/plain", sagemaker_session=session
    )
    made.transform(session.upload_data(path, key_prefix="batch"), content_type="text/plain", split_type="Line")
    model.delete()
    where = made.output_path.removeprefix("s3://").partition("/")
    [key] = session.list_s3_files(where[0], where[2])
    text: str = session.read_s3_file(where[0], key)
    return text


def resources(data: str) -> dict[str, Any]:
    """A model, a configuration and an endpoint, each made, found and deleted."""
    container = ContainerDefinition(image="probe", model_data_url=data)
    model = Model.create(model_name="third", primary_container=container, execution_role_arn=ROLE)
    variant = ProductionVariant(
        variant_name="all", model_name="third", initial_instance_count=1, instance_type=INSTANCE
    )
    config = EndpointConfig.create(endpoint_config_name="third", production_variants=[variant])
    endpoint = Endpoint.create(endpoint_name="third", endpoint_config_name="third")
    endpoint.wait_for_status("InService", poll=SOON)
    answer = endpoint.invoke(body=b"hello", content_type="text/plain").body.read().decode()
    endpoint.delete()
    endpoint.wait_for_delete(poll=SOON)
    config.delete()
    model.delete()
    return {"arn": endpoint.endpoint_arn, "answer": answer, "left": len(list(Endpoint.get_all()))}


def build(data: str) -> str:
    """An image and a model of the user's own, built and deployed."""
    builder = ModelBuilder(image_uri="probe", s3_model_data_url=data, role_arn=ROLE, instance_type=INSTANCE)
    model = builder.build(model_name="built")
    endpoint = builder.deploy(endpoint_name="built", instance_type=INSTANCE, wait=False)
    endpoint.wait_for_status("InService", poll=SOON)
    answer: str = endpoint.invoke(body=b"hello", content_type="text/plain").body.read().decode()
    endpoint.delete()
    model.delete()
    return answer
