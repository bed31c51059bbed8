"""The pipeline over the in-memory backend: what it does again and what not. The real thing is in tests/e2e."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends import Backend
from backends.errors import InvalidSpec, JobFailed, NotFound
from backends.memory import MemoryImage, Model, ProgramFailed, TrainingRun, open_memory
from backends.specs import JobState, Serverless
from sentiment.hosting import Hosting
from sentiment.pipeline import Pipeline, Trained
from sentiment.reporter import Silent
from sentiment.settings import IMAGE, SentimentSettings
from tests.archives import archive

REVIEWS = [(f"good film number {number}", 1) for number in range(40)] + [
    (f"bad film number {number}", 0) for number in range(40)
]


def good(run: TrainingRun) -> None:
    run.log.append("train:accuracy=0.9;")
    run.model["model.json"] = b"{}"


def serve(files: Mapping[str, bytes]) -> Model:
    """A model that knows one word."""

    def probability(text: str) -> float:
        return 0.9 if "good" in text else 0.1

    def answer(body: bytes, content_type: str | None, accept: str | None) -> tuple[int, bytes, str]:
        if content_type == "text/csv":
            rows = csv.reader(io.StringIO(body.decode()))
            lines = [f"{'positive' if probability(text) > 0.5 else 'negative'},{probability(text)}" for (text,) in rows]
            return 200, "\n".join(lines).encode(), "text/csv"
        instances = json.loads(body)["instances"]
        predictions = [{"label": "positive", "probability": probability(text)} for text in instances]
        return 200, json.dumps({"predictions": predictions}).encode(), "application/json"

    return answer


@pytest.fixture
def settings(tmp_path: Path) -> SentimentSettings:
    """Reviews of our own, in an archive such as the official one."""
    archive = tmp_path / "reviews.tar.gz"
    _write_archive(archive)
    return SentimentSettings(home=tmp_path / "home", source=str(archive))


def backend(train: Callable[[TrainingRun], None] = good) -> Backend:
    return open_memory({IMAGE: MemoryImage(train, serve)})


def test_a_run_goes_through_all_steps(settings: SentimentSettings) -> None:
    """From reviews to an endpoint that answers; every step's time is told."""
    with backend() as opened:
        pipeline = Pipeline(opened, settings, Silent())
        run = pipeline.run()
        assert (run.train_size, run.test_size, run.accuracy, run.auc) == (40, 40, 1.0, 1.0)
        assert list(run.seconds) == ["prepare", "upload", "train", "evaluate", "deploy"]
        assert [answer["probability"] for answer in pipeline.predict(pipeline.endpoint(), ["good", "awful"])] == [
            0.9,
            0.1,
        ]


class Steps(Silent):
    """Notes the steps alone."""

    def __init__(self) -> None:
        self.numbers: list[str] = []

    def step(self, number: str, title: str) -> None:
        assert title
        self.numbers.append(number)


def test_steps_have_the_numbers_that_the_documents_give_them(settings: SentimentSettings) -> None:
    """Of the seven, a run does all but the last, which is the page's or `predict`'s."""
    steps = Steps()
    with backend() as opened:
        Pipeline(opened, settings, steps).run()
    assert steps.numbers == ["1, 2", "3", "4", "5", "6"]


def test_what_is_done_is_not_done_again(settings: SentimentSettings) -> None:
    """A second run finds the first one's jobs by their names; a fresh one starts new ones beside them."""
    with backend() as opened:
        first = Pipeline(opened, settings, Silent()).run()
        assert Pipeline(opened, settings, Silent()).run().endpoint == first.endpoint
        assert len(list(opened.training.names())) == len(list(opened.transform.names())) == 1
        again = Pipeline(opened, settings, Silent(), fresh=True).run()
        assert len(list(opened.training.names())) == len(list(opened.transform.names())) == 2
        assert list(opened.endpoints.names()) == [again.endpoint]


class Overtaken:
    """A room in which another run starts each job a moment earlier."""

    def __init__(self, room: Any) -> None:
        self._room = room

    def __getattr__(self, name: str) -> Any:
        return getattr(self._room, name)

    def start(self, spec: Any) -> None:
        self._room.start(spec)
        self._room.start(spec)


