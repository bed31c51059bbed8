import pytest

from backends import SupportsLogs
from backends.errors import AlreadyExists, InvalidSpec, JobFailed, NotFound, WaitTimeout
from backends.specs import Channel, JobState, TrainingSpec
from tests.conformance.rigs import Rig

LIMIT_SECONDS = 30


def spec(rig: Rig, name: str, prefix: str, **hyperparameters: str) -> TrainingSpec:
    rig.plant(f"{prefix}/data/part-1.txt", b"one\n")
    return TrainingSpec(
        name=name,
        image=rig.image,
        output_uri=f"{prefix}/out/",
        channels=(Channel(name="train", uri=f"{prefix}/data/"),),
        hyperparameters=hyperparameters,
    )


def test_a_job_reads_its_channel_and_leaves_its_artifact(rig: Rig, name: str, prefix: str) -> None:
    """The artifact lies at <output>/<job>/output/model.tar.gz and holds what the program saved."""
    rig.plant(f"{prefix}/data/part-2.txt", b"two\n")
    rig.backend.training.start(spec(rig, name, prefix))
    status = rig.backend.training.finish(name, timeout_seconds=LIMIT_SECONDS)
    assert status.state is JobState.COMPLETED
    assert status.artifact_uri == f"{prefix}/out/{name}/output/model.tar.gz"
    assert rig.model_files(status.artifact_uri)["model.txt"] == b"one\ntwo\n"
    assert status.ended is not None
    assert status.ended >= status.created


def test_a_failing_program_fails_the_job_with_its_own_words(rig: Rig, name: str, prefix: str) -> None:
    """The failure file and the exit code make the reason, in SageMaker's form."""
    rig.backend.training.start(spec(rig, name, prefix, mode="fail", failure="no such column", exit_code="7"))
    with pytest.raises(JobFailed) as caught:
        rig.backend.training.finish(name, timeout_seconds=LIMIT_SECONDS)
    assert caught.value.reason == "AlgorithmError: no such column, exit code: 7"
    assert rig.backend.training.status(name).state is JobState.FAILED


def start_hanging(rig: Rig, name: str, prefix: str) -> None:
    """Start a program that ends only when it is told to, and wait until it can be told.

    The first process of a container does not hear a SIGTERM that comes before it has said what to do with it.
    """
    rig.backend.training.start(spec(rig, name, prefix, mode="hang"))
    while "mode=hang" not in list(_logs(rig).log_lines(name)):
        assert not rig.backend.training.status(name).state.is_terminal


def test_stopping_a_job_saves_what_the_program_saves(rig: Rig, name: str, prefix: str) -> None:
    """A stopped job is Stopped, not Failed, and its artifact is uploaded."""
    start_hanging(rig, name, prefix)
    rig.backend.training.stop(name)
    rig.backend.training.stop(name)
    status = rig.backend.training.wait(name, timeout_seconds=LIMIT_SECONDS)
    assert status.state is JobState.STOPPED
    assert status.artifact_uri is not None
    assert rig.model_files(status.artifact_uri)["model.txt"] == b"saved on the way out"


def test_stopping_a_finished_job_changes_nothing(rig: Rig, name: str, prefix: str) -> None:
    """A second request to end what has ended is quiet."""
    rig.backend.training.start(spec(rig, name, prefix))
    before = rig.backend.training.finish(name, timeout_seconds=LIMIT_SECONDS)
    rig.backend.training.stop(name)
    assert rig.backend.training.status(name).state is before.state


def test_names_are_unique(rig: Rig, name: str, prefix: str) -> None:
    """A second job of one name is refused and the first is untouched."""
    rig.backend.training.start(spec(rig, name, prefix))
    with pytest.raises(AlreadyExists, match=name):
        rig.backend.training.start(spec(rig, name, prefix, mode="fail"))
    assert rig.backend.training.wait(name, timeout_seconds=LIMIT_SECONDS).state is JobState.COMPLETED


def test_missing_input_is_refused_before_anything_is_created(rig: Rig, name: str, prefix: str) -> None:
    """No object below a channel's prefix: the request fails, no job exists."""
    wanted = spec(rig, name, prefix)
    empty = TrainingSpec(
        name=name,
        image=rig.image,
        output_uri=wanted.output_uri,
        channels=(Channel(name="train", uri=f"{prefix}/nothing-here/"),),
    )
    with pytest.raises(InvalidSpec, match="nothing-here"):
        rig.backend.training.start(empty)
    with pytest.raises(NotFound):
        rig.backend.training.status(name)


def test_an_unknown_image_is_refused(rig: Rig, name: str, prefix: str) -> None:
    """The error names the image; no job exists."""
    with pytest.raises(InvalidSpec, match="no-such-image"):
        rig.backend.training.start(TrainingSpec(name=name, image="no-such-image", output_uri=f"{prefix}/out"))
    with pytest.raises(NotFound):
        rig.backend.training.status(name)


@pytest.mark.parametrize("bad", ["", "-x", "x-", "a_b", "a" * 64, "a/b", "ä"])
def test_illegal_names_never_leave_the_plan(rig: Rig, prefix: str, bad: str) -> None:
    """Planning is where a spec that can never work is refused."""
    with pytest.raises(InvalidSpec):
        rig.backend.training.plan(TrainingSpec(name=bad, image=rig.image, output_uri=prefix))


def test_planning_touches_nothing(rig: Rig, name: str, prefix: str) -> None:
    """A plan that was not submitted leaves no trace."""
    rig.backend.training.plan(spec(rig, name, prefix))
    assert name not in list(rig.backend.training.names())


def test_what_does_not_exist_is_not_found(rig: Rig, name: str) -> None:
    """Unknown names on every method; only forgetting is quiet."""
    training = rig.backend.training
    for act in (training.status, training.stop, _logs(rig).log_lines, training.wait):
        with pytest.raises(NotFound, match=name):
            act(name)
    training.discard(name)


def test_the_wait_can_run_out(rig: Rig, name: str, prefix: str) -> None:
    """The wait ends, the job goes on; time comes from the clock that was handed in."""
    start_hanging(rig, name, prefix)
    with pytest.raises(WaitTimeout, match=name):
        rig.backend.training.wait(name, timeout_seconds=3600, clock=JumpingClock())
    assert not rig.backend.training.status(name).state.is_terminal
    rig.backend.training.stop(name)
    rig.backend.training.wait(name, timeout_seconds=LIMIT_SECONDS)


def test_names_come_newest_first(rig: Rig, name: str, prefix: str) -> None:
    """The listing holds every job once."""
    jobs = [f"{name}-{letter}" for letter in "abc"]
    for job in jobs:
        rig.backend.training.start(spec(rig, job, prefix))
    listed = [job for job in rig.backend.training.names() if job.startswith(f"{name}-")]
    assert listed == jobs[::-1]
    for job in jobs:
        rig.backend.training.wait(job, timeout_seconds=LIMIT_SECONDS)


def test_a_followed_log_ends_with_the_job(rig: Rig, name: str, prefix: str) -> None:
    """Following yields what the program prints, and stops by itself."""
    rig.backend.training.start(spec(rig, name, prefix))
    assert "mode=copy" in list(_logs(rig).log_lines(name, follow=True))
    assert rig.backend.training.wait(name, timeout_seconds=LIMIT_SECONDS).state is JobState.COMPLETED


class JumpingClock:
    """A clock on which every sleep takes an hour."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += 3600


def _logs(rig: Rig) -> SupportsLogs:
    room = rig.backend.training
    assert isinstance(room, SupportsLogs)
    return room
