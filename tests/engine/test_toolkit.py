"""SageMaker's own toolkits, unmodified, on the docker runner: a user's scripts trained with and served.

The requests are those that the SageMaker SDK makes for script mode: every hyperparameter is JSON, and
``sagemaker_program`` and ``sagemaker_submit_directory`` say what to run.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from backends import Backend, open_backend
from backends.config import BackendConfig
from backends.errors import JobFailed
from backends.specs import Channel, EndpointSpec, ModelSpec, TrainingSpec, Variant
from tests.archives import archive, unarchived
from tests.docker_engine import toolkit_image

SOURCE = Path(__file__).parents[1] / "images" / "toolkit" / "source"
START_SECONDS = 100
# Loading a JVM and a worker for each core is most of it.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """A local backend on the docker runner, with rows to train on and the scripts' tar in its store."""
    toolkit_image()
    home = tmp_path_factory.mktemp("toolkit") / "home"
    with open_backend(BackendConfig(home=home, runner="docker")) as opened:
        opened.store.ensure_bucket("data")
        opened.store.put("s3://data/rows/a.txt", b"1\n2\n3\n")
        sources = {path.name: path.read_bytes() for path in SOURCE.glob("*.py")}
        opened.store.put("s3://data/code/sourcedir.tar.gz", archive(sources))
        yield opened


def spec(name: str, **hyperparameters: object) -> TrainingSpec:
    """What the SDK asks for."""
    sdk: Mapping[str, object] = {
        "sagemaker_program": "train.py",
        "sagemaker_submit_directory": "s3://data/code/sourcedir.tar.gz",
        "sagemaker_container_log_level": 20,
        "sagemaker_job_name": name,
        "sagemaker_region": "us-east-1",
    }
    return TrainingSpec(
        name=name,
        image=toolkit_image(),
        output_uri="s3://data/models",
        channels=(Channel(name="train", uri="s3://data/rows/"),),
        hyperparameters={key: json.dumps(value) for key, value in {**sdk, **hyperparameters}.items()},
        metrics={"sum": "sum=([0-9]+);"},
    )


def from_channel(asked: TrainingSpec) -> TrainingSpec:
    """The same as the SDK asks for it where a job may not reach S3: the tar is a channel, the network is closed."""
    place = json.dumps("/opt/ml/input/data/code/sourcedir.tar.gz")
    return replace(
        asked,
        channels=(*asked.channels, Channel(name="code", uri="s3://data/code/")),
        hyperparameters={**asked.hyperparameters, "sagemaker_submit_directory": place},
        network_isolation=True,
    )


@pytest.fixture(scope="module")
def artifact(backend: Backend) -> str:
    """The URI of what the user's script trained."""
    backend.training.start(spec("script", factor=7, title="with blanks"))
    done = backend.training.finish("script")
    assert done.metrics == {"sum": 6.0}
    assert done.artifact_uri
    return done.artifact_uri


def test_a_script_trains(backend: Backend, artifact: str) -> None:
    """The toolkit finds script, arguments, channel and model folder where it looks for them."""
    files = unarchived(backend.store.get(artifact))
    assert json.loads(files["model.json"]) == {"factor": 7, "title": "with blanks", "sum": 6}
    assert set(files) == {"model.json", "code/inference.py"}


def test_a_script_trains_without_network(backend: Backend, artifact: str) -> None:
    """From a channel rather than from S3: the same model."""
    backend.training.start(from_channel(spec("closed", factor=7, title="with blanks")))
    uri = backend.training.finish("closed").artifact_uri
    assert uri
    assert unarchived(backend.store.get(uri)) == unarchived(backend.store.get(artifact))


def test_missing_code_is_named(backend: Backend) -> None:
    """The job fails before the toolkit would ask AWS for it."""
    backend.training.start(spec("lost", sagemaker_submit_directory="s3://data/code/lost.tar.gz"))
    with pytest.raises(JobFailed, match=r"s3://data/code/lost\.tar\.gz"):
        backend.training.finish("lost")


def test_a_failing_script_is_quoted(backend: Backend) -> None:
    """The toolkit's failure file becomes the job's reason."""
    backend.training.start(spec("failing", factor=0))
    with pytest.raises(JobFailed, match=r"(?s)ExecuteUserScriptError.*exit code: 1"):
        backend.training.finish("failing")


def test_the_model_is_served(backend: Backend, artifact: str) -> None:
    """By the toolkit's model server, from the read-only model folder, with the user's model_fn and predict_fn."""
    model = ModelSpec(
        image=toolkit_image(),
        artifact_uri=artifact,
        environment={"SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code"},
    )
    backend.endpoints.start(EndpointSpec(name="toolkit", variants=(Variant(model=model),)))
    try:
        backend.endpoints.wait_in_service("toolkit", timeout_seconds=START_SECONDS)
        answer = backend.endpoints.invoke(
            "toolkit", b"[1, 2, 3]", content_type="application/json", accept="application/json"
        )
        assert json.loads(answer.body) == [7, 14, 21]
    finally:
        backend.endpoints.delete("toolkit")
        backend.endpoints.wait_deleted("toolkit", timeout_seconds=START_SECONDS)