def test_two_runs_at_once_share_their_jobs(settings: SentimentSettings) -> None:
    """Whoever is later between looking for a job and starting it waits for that of the other."""
    with backend() as opened:
        rooms: dict[str, Any] = {name: Overtaken(getattr(opened, name)) for name in ("training", "transform")}
        run = Pipeline(replace(opened, **rooms), settings, Silent()).run()
        assert (run.accuracy, run.endpoint) == (1.0, "sentiment")
        assert len(list(opened.training.names())) == len(list(opened.transform.names())) == 1


def test_an_empty_review_is_not_sent(settings: SentimentSettings) -> None:
    """It says so itself."""
    with backend() as opened:
        pipeline = Pipeline(opened, settings, Silent())
        with pytest.raises(InvalidSpec, match="the review is empty"):
            pipeline.predict("nowhere", ["good", " \n"])


def test_a_failed_job_is_tried_again_under_a_new_name(settings: SentimentSettings) -> None:
    """Names are unique for ever, so the next attempt has a number."""
    broken = [True]

    def flaky(run: TrainingRun) -> None:
        if broken.pop():
            raise ProgramFailed("out of luck")
        good(run)

    broken.insert(0, False)
    with backend(flaky) as opened:
        with pytest.raises(JobFailed, match="out of luck"):
            Pipeline(opened, settings, Silent()).run()
        Pipeline(opened, settings, Silent()).run()
        second, first = opened.training.names()
        assert second == f"{first}-2"


def test_a_job_that_was_taken_back_is_taken_up(settings: SentimentSettings) -> None:
    """With spare capacity every attempt finds what the one before has kept; a fresh one begins at the beginning."""
    found: list[dict[str, bytes]] = []

    def taken_back(run: TrainingRun) -> None:
        found.append(dict(run.checkpoints))
        run.checkpoints["step"] = b"1"
        if len(found) == 1:
            raise ProgramFailed("taken back")
        good(run)

    spot = replace(settings, spot=True)
    with backend(taken_back) as opened:
        prepared = Pipeline(opened, spot, Silent()).prepare()
        Pipeline(opened, spot, Silent()).upload(prepared)
        with pytest.raises(JobFailed):
            Pipeline(opened, spot, Silent()).train(prepared)
        Pipeline(opened, spot, Silent()).train(prepared)
        Pipeline(opened, spot, Silent(), fresh=True).train(prepared)
        assert found == [{}, {"step": b"1"}, {}]
        Pipeline(opened, spot, Silent()).destroy()
        assert not list(opened.store.list_objects("s3://greenroom/"))


def test_several_machines_may_share_a_transform(settings: SentimentSettings) -> None:
    """As many objects as machines, all of them judged; number and kind are the transform's alone."""
    wanted = replace(settings, transform_instances=3, transform_instance_type="ml.c5.xlarge")
    with backend() as opened:
        pipeline = Pipeline(opened, wanted, Silent())
        done = pipeline.run()
        (report,) = (wanted.home / "reports").glob("*/figures.json")
        assert json.loads(report.read_text())["reviews"] == done.test_size
        outputs = [info.uri for info in opened.store.list_objects("s3://greenroom/sentiment/predictions/")]
        assert [uri.rpartition("/")[2] for uri in outputs] == [f"test-{number}.csv.out" for number in (1, 2, 3)]
        spec = pipeline.transform_spec(Trained("sentiment-train-x", "s3://greenroom/m", {}), "s3://greenroom/d", "job")
    assert (spec.instance_count, spec.instance_type) == (3, "ml.c5.xlarge")


def test_a_model_that_is_gone_is_trained_again(settings: SentimentSettings) -> None:
    """A completed job without its artifact has nothing to give."""
    with backend() as opened:
        Pipeline(opened, settings, Silent()).run()
        opened.store.delete_prefix("s3://greenroom/sentiment/models/")
        with pytest.raises(NotFound, match="sentiment train"):
            Pipeline(opened, settings, Silent()).newest_model()
        Pipeline(opened, settings, Silent()).run()
        assert len(list(opened.training.names())) == 2


