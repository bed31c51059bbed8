"""The seven steps: retrieve, prepare, upload, train, test by batch transform, deploy, use.

The pipeline sees the four rooms of a backend and nothing else, so the same code runs in processes, in containers and
on AWS. It keeps no notes of its own: jobs and endpoints are named after what they are made of, so a second run
finds what the first has done, and goes on where it was interrupted.
"""

import csv
import hashlib
import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal

from backends.base import Backend, Jobs, SupportsLogs
from backends.errors import AlreadyExists, BackendError, InvalidSpec, NotFound
from backends.naming import join_uri
from backends.specs import (
    Channel,
    EndpointSpec,
    EndpointState,
    JobState,
    JobStatus,
    ModelSpec,
    Plan,
    Script,
    Split,
    TrainingSpec,
    TransformSpec,
)
from sentiment import prebuilt
from sentiment.bundle import CONTAINER, MODULES
from sentiment.reporter import Reporter
from sentiment.settings import PROJECT, SentimentSettings

if TYPE_CHECKING:
    from sentiment.dataset import Dataset

METRICS = {"train:accuracy": r"train:accuracy=([0-9.]+);"}
_DIGEST_CHARS = 10
_MAX_TRAINING_SECONDS = 3600
_CSV = "text/csv"


@dataclass(frozen=True)
class Trained:
    """A completed training job and the model that it left."""

    name: str
    artifact_uri: str
    metrics: Mapping[str, float]

    @property
    def digest(self) -> str:
        """What tells this model from others, for the names of what is made from it."""
        return self.name.removeprefix(f"{PROJECT}-train-")


@dataclass(frozen=True)
class Evaluated:
    """What a batch transform over labelled reviews showed: the figures, and the folder with report and pictures."""

    transform: str
    figures: Mapping[str, Any]
    report: Path

    def headline(self) -> dict[str, Any]:
        """The figures that are one number each, between the names of the job and of the report."""
        plain = {name: figure for name, figure in self.figures.items() if not isinstance(figure, list | tuple | dict)}
        return {"transform": self.transform, **plain, "report": self.report}


@dataclass
class Run:
    """What one run of the whole pipeline did; *seconds* for each step, in order."""

    dataset: str = ""
    train_size: int = 0
    test_size: int = 0
    accuracy: float = 0.0
    auc: float | None = None
    endpoint: str = ""
    report: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


