from dataclasses import replace

import pytest

from backends.errors import AlreadyExists, InvalidSpec, JobFailed, NotFound
from backends.specs import JobState, ModelSpec, Split, Strategy, TransformSpec
from tests.conformance.rigs import Rig

LIMIT_SECONDS = 30


def spec(rig: Rig, name: str, prefix: str) -> TransformSpec:
    artifact = f"{prefix}/model/model.tar.gz"
    rig.plant_model(artifact, {"model.txt": b"m"})
    return TransformSpec(
        name=name,
        model=ModelSpec(image=rig.image, artifact_uri=artifact),
        input_uri=f"{prefix}/in/",
        output_uri=f"{prefix}/out",
        content_type="text/csv",
        accept="text/csv",
        split=Split.LINE,
        assemble=Split.LINE,
    )


def run(rig: Rig, wanted: TransformSpec) -> None:
    rig.backend.transform.start(wanted)
    rig.backend.transform.finish(wanted.name, timeout_seconds=LIMIT_SECONDS)


def outputs(rig: Rig, prefix: str) -> dict[str, bytes]:
    return {
        info.uri.removeprefix(f"{prefix}/out/"): rig.peek(info.uri)
        for info in rig.backend.store.list_objects(f"{prefix}/out/")
    }


@pytest.mark.parametrize("strategy", list(Strategy))
def test_every_line_is_answered_in_order(rig: Rig, name: str, prefix: str, strategy: Strategy) -> None:
    """One output per input, named <key>.out with the path below the prefix, lines in the input's order."""
    rig.plant(f"{prefix}/in/a.csv", b"x,1\ny,2\nz,3\n")
    rig.plant(f"{prefix}/in/deeper/b.csv", b"w,4")
    run(rig, replace(spec(rig, name, prefix), strategy=strategy))
    assert outputs(rig, prefix) == {"a.csv.out": b"X,1\nY,2\nZ,3\n", "deeper/b.csv.out": b"W,4\n"}


def test_several_instances_give_the_same_outputs(rig: Rig, name: str, prefix: str) -> None:
    """How many machines share the objects changes nothing in what is stored."""
    for key in "abc":
        rig.plant(f"{prefix}/in/{key}.csv", f"{key},1\n{key},2\n".encode())
    run(rig, replace(spec(rig, name, prefix), instance_count=2))
    assert outputs(rig, prefix) == {f"{key}.csv.out": f"{key.upper()},1\n{key.upper()},2\n".encode() for key in "abc"}


def test_an_unsplit_object_is_one_request(rig: Rig, name: str, prefix: str) -> None:
    """SplitType None sends the object as it is and stores the answer as it comes."""
    rig.plant(f"{prefix}/in/page", b"two\nlines")
    run(rig, replace(spec(rig, name, prefix), split=Split.NONE, assemble=Split.NONE, content_type="text/plain"))
    assert outputs(rig, prefix) == {"page.out": b"TWO\nLINES"}


def test_an_object_of_any_size_can_travel_unsplit(rig: Rig, name: str, prefix: str) -> None:
    """MaxPayloadInMB 0 lifts the limit."""
    data = b"abcdefgh" * 1_000_000
    rig.plant(f"{prefix}/in/large", data)
    wanted = replace(spec(rig, name, prefix), split=Split.NONE, assemble=Split.NONE, max_payload_mb=0)
    run(rig, wanted)
    assert outputs(rig, prefix) == {"large.out": data.upper()}


def test_filters_and_join_work_together(rig: Rig, name: str, prefix: str) -> None:
    """InputFilter picks what the model sees, the join appends its answer, OutputFilter picks from both."""
    rig.plant(f"{prefix}/in/a.csv", b'"good, film",pos\nbad,neg\n')
    wanted = replace(spec(rig, name, prefix), input_filter="$[0]", join_input=True, output_filter="$[1,2]")
    run(rig, wanted)
    assert outputs(rig, prefix) == {"a.csv.out": b'pos,"GOOD, FILM"\nneg,BAD\n'}