def test_an_interrupt_stops_the_job(settings: SentimentSettings) -> None:
    """Ctrl-C during training leaves no job running."""

    def endless(run: TrainingRun) -> None:
        run.log.append("on and on")
        run.stopping.wait(60)

    class Interrupting(Silent):
        """Presses Ctrl-C at the program's first line."""

        def say(self, text: str) -> None:
            if "on and on" in text:
                raise KeyboardInterrupt

    with backend(endless) as opened:
        with pytest.raises(KeyboardInterrupt):
            Pipeline(opened, settings, Interrupting()).run()
        (job,) = opened.training.names()
        assert opened.training.status(job).state is JobState.STOPPED


def test_other_hyperparameters_make_another_model(settings: SentimentSettings) -> None:
    """The same endpoint serves it."""
    with backend() as opened:
        first = Pipeline(opened, settings, Silent())
        endpoint = first.run().endpoint
        other = SentimentSettings(home=settings.home, source=settings.source, hyperparameters={"min_df": "5"})
        second = Pipeline(opened, other, Silent())
        trained = first.newest_model()
        assert second.run().endpoint == endpoint
        assert list(opened.endpoints.names()) == [endpoint]
        assert opened.endpoints.serves(second.endpoint_spec(second.newest_model()))
        assert not opened.endpoints.serves(first.endpoint_spec(trained))


def test_endpoints_of_earlier_versions_go(settings: SentimentSettings) -> None:
    """They had the model's name in theirs."""
    with backend() as opened:
        pipeline = Pipeline(opened, settings, Silent())
        pipeline.run()
        spec = pipeline.endpoint_spec(pipeline.newest_model())
        opened.endpoints.start(replace(spec, name="sentiment-0123456789"))
        opened.endpoints.start(replace(spec, name="somebody-elses"))
        pipeline.deploy(pipeline.newest_model())
        assert set(opened.endpoints.names()) == {"sentiment", "somebody-elses"}


def test_an_endpoint_may_be_replaced(settings: SentimentSettings) -> None:
    """From instances to serverless there is no other way; without being asked nothing is deleted."""
    with backend() as opened:
        real_time = replace(settings, hosting=Hosting(real_time=True, instances=2))
        Pipeline(opened, real_time, Silent()).run()
        with pytest.raises(InvalidSpec, match="--replace"):
            Pipeline(opened, settings, Silent()).run()
        assert opened.endpoints.status("sentiment").serverless == {}
        Pipeline(opened, replace(settings, hosting=Hosting(replaces=True)), Silent()).run()
        assert opened.endpoints.status("sentiment").serverless == {"AllTraffic": Serverless()}


def test_what_deploying_sends_is_known_before(settings: SentimentSettings) -> None:
    """Made, changed, or made anew."""
    with backend() as opened:
        pipeline = Pipeline(opened, settings, Silent())
        pipeline.run()
        trained = pipeline.newest_model()
        again = Pipeline(opened, replace(settings, hosting=Hosting(replaces=True)), Silent())
        for which, operation in ((pipeline, "change"), (again, "deploy")):
            (plan,) = which.deployment_plans(trained)
            assert [request.operation for request in plan.requests] == [operation]


def test_destroy_leaves_nothing(settings: SentimentSettings) -> None:
    """Endpoints, jobs and objects of ours go; those of others stay."""
    with backend() as opened:
        pipeline = Pipeline(opened, settings, Silent())
        pipeline.run()
        opened.store.put("s3://greenroom/somebody-elses", b"x")
        pipeline.destroy()
        assert list(opened.endpoints.names()) == list(opened.training.names()) == []
        assert [info.uri for info in opened.store.list_objects("s3://greenroom/")] == ["s3://greenroom/somebody-elses"]


def _write_archive(path: Path) -> None:
    halves = ("train", "test")
    files = {
        f"aclImdb/{half}/{'pos' if label else 'neg'}/{number}_9.txt": f"{text} in {half}".encode()
        for half in halves
        for number, (text, label) in enumerate(REVIEWS[::2] if half == "train" else REVIEWS[1::2])
    }
    path.write_bytes(archive(files))