class Pipeline:
    """The steps over one backend. With *fresh* nothing that was done before is taken for done."""

    def __init__(
        self, backend: Backend, settings: SentimentSettings, reporter: Reporter, *, fresh: bool = False
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._reporter = reporter
        self._fresh = fresh
        self._prepared: Dataset | None = None

    def run(self) -> Run:
        """Steps 1 to 6; the endpoint is in service afterwards, ready for step 7."""
        run = Run()
        with self._timed(run, "prepare", "1, 2", "Retrieve and prepare the reviews"):
            prepared = self.prepare()
        run.dataset, run.train_size, run.test_size = prepared.name, prepared.train_size, prepared.test_size
        with self._timed(run, "upload", "3", f"Upload to {self._settings.prefix}"):
            self.upload(prepared)
        with self._timed(run, "train", "4", "Train"):
            trained = self.train(prepared)
        with self._timed(run, "evaluate", "5", "Test by batch transform"):
            evaluated = self.evaluate(
                trained, self._test_uri(self._uri(prepared, prepared.test_csv)), prepared.test_size
            )
        run.accuracy, run.auc = evaluated.figures["accuracy"], evaluated.figures["auc"]
        run.report = str(evaluated.report)
        with self._timed(run, "deploy", "6", "Deploy"):
            run.endpoint = self.deploy(trained)
        return run

    def plans(self) -> list[Plan]:
        """The native requests of a first run, in order; nothing is sent. The reviews are prepared to name things."""
        prepared = self.prepare()
        stem = self._training_stem(prepared)
        trained = Trained(stem, join_uri(f"{self._settings.prefix}/models", stem, "output", "model.tar.gz"), {})
        uri = self._test_uri(self._uri(prepared, prepared.test_csv))
        backend, spec = self._backend, self.endpoint_spec(trained)
        return [
            backend.training.plan(self._training_spec(prepared, stem)),
            backend.transform.plan(self.transform_spec(trained, uri, self._test_stem(trained, uri))),
            *self._with_scaling(backend.endpoints.plan(spec), spec),
        ]

    # --- steps

    def prepare(self) -> "Dataset":
        """Retrieve the reviews, clean and split them, once; channels lie on this machine afterwards."""
        if self._prepared is not None:
            return self._prepared
        from sentiment import dataset  # noqa: PLC0415  loads numpy

        with self._reporter.progress("reading reviews") as advance:
            prepared = dataset.prepare(
                self._settings.source,
                self._settings.home / "data",
                test_share=self._settings.test_share,
                advance=advance,
                fresh=self._fresh,
            )
        where = f"{prepared.straddling:,} of their texts on both sides" if prepared.straddling else "kept on one side"
        self._reporter.say(
            f"{prepared.name}: {prepared.train_size:,} reviews to train on, {prepared.test_size:,} held back; "
            f"{prepared.duplicates:,} duplicates, {where}"
        )
        self._prepared = prepared
        return prepared

    def upload(self, prepared: "Dataset") -> None:
        """Put the channels into the store; an object that is there already is not sent again."""
        self._backend.store.ensure_bucket(self._settings.bucket)
        if script := self._script:
            self._store_code(script.code_uri)
        self._store(prepared.train_csv, self._uri(prepared, prepared.train_csv))
        self._store_shares(prepared.test_csv, self._uri(prepared, prepared.test_csv))

    def training_plan(self, prepared: "Dataset") -> Plan:
        """The native requests that training sends."""
        return self._backend.training.plan(self._training_spec(prepared, self._training_stem(prepared)))

    def train(self, prepared: "Dataset") -> Trained:
        """Train on the uploaded channel in the container's own ``train`` program."""
        training = self._backend.training
        stem = self._training_stem(prepared)
        name, status = self._attempt(training, stem)
        if self._fresh and self._settings.spot:
            self._backend.store.delete_prefix(f"{self._checkpoints(prepared)}/")
        if status is None:
            self._begin(training, self._training_spec(prepared, name))
        elif status.state is JobState.COMPLETED and status.artifact_uri:
            self._reporter.say(f"training job {name} has done this already (--fresh trains anew)")
            return Trained(name, status.artifact_uri, status.metrics)
        status = self._finish(training, name, show_log=True)
        assert status.artifact_uri is not None
        self._reporter.say(f"model → {status.artifact_uri}")
        return Trained(name, status.artifact_uri, status.metrics)

    def evaluate(self, trained: Trained, uri: str, size: int) -> Evaluated:
        """Predict the labelled reviews at *uri* by batch transform, the truth joined to each prediction.

        *uri*: of one object, or of a folder of them, with a slash at the end.
        *size*: how many reviews there are, for the progress bar.
        """
        transform = self._backend.transform
        name, status = self._attempt(transform, self._test_stem(trained, uri))
        spec = self.transform_spec(trained, uri, name)
        report = self._settings.home / "reports" / name
        if status is None:
            self._begin(transform, spec)
        if status is None or not status.state.is_terminal:
            self._finish(transform, name)
        else:
            self._reporter.say(f"transform job {name} has done this already (--fresh does it anew)")
        figures = _written(report) or self._judge(f"{spec.output_uri}/", size, report)
        self._reporter.say(
            f"accuracy {figures['accuracy']:.2%}, AUC {_shown(figures['auc'])}, log-loss {figures['log_loss']:.3f}, "
            f"calibration error {figures['ece']:.2%}"
        )
        self._reporter.say(f"report: {report}")
        return Evaluated(name, figures, report)

    def _judge(self, outputs: str, size: int, report: Path) -> Mapping[str, Any]:
        from sentiment import evaluation  # noqa: PLC0415  loads numpy and the plotting library

        with self._reporter.progress("judging predictions") as advance:
            return evaluation.evaluate(_counted(self._rows(outputs), size, advance), report)

    def transform_spec(self, trained: Trained, uri: str, name: str) -> TransformSpec:
        """What evaluation asks for: the review goes to the model, text and label are joined to its answer."""
        return TransformSpec(
            name=name,
            model=self._model_spec(trained),
            input_uri=uri,
            output_uri=f"{self._settings.prefix}/predictions/{name}",
            content_type=_CSV,
            accept=_CSV,
            split=Split.LINE,
            assemble=Split.LINE,
            input_filter="$[0]",
            join_input=True,
            instance_type=self._settings.transform_instance_type or self._settings.instance_type,
            instance_count=self._settings.transform_instances,
            tags=self._settings.tags,
        )

    def evaluate_held_back(self) -> Evaluated:
        """Evaluate the newest model on the reviews that were held back."""
        trained = self.newest_model()
        prepared = self.prepare()
        self.upload(prepared)
        return self.evaluate(trained, self._test_uri(self._uri(prepared, prepared.test_csv)), prepared.test_size)

    def evaluate_file(self, path: Path) -> Evaluated:
        """Evaluate a labelled CSV of the user's (columns text, label) with the newest model."""
        from sentiment import dataset  # noqa: PLC0415  loads numpy

        trained = self.newest_model()
        channel, size = dataset.prepare_labelled(path, self._settings.home / "data")
        uri = f"{self._settings.prefix}/evaluate/{channel.parent.name}/{path.stem}.csv"
        self._backend.store.ensure_bucket(self._settings.bucket)
        self._store_shares(channel, uri)
        return self.evaluate(trained, self._test_uri(uri), size)

    def endpoint_spec(self, trained: Trained) -> EndpointSpec:
        """What deployment asks for: one endpoint, of the same name whatever model it serves."""
        model = self._model_spec(trained)
        return self._settings.hosting.spec(PROJECT, model, tags=self._settings.tags)

    def deployment_plans(self, trained: Trained) -> list[Plan]:
        """The native requests that deploying *trained* sends now, in order; nothing is sent."""
        endpoints, spec = self._backend.endpoints, self.endpoint_spec(trained)
        is_changed = self._endpoint_state(spec.name) is not None and not self._settings.hosting.replaces
        return self._with_scaling(endpoints.plan_update(spec) if is_changed else endpoints.plan(spec), spec)

    def deploy(self, trained: Trained) -> str:
        """Put the model into service; returns the endpoint's name.

        An endpoint that is up is changed while it answers. Those that earlier versions made of each model go.
        """
        endpoints = self._backend.endpoints
        spec = self.endpoint_spec(trained)
        if self._settings.hosting.replaces and self._endpoint_state(spec.name) is not None:
            self._reporter.say(f"replacing endpoint {spec.name}: there is no answer until it is up again")
            self._remove_endpoint(spec.name)
        self._check_change(spec)
        with self._reporter.progress(f"endpoint {spec.name}"):
            differs = endpoints.deploy(spec)
        self._retire(keep=spec.name)
        self._reporter.say(f"endpoint {spec.name} {'is in service' if differs else 'serves this model already'}")
        return spec.name

    # --- what is there

    def newest_model(self) -> Trained:
        """The model of the newest completed training job.

        Raises:
            NotFound: nothing has been trained.
        """
        for name in self._backend.training.names():
            if name.startswith(f"{PROJECT}-train-"):
                status = self._backend.training.status(name)
                if status.state is JobState.COMPLETED and self._has_artifact(status):
                    return Trained(name, status.artifact_uri or "", status.metrics)
        raise NotFound(
            f"no model has been trained on {self._backend.place}. Train one with `sentiment run` or `sentiment train`.",
            kind="training job",
        )

    def endpoint(self) -> str:
        """The name of the newest endpoint in service.

        Raises:
            NotFound: nothing is deployed.
        """
        for name in self._endpoints():
            if self._endpoint_state(name) in {
                EndpointState.IN_SERVICE,
                EndpointState.UPDATING,
                EndpointState.SYSTEM_UPDATING,
            }:
                self._backend.endpoints.wait_in_service(name, timeout_seconds=60)
                return name
        raise NotFound(
            f"no endpoint is in service on {self._backend.place}. Deploy one with `sentiment deploy`.", kind="endpoint"
        )

    def predict(self, endpoint: str, texts: Sequence[str], *, explain: bool = False) -> list[dict[str, Any]]:
        """Ask the endpoint about *texts*; one prediction each, in order.

        Raises:
            InvalidSpec: a text is empty.
        """
        if not all(text.strip() for text in texts):
            raise InvalidSpec("the review is empty, so there is nothing to judge.", kind="review")
        body = json.dumps({"instances": list(texts), "explain": explain}).encode()
        reply = self._backend.endpoints.invoke(
            endpoint, body, content_type="application/json", accept="application/json"
        )
        predictions: list[dict[str, Any]] = json.loads(reply.body)["predictions"]
        if len(predictions) != len(texts):
            raise BackendError(f"endpoint {endpoint!r} gave {len(predictions)} answers to {len(texts)} reviews.")
        return predictions

    def destroy(self) -> list[str]:
        """Stop and remove everything of the application: jobs, endpoints, models, objects. Returns what it was."""
        gone: list[str] = []
        for name in self._endpoints():
            self._remove_endpoint(name)
            gone.append(f"endpoint {name}")
        for jobs in (self._backend.training, self._backend.transform):
            gone += self._destroy_jobs(jobs)
        try:
            count = self._backend.store.delete_prefix(f"{self._settings.prefix}/")
        except NotFound:
            count = 0
        return [*gone, f"{count} objects below {self._settings.prefix}/"]

    # --- inside

    def _training_stem(self, prepared: "Dataset") -> str:
        made_of = [prepared.fingerprint, self._settings.image, sorted(self._settings.hyperparameters.items()), _code()]
        return f"{PROJECT}-train-{_digest(json.dumps(made_of))}"

    def _test_stem(self, trained: Trained, uri: str) -> str:
        return f"{PROJECT}-test-{trained.digest}-{_digest(uri)[:6]}"

    def _model_spec(self, trained: Trained) -> ModelSpec:
        return ModelSpec(image=self._settings.image, artifact_uri=trained.artifact_uri, script=self._script)

    @property
    def _script(self) -> Script | None:
        """What a framework image is to run; None where the image is the application's own."""
        if not self._settings.script_region:
            return None
        digest, _ = prebuilt.packed_code()
        code_uri = f"{self._settings.prefix}/code/{digest}/sourcedir.tar.gz"
        return Script(program=prebuilt.PROGRAM, code_uri=code_uri, region=self._settings.script_region)

    def _store_code(self, uri: str) -> None:
        _, code = prebuilt.packed_code()
        self._backend.store.put(uri, code, content_type="application/gzip")
        self._reporter.say(f"code → {uri} ({decimal(len(code))})")

    def _training_spec(self, prepared: "Dataset", name: str) -> TrainingSpec:
        spot: dict[str, Any] = {}
        if self._settings.spot:
            spot = {"checkpoint_uri": self._checkpoints(prepared), "max_spot_seconds": 2 * _MAX_TRAINING_SECONDS}
        return TrainingSpec(
            **spot,
            name=name,
            image=self._settings.image,
            script=self._script,
            output_uri=f"{self._settings.prefix}/models",
            channels=(Channel(name="train", uri=self._uri(prepared, prepared.train_csv), content_type=_CSV),),
            hyperparameters=self._settings.hyperparameters,
            metrics=METRICS,
            instance_type=self._settings.instance_type,
            max_runtime_seconds=_MAX_TRAINING_SECONDS,
            tags=self._settings.tags,
        )

    def _checkpoints(self, prepared: "Dataset") -> str:
        """Where every attempt at training on *prepared* keeps its checkpoints."""
        return f"{self._settings.prefix}/checkpoints/{self._training_stem(prepared)}"

    def _attempt(self, jobs: Jobs[Any], stem: str) -> tuple[str, JobStatus | None]:
        """The newest job named after *stem* if it serves (completed, or still running), else the next free name."""
        newest, number = None, 1
        name = stem
        while (status := _status(jobs, name)) is not None:
            newest, number = status, number + 1
            name = f"{stem}-{number}"
        if newest is None or self._fresh:
            return name, None
        serves = newest.state is JobState.COMPLETED and self._has_artifact(newest)
        return (newest.name, newest) if serves or newest.state is JobState.IN_PROGRESS else (name, None)

    def _begin(self, jobs: Jobs[Any], spec: Any) -> None:
        """Start the job, unless another run has started it since it was looked for."""
        try:
            jobs.start(spec)
        except AlreadyExists:
            if _status(jobs, spec.name) is None:
                raise
            self._reporter.say(f"{jobs.kind} {spec.name} was just started by another run")

    def _has_artifact(self, status: JobStatus) -> bool:
        if status.artifact_uri:
            return self._backend.store.exists(status.artifact_uri)
        return next(self._backend.store.list_objects(f"{status.output_uri}/"), None) is not None

    def _finish(self, jobs: Jobs[Any], name: str, *, show_log: bool = False) -> JobStatus:
        """Wait for the job, its output streaming by; an interrupt stops the job too."""
        try:
            if show_log and isinstance(jobs, SupportsLogs):
                for line in jobs.log_lines(name, follow=True):
                    self._reporter.say(f"│ {line}")
            with self._reporter.progress(f"{jobs.kind} {name}"):
                return jobs.finish(name)
        except KeyboardInterrupt:
            self._reporter.say(f"interrupted: stopping {jobs.kind} {name}; Ctrl-C again leaves before it has ended")
            jobs.stop(name)
            jobs.wait(name)
            raise

    def _rows(self, outputs: str) -> Iterator[tuple[str, int, float]]:
        """(text, label, probability) of each line of a transform's outputs, all that lie below *outputs*."""
        for info in self._backend.store.list_objects(outputs):
            with self._backend.store.reader(info.uri) as stream:
                for text, label, _, probability in csv.reader(io.TextIOWrapper(stream, encoding="utf-8", newline="")):
                    yield text, label == "positive", float(probability)

    def _store(self, path: Path, uri: str) -> None:
        if not self._fresh and self._is_stored(uri, path):
            self._reporter.say(f"{uri} is there already")
            return
        self._backend.store.upload(path, uri, content_type=_CSV)
        self._reporter.say(f"{path.name} → {uri} ({decimal(path.stat().st_size)})")

    def _store_shares(self, path: Path, uri: str) -> None:
        """Store labelled reviews as *uri*, or as many objects as machines are to share them: none is ever divided."""
        from sentiment import dataset  # noqa: PLC0415  loads numpy

        for share in dataset.shares(path, self._settings.transform_instances):
            self._store(share, uri if share == path else self._test_uri(uri) + share.name)

    def _test_uri(self, uri: str) -> str:
        """What a batch transform of the reviews that :meth:`_store_shares` has stored as *uri* is to read."""
        count = self._settings.transform_instances
        return uri if count == 1 else f"{uri.removesuffix('.csv')}-{count}/"

    def _uri(self, prepared: "Dataset", path: Path) -> str:
        return f"{self._settings.prefix}/data/{prepared.fingerprint}/{path.stem}/{path.name}"

    def _is_stored(self, uri: str, path: Path) -> bool:
        try:
            return self._backend.store.stat(uri).size_bytes == path.stat().st_size
        except NotFound:
            return False

    def _endpoint_state(self, name: str) -> EndpointState | None:
        try:
            return self._backend.endpoints.status(name).state
        except NotFound:
            return None

    def _with_scaling(self, plan: Plan, spec: EndpointSpec) -> list[Plan]:
        scaling = self._backend.endpoints.plan_scaling(spec)
        return [plan, scaling] if scaling.requests else [plan]

    def _endpoints(self) -> list[str]:
        """The application's endpoints: the one, and what earlier versions made of each model."""
        names = self._backend.endpoints.names()
        return [name for name in names if name == PROJECT or name.startswith(f"{PROJECT}-")]

    def _check_change(self, spec: EndpointSpec) -> None:
        """Refuse the one change that SageMaker does not make. Raises InvalidSpec."""
        try:
            status = self._backend.endpoints.status(spec.name)
        except NotFound:
            return
        if self._settings.hosting.real_time or status.serverless or status.state is not EndpointState.IN_SERVICE:
            return
        raise InvalidSpec(
            f"endpoint {spec.name!r} is on instances, which SageMaker cannot change to serverless: deploy with "
            "--real-time as before, or with --replace, which deletes it first.",
            kind="endpoint",
            name=spec.name,
        )

    def _remove_endpoint(self, name: str) -> None:
        if not self._state_is_settled(name):
            self._settle(name)
        self._backend.endpoints.delete(name)
        self._backend.endpoints.wait_deleted(name)

    def _state_is_settled(self, name: str) -> bool:
        state = self._endpoint_state(name)
        return state is None or state.is_settled or state is EndpointState.DELETING

    def _settle(self, name: str) -> None:
        try:
            self._backend.endpoints.wait_in_service(name)
        except BackendError as exc:
            self._reporter.say(str(exc))

    def _retire(self, *, keep: str) -> None:
        for name in self._endpoints():
            if name != keep and self._state_is_settled(name):
                self._reporter.say(f"retiring endpoint {name}")
                self._backend.endpoints.delete(name)

    def _destroy_jobs(self, jobs: Jobs[Any]) -> list[str]:
        ours = [name for name in jobs.names() if name.startswith(f"{PROJECT}-")]
        for name in ours:
            jobs.stop(name)
        for name in ours:
            jobs.wait(name)
            jobs.discard(name)
        return [f"{jobs.kind} {name}" for name in ours]

    @contextmanager
    def _timed(self, run: Run, step: str, number: str, title: str) -> Iterator[None]:
        self._reporter.step(number, title)
        started = time.perf_counter()
        yield
        run.seconds[step] = round(time.perf_counter() - started, 3)


def _status(jobs: Jobs[Any], name: str) -> JobStatus | None:
    try:
        return jobs.status(name)
    except NotFound:
        return None


def _shown(auc: float | None) -> str:
    return "undefined (one label only)" if auc is None else f"{auc:.4f}"


def _written(report: Path) -> Mapping[str, Any]:
    """The figures of a report that was drawn before; empty if there is none."""
    try:
        figures: Mapping[str, Any] = json.loads((report / "figures.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return figures


def _counted(rows: Iterator[Any], size: int, advance: Any) -> Iterator[Any]:
    for number, row in enumerate(rows):
        if number % 500 == 0:
            advance(number / max(1, size))
        yield row


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARS]


def _code() -> str:
    """What the container is made of: a change of its programs or of the model trains a new one."""
    files = [CONTAINER / "train", CONTAINER / "serve", *sorted(CONTAINER.glob("*.py"))]
    files += [Path(__file__).parent / name for name in MODULES]
    return _digest("".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in files))