def test_a_bad_object_fails_the_job_and_spares_the_others(rig: Rig, name: str, prefix: str) -> None:
    """The container's error never ends up in an output; what succeeded is stored."""
    rig.plant(f"{prefix}/in/bad.csv", b"fine\nstatus=400\n")
    rig.plant(f"{prefix}/in/good.csv", b"fine\n")
    rig.backend.transform.start(spec(rig, name, prefix))
    with pytest.raises(JobFailed) as caught:
        rig.backend.transform.finish(name, timeout_seconds=LIMIT_SECONDS)
    assert caught.value.reason == "ClientError: See job logs for more information"
    assert outputs(rig, prefix) == {"good.csv.out": b"FINE\n"}


def test_a_server_error_is_the_algorithms(rig: Rig, name: str, prefix: str) -> None:
    """A 5xx that stays fails the job as AlgorithmError."""
    rig.plant(f"{prefix}/in/bad.csv", b"status=500\n")
    rig.backend.transform.start(spec(rig, name, prefix))
    status = rig.backend.transform.wait(name, timeout_seconds=LIMIT_SECONDS)
    assert status.reason == "AlgorithmError: See job logs for more information"
    assert outputs(rig, prefix) == {}


def test_a_record_over_the_limit_fails_its_object(rig: Rig, name: str, prefix: str) -> None:
    """It is neither cut nor skipped; the other objects are processed."""
    rig.plant(f"{prefix}/in/large.csv", b"ok\n" + b"x" * (1024 * 1024 + 1) + b"\n")
    rig.plant(f"{prefix}/in/small.csv", b"ok\n")
    rig.backend.transform.start(replace(spec(rig, name, prefix), max_payload_mb=1))
    assert rig.backend.transform.wait(name, timeout_seconds=LIMIT_SECONDS).state is JobState.FAILED
    assert outputs(rig, prefix) == {"small.csv.out": b"OK\n"}


def test_a_filter_that_sagemaker_refuses_is_refused(rig: Rig, name: str, prefix: str) -> None:
    """Its own words, and no job."""
    rig.plant(f"{prefix}/in/a.csv", b"x\n")
    with pytest.raises(InvalidSpec, match="only single range filters"):
        rig.backend.transform.start(replace(spec(rig, name, prefix), input_filter="$[0:2,3]"))
    with pytest.raises(NotFound):
        rig.backend.transform.status(name)


def test_a_missing_model_is_refused(rig: Rig, name: str, prefix: str) -> None:
    """Nothing is created for a model that is not there."""
    rig.plant(f"{prefix}/in/a.csv", b"x\n")
    wanted = spec(rig, name, prefix)
    gone = ModelSpec(image=rig.image, artifact_uri=f"{prefix}/nowhere/model.tar.gz")
    with pytest.raises(InvalidSpec, match="nowhere"):
        rig.backend.transform.start(replace(wanted, model=gone))
    run(rig, wanted)


def test_a_refused_job_leaves_its_name_free(rig: Rig, name: str, prefix: str) -> None:
    """What was created before the refusal is taken back."""
    wanted = spec(rig, name, prefix)
    with pytest.raises(InvalidSpec):
        rig.backend.transform.start(wanted)
    rig.plant(f"{prefix}/in/a.csv", b"x\n")
    run(rig, wanted)
    assert outputs(rig, prefix) == {"a.csv.out": b"X\n"}


def test_names_are_unique(rig: Rig, name: str, prefix: str) -> None:
    """A second job of one name is refused."""
    rig.plant(f"{prefix}/in/a.csv", b"x\n")
    run(rig, spec(rig, name, prefix))
    with pytest.raises(AlreadyExists, match=name):
        rig.backend.transform.start(spec(rig, name, prefix))


def test_a_stopped_job_stores_nothing_more(rig: Rig, name: str, prefix: str) -> None:
    """Stopped is the state, and stopping again is quiet."""
    for number in range(20):
        rig.plant(f"{prefix}/in/{number:02}.csv", b"sleep=0.5\n")
    rig.backend.transform.start(spec(rig, name, prefix))
    rig.backend.transform.stop(name)
    status = rig.backend.transform.wait(name, timeout_seconds=LIMIT_SECONDS)
    assert status.state is JobState.STOPPED
    rig.backend.transform.stop(name)
    assert len(outputs(rig, prefix)) < 20


def test_what_does_not_exist_is_not_found(rig: Rig, name: str) -> None:
    """Unknown names on every method; only forgetting is quiet."""
    for act in (rig.backend.transform.status, rig.backend.transform.stop):
        with pytest.raises(NotFound, match=name):
            act(name)
    rig.backend.transform.discard(name)
