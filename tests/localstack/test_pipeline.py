"""The seven steps with every object in a real S3 server, chosen by configuration."""

from typing import Any

import pytest

from tests.e2e.conftest import Shell
from tests.peers import client
from tests.reviews import REVIEWS_PER_LABEL


def test_a_run_goes_through_all_steps(run: Any) -> None:
    """Trained and tested by programs that other processes than the command started."""
    assert run["train_size"] == run["test_size"] == 2 * REVIEWS_PER_LABEL
    assert run["accuracy"] == 1.0


def test_data_and_artifacts_lie_in_the_server(run: Any, url: str, sentiment: Shell) -> None:
    """Channels, model and predictions are objects there, and none is in the state folder."""
    objects = client("s3", url).list_objects_v2(Bucket="greenroom")["Contents"]
    names = {entry["Key"].rpartition("/")[2] for entry in objects if entry["Size"]}
    assert {"train.csv", "test.csv", "model.tar.gz", "test.csv.out"} <= names
    assert not (sentiment.folder / ".greenroom" / "objects").exists()


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(("review", "label"), [("a good film", "positive"), ("a bad film", "negative")])
def test_a_review_is_predicted(sentiment: Shell, review: str, label: str) -> None:
    """The endpoint serves the artifact from the server."""
    assert sentiment.json("predict", review)["label"] == label


def test_a_second_run_finds_the_first(run: Any, sentiment: Shell) -> None:
    """What is stored there is not sent or made again."""
    before = sentiment.json("status")["resources"]
    again = sentiment.json("run", "--source", str(sentiment.folder / "reviews.tar.gz"))
    assert (again["endpoint"], sentiment.json("status")["resources"]) == (run["endpoint"], before)
