"""The application on an image that knows nothing of it: SageMaker's own toolkits, as in AWS's prebuilt images.

The toolkits are real; AWS's scikit-learn image itself, which serves with an older one, has not seen the application.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends import Backend, open_backend
from backends.config import BackendConfig
from sentiment.pipeline import Pipeline
from sentiment.prebuilt import packed_code
from sentiment.reporter import Silent
from sentiment.settings import SentimentSettings
from tests.archives import unarchived
from tests.docker_engine import toolkit_image
from tests.reviews import few_reviews

# Starting two JVMs with a worker for each core is most of it.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    toolkit_image()
    with open_backend(BackendConfig(home=tmp_path_factory.mktemp("script") / "home", runner="docker")) as opened:
        yield opened


def test_the_toolkits_run_the_application(backend: Backend, tmp_path: Path) -> None:
    """It is trained, tested by batch transform and served, with the same words for the same model; nothing is built."""
    settings = SentimentSettings(
        home=tmp_path / "home",
        source=str(few_reviews(tmp_path / "reviews.tar.gz")),
        image=toolkit_image(),
        script_region="eu-west-1",
        hyperparameters={"min_df": "1"},
    )
    pipeline = Pipeline(backend, settings, Silent())
    try:
        done = pipeline.run()
        assert done.accuracy == 1.0
        good, bad = pipeline.predict(done.endpoint, ["a good film", "a bad film"], explain=True)
        assert (good["label"], bad["label"]) == ("positive", "negative")
        assert "".join(word["text"] for word in good["words"]) == "a good film"
        artifact = backend.store.get(pipeline.newest_model().artifact_uri)
        files = unarchived(artifact)
        assert {"model.json", "model.npz", "code/script.py", "code/codec.py", "code/sentiment/model.py"} <= set(files)
        assert json.loads(files["model.json"])["hyperparameters"]["min_df"] == 1
    finally:
        gone = pipeline.destroy()
    assert "endpoint sentiment" in gone


def test_the_code_is_the_same_wherever_it_is_packed() -> None:
    """Its digest is of names and bytes alone, and it has all that the script imports."""
    digest, code = packed_code()
    assert packed_code() == (digest, code)
    assert set(unarchived(code)) == {
        *("script.py", "train", "contract.py", "codec.py"),
        *(f"sentiment/{name}.py" for name in ("__init__", "text", "table", "model", "training")),
    }
