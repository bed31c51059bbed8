"""The SageMaker Python SDK, second line, as its users write it."""

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import sagemaker
from sagemaker.deserializers import JSONDeserializer
from sagemaker.estimator import Estimator
from sagemaker.predictor import Predictor
from sagemaker.serializers import CSVSerializer
from sagemaker.sklearn.estimator import SKLearn
from sagemaker.transformer import Transformer
from sagemaker.tuner import HyperparameterTuner, IntegerParameter

ROLE = "greenroom-role"
INSTANCE = "ml.m5.large"
SOON = 1  # The SDK itself looks every 30 seconds.
SCRIPT = Path(__file__).parent / "script"


def estimator(**more: Any) -> Estimator:
    return Estimator("probe", ROLE, instance_count=1, instance_type=INSTANCE, **more)


def fit(path: str, say: str) -> dict[str, Any]:
    """Train on a file of this machine, with the job's log on the screen; find the job again by its name."""
    made = estimator(
        hyperparameters={"say": say, "depth": 3},
        metric_definitions=[{"Name": "loss", "Regex": "loss=(.*?);"}],
        tags=[{"Key": "team", "Value": "tests"}],
    )
    screen = io.StringIO()
    with redirect_stdout(screen):
        made.fit({"train": made.sagemaker_session.upload_data(path, key_prefix="numbers")}, logs="All")
    found = Estimator.attach(made.latest_training_job.name)
    return {
        "job": made.latest_training_job.name,
        "screen": screen.getvalue(),
        "data": made.model_data,
        "attached": [found.model_data, found.hyperparameters(), found.tags],
    }


def fail() -> str:
    """What the SDK says of a program that failed."""
    try:
        made = estimator(hyperparameters={"mode": "fail", "failure": "no luck", "exit_code": 3})
        made.fit(wait=False)
        made.sagemaker_session.wait_for_job(made.latest_training_job.name, poll=SOON)
    except sagemaker.exceptions.UnexpectedStatusException as exc:
        return str(exc)
    return ""


def transform(job: str, path: str) -> list[str]:
    """A batch transform of a file of this machine, each line upper-cased by the model of *job*."""
    session = sagemaker.Session()
    made = Estimator.attach(job).transformer(
        1, INSTANCE, assemble_with="Line", accept="text/plain", strategy="SingleRecord"
    )
    source = session.upload_data(path, key_prefix="batch")
    made.transform(source, content_type="text/plain", split_type="Line", wait=False)
    session.logs_for_transform_job(made.latest_transform_job.name, wait=True, poll=SOON)
    found = Transformer.attach(made.latest_transform_job.name)
    made.delete_model()
    [key] = session.list_s3_files(session.default_bucket(), made.latest_transform_job.name)
    return [found.output_path, session.read_s3_file(session.default_bucket(), key)]


def deploy(job: str) -> dict[str, Any]:
    """An endpoint from its first answer to its end, with another configuration between."""
    session = sagemaker.Session()
    predictor = Estimator.attach(job).deploy(1, INSTANCE, wait=False)
    name = predictor.endpoint_name
    session.wait_for_endpoint(name, poll=SOON)
    first = predictor.predict(b"hello").decode()
    predictor.update_endpoint(initial_instance_count=2, instance_type=INSTANCE, wait=False)
    session.wait_for_endpoint(name, poll=SOON)
    client = session.sagemaker_client
    [variant] = client.describe_endpoint(EndpointName=name)["ProductionVariants"]
    second = Predictor(name).predict(b"again").decode()
    predictor.delete_model()
    predictor.delete_endpoint()
    client.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig={"Delay": SOON})
    left = [client.list_models()["Models"], client.list_endpoints(NameContains=name)["Endpoints"]]
    return {"answers": [first, second], "instances": variant["CurrentInstanceCount"], "left": left}


def script(path: str) -> dict[str, Any]:
    """Script mode as with AWS's own images: no image is named, the user's folder is uploaded."""
    made = SKLearn(
        "mean.py",
        source_dir=str(SCRIPT),
        framework_version="1.2-1",
        role=ROLE,
        instance_type=INSTANCE,
        hyperparameters={"factor": 2},
    )
    made.fit({"train": made.sagemaker_session.upload_data(path, key_prefix="numbers")})
    predictor = made.deploy(1, INSTANCE, serializer=CSVSerializer(), deserializer=JSONDeserializer(), wait=False)
    made.sagemaker_session.wait_for_endpoint(predictor.endpoint_name, poll=SOON)
    answers = predictor.predict([1, 2, 10])
    predictor.delete_model()
    predictor.delete_endpoint()
    return {"image": made.training_image_uri(), "answers": answers}


def tune() -> str:
    """What is not there is refused in words."""
    tuner = HyperparameterTuner(
        estimator(), "loss", {"depth": IntegerParameter(1, 3)}, [{"Name": "loss", "Regex": "loss=(.*?);"}]
    )
    try:
        tuner.fit()
    except Exception as exc:  # noqa: BLE001  whatever it is
        return str(exc)
    return ""
