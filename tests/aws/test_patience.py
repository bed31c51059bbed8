"""What is borne: a role that is new, a place that is lost, an answer that did not come back."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from backends import Backend, open_backend
from backends.aws.account import Busy
from backends.aws.patience import persevering, settling
from backends.config import BackendConfig
from backends.emulator.app import create_app
from backends.engine import Engine
from backends.errors import AlreadyExists, BackendUnavailable
from backends.local.backend import ROLE_ARN, engine_settings
from backends.sagemaker.readings import ServiceError
from backends.specs import EndpointSpec, JobState, ModelSpec, TrainingSpec, Variant
from tests.archives import archive
from tests.clock import Jumping
from tests.conformance.rigs import PROBE
from tests.emulator import serving

PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 3.0


@pytest.mark.parametrize(
    ("message", "settles_after", "expected"),
    [
        ("Could not assume role arn:…. Please ensure that the role exists …", 12, "made"),
        ("Could not assume role arn:…. Please ensure that the role exists …", 1000, 90),
        ("1 validation error detected: …", 1000, 0),
    ],
)
def test_a_new_role_is_waited_for(
    message: str, settles_after: float, expected: object, caplog: pytest.LogCaptureFixture
) -> None:
    """A while and no longer; what waiting does not mend is said at once."""
    clock = Jumping()

    def call(operation: str, document: dict[str, Any]) -> dict[str, Any]:
        if clock.seconds < settles_after:
            raise ServiceError("ValidationException", message)
        return {"made": operation}

    try:
        result: object = next(iter(settling(call, clock)("CreateTrainingJob", {})))
    except ServiceError:
        result = clock.seconds
    assert result == expected
    assert bool(caplog.records) is (expected != 0)


def answering(answers: Iterable[bool], clock: Jumping) -> Any:
    """A call through patience to a place that is reached, or not, as *answers* say one after the other."""
    coming = iter(answers)

    def call(operation: str, document: dict[str, Any]) -> dict[str, Any]:
        if not next(coming):
            raise BackendUnavailable("the line is dead")
        return {"asked": operation}

    return persevering(call, patience_seconds=PATIENCE_SECONDS, pause_seconds=PAUSE_SECONDS, clock=clock)


def test_a_place_that_was_reached_is_waited_for() -> None:
    """Each loss is borne by itself, whatever is asked."""
    clock = Jumping()
    call = answering([True, False, False, True, False, False, False, True], clock)
    assert [call(name, {})["asked"] for name in ("ListModels", "CreateModel", "DeleteModel")][-1] == "DeleteModel"
    assert clock.seconds == 3 * PAUSE_SECONDS  # The second look comes at once.


def test_a_place_that_is_busy_is_reached() -> None:
    """Throttling at the first question is an answer."""
    asked: list[str] = []

    def call(operation: str, document: dict[str, Any]) -> dict[str, Any]:
        asked.append(operation)
        if len(asked) < 3:
            raise Busy("Rate exceeded")
        return document

    persevering(call, patience_seconds=PATIENCE_SECONDS, pause_seconds=PAUSE_SECONDS, clock=Jumping())("ListModels", {})
    assert len(asked) == 3


def test_patience_ends() -> None:
    """After the time that was said."""
    clock = Jumping()
    call = answering([True, *[False] * 9], clock)
    call("ListModels", {})
    with pytest.raises(BackendUnavailable, match="dead"):
        call("DescribeModel", {})
    assert clock.seconds == PATIENCE_SECONDS


@pytest.mark.parametrize("operations", [["DescribeModel"], ["ListModels", "InvokeEndpoint"]])
def test_what_is_said_at_once(operations: list[str]) -> None:
    """A place that was never reached may be the wrong one; who invokes wants to know now."""
    clock = Jumping()
    *before, last = operations
    call = answering([True for _ in before] + [False], clock)
    for operation in before:
        call(operation, {})
    with pytest.raises(BackendUnavailable):
        call(last, {})
    assert clock.seconds == 0


class Losing:
    """The emulator behind a line that swallows the first *lost* answers to *operation*, each after the fact."""

    def __init__(self, app: Any, lost: int, operation: str) -> None:
        self._app = app
        self._left = lost
        self._target = f".{operation}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        target = dict(scope.get("headers", ())).get(b"x-amz-target", b"")
        if not target.endswith(self._target) or not self._left:
            await self._app(scope, receive, send)
            return
        self._left -= 1
        await self._app(scope, receive, _swallow)
        await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


async def _swallow(message: Any) -> None:
    """Nobody hears it."""


@contextmanager
def losing(folder: Path, lost: int, operation: str = "CreateTrainingJob") -> Iterator[Backend]:
    """The AWS backend at an emulator whose answers get lost."""
    engine = Engine(engine_settings(BackendConfig(home=folder, images={"probe": PROBE})))
    engine.site.store.ensure_bucket("bucket")
    with (
        pytest.MonkeyPatch.context() as environment,
        serving(Losing(create_app(engine), lost, operation)) as url,
    ):
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(variable, "test")
        with open_backend(BackendConfig(backend="aws", endpoint_url=url, role_arn=ROLE_ARN)) as backend:
            yield backend
    engine.close()


def spec(mode: str) -> TrainingSpec:
    """A job of the probe; everything of it is in the request."""
    return TrainingSpec(
        name="job-1",
        image="probe",
        output_uri="s3://bucket/out",
        hyperparameters={"mode": mode},
        tags={"owner": "me"},
    )


@pytest.mark.parametrize("lost", [1, 5])
def test_a_job_whose_answer_got_lost_is_ours(tmp_path: Path, lost: int) -> None:
    """boto3 asks again, and after the fifth time the backend; the name is taken, by what was asked for."""
    with losing(tmp_path, lost) as backend:
        assert list(backend.training.names()) == []
        backend.training.start(spec("copy"))
        assert backend.training.wait("job-1").state is JobState.COMPLETED


def test_a_job_that_was_there_before_is_not(tmp_path: Path) -> None:
    """Neither where no answer got lost, nor where another was asked for."""
    with losing(tmp_path, 1) as backend:
        backend.training.start(spec("copy"))
        for mode in ("copy", "fail"):
            with pytest.raises(AlreadyExists):
                backend.training.start(spec(mode))
    with losing(tmp_path, 1) as backend, pytest.raises(AlreadyExists):
        backend.training.start(spec("fail"))


def test_an_endpoint_whose_answer_got_lost_is_changed(tmp_path: Path) -> None:
    """Its update and its deletion are asked again after the fact."""
    for operation in ("UpdateEndpoint", "DeleteEndpoint"):
        with losing(tmp_path / operation, 1, operation) as backend:
            for answer in (b"a", b"b"):
                uri = f"s3://bucket/{answer.decode()}/model.tar.gz"
                backend.store.put(uri, archive({"model.txt": answer}))
                served = Variant(model=ModelSpec(image="probe", artifact_uri=uri))
                backend.endpoints.deploy(EndpointSpec(name="served", variants=(served,)))
                assert backend.endpoints.invoke("served", b"model").body == answer
            backend.endpoints.delete("served")
            backend.endpoints.wait_deleted("served")


UNDER_WAY = ServiceError("ValidationException", 'Cannot update in-progress endpoint "arn:…".')


@pytest.mark.parametrize(
    ("operation", "described", "is_ours"),
    [
        ("DeleteEndpoint", {"EndpointStatus": "Deleting"}, True),
        ("DeleteEndpoint", {"EndpointStatus": "Updating"}, False),
        ("UpdateEndpoint", {"PendingDeploymentSummary": {"EndpointConfigName": "new"}}, True),
        ("UpdateEndpoint", {"PendingDeploymentSummary": {"EndpointConfigName": "other"}}, False),
        ("UpdateEndpoint", {"EndpointStatus": "Deleting"}, False),
    ],
)
def test_an_endpoint_on_its_way(operation: str, described: dict[str, Any], *, is_ours: bool) -> None:
    """What was sent again is refused as it is under way, or as something else is."""
    answers: Iterator[Exception | dict[str, Any]] = iter([{}, BackendUnavailable("lost"), UNDER_WAY, described])

    def call(asked: str, document: dict[str, Any]) -> dict[str, Any]:
        del asked, document
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    patient = persevering(call, patience_seconds=PATIENCE_SECONDS, pause_seconds=PAUSE_SECONDS, clock=Jumping())
    patient("ListEndpoints", {})
    with nullcontext() if is_ours else pytest.raises(ServiceError, match="in-progress"):
        assert patient(operation, {"EndpointName": "served", "EndpointConfigName": "new"}) == {}
