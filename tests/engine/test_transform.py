"""Batch transforms under contract C."""

import gzip
import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.conftest import Stage

MakeStage = Callable[..., Stage]
CLIENT_ERROR = "ClientError: See job logs for more information"
SERVER_ERROR = "AlgorithmError: See job logs for more information"


@pytest.fixture(scope="module", autouse=True)
def model(stage: Stage) -> str:
    return stage.model("model")


def source(prefix: str, kind: str = "S3Prefix") -> dict[str, Any]:
    return {"DataSource": {"S3DataSource": {"S3DataType": kind, "S3Uri": f"s3://bucket/{prefix}"}}}


def run(stage: Stage, name: str, objects: dict[str, bytes], /, **members: Any) -> dict[str, Any]:
    """Transform *objects* (key below the input prefix → bytes)."""
    for key, data in objects.items():
        stage.put(f"{name}-in/{key}", data)
    members["TransformInput"] = {**source(f"{name}-in/"), **members.get("TransformInput", {})}
    return stage.transform(name, **members)


def outputs(stage: Stage, name: str) -> dict[str, bytes]:
    return {key.removeprefix(f"{name}/"): stage.get(key) for key in stage.keys(f"{name}/")}


def test_the_description_has_the_defaults(stage: Stage) -> None:
    """The request echoed, with what AWS fills in (C.5)."""
    job = run(
        stage, "Defaults", {"a": b"x\n"}, TransformInput={"SplitType": "None"}, TransformOutput={"AssembleWith": "None"}
    )
    assert job["TransformJobArn"].endswith(":transform-job/defaults")
    assert (job["TransformJobName"], job["TransformJobStatus"]) == ("Defaults", "Completed")
    assert job["TransformInput"]["CompressionType"] == "None"
    assert job["DataProcessing"] == {"InputFilter": "$", "OutputFilter": "$", "JoinSource": "None"}
    assert job["CreationTime"] <= job["TransformStartTime"] <= job["TransformEndTime"]


def test_the_container_sees_what_was_asked(stage: Stage) -> None:
    """Content-Type and Accept as given; the client is the platform's (C.2)."""
    run(stage, "headers", {"a": b"headers\n"})
    seen = json.loads(outputs(stage, "headers")["a.out"])
    assert (seen["content-type"], seen["accept"]) == ("text/csv", "text/csv")
    assert seen["user-agent"] == "Go-http-client/1.1"


def test_instances_share_the_objects(stage: Stage) -> None:
    """Each object goes to one of the servers, in turn by their keys; one that gets none idles (C.4)."""
    objects = dict.fromkeys("abcde", b"environment\nenvironment\n")
    job = run(stage, "instances", objects, TransformResources={"InstanceCount": 3})
    assert job["TransformResources"]["InstanceCount"] == 3
    asked = {
        key: {json.loads(line)["SAGEMAKER_BIND_TO_PORT"] for line in answer.splitlines()}
        for key, answer in outputs(stage, "instances").items()
    }
    assert [len(servers) for servers in asked.values()] == [1] * 5
    assert asked["a.out"] == asked["d.out"]
    assert asked["b.out"] == asked["e.out"]
    assert len(set.union(*asked.values())) == 3
    job = run(stage, "idle", {"a": b"x\n"}, TransformResources={"InstanceCount": 2})
    assert job["TransformJobStatus"] == "Completed"


def test_one_of_several_servers_that_dies_fails_the_job(stage: Stage) -> None:
    """What the others have done is stored; the reason names the end of the one."""
    objects = {"a": b"x\n", "b": b"die\n", "c": b"y\n"}
    job = run(stage, "one-dies", objects, TransformResources={"InstanceCount": 3})
    assert job["TransformJobStatus"] == "Failed"
    assert "exit code 9" in job["FailureReason"]
    assert outputs(stage, "one-dies") == {"a.out": b"X\n", "c.out": b"Y\n"}


def test_headers_that_were_not_asked_are_absent(stage: Stage) -> None:
    """No ContentType, no Accept: neither header (C.2, unverified on AWS)."""
    request = stage.transform_request("bare", TransformInput=source("bare-in/"))
    stage.put("bare-in/a", b"headers\n")
    del request["TransformInput"]["ContentType"], request["TransformOutput"]["Accept"]
    stage.call("CreateTransformJob", **request)
    stage.transformed("bare")
    seen = json.loads(outputs(stage, "bare")["a.out"])
    assert "content-type" not in seen
    assert "accept" not in seen


def test_batch_variables_are_there_only_if_asked(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """SAGEMAKER_BATCH is "true" always, the others only with the request's members (C.2, F.3 27)."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "users-secret")
    monkeypatch.setenv("MY_TOKEN", "users-token")
    run(stage, "plain-env", {"a": b"environment\n"})
    plain = json.loads(outputs(stage, "plain-env")["a.out"])
    assert plain["SAGEMAKER_BATCH"] == "true"
    assert not {"SAGEMAKER_MAX_PAYLOAD_IN_MB", "SAGEMAKER_BATCH_STRATEGY", "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"} & set(
        plain
    )
    assert "users" not in json.dumps(plain)
    run(
        stage,
        "full-env",
        {"a": b"environment\n"},
        BatchStrategy="SingleRecord",
        MaxPayloadInMB=3,
        MaxConcurrentTransforms=2,
        Environment={"MINE": "job"},
    )
    full = json.loads(outputs(stage, "full-env")["a.out"])
    assert full["SAGEMAKER_BATCH_STRATEGY"] == "SINGLE_RECORD"
    assert (full["SAGEMAKER_MAX_PAYLOAD_IN_MB"], full["SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"]) == ("3", "2")
    assert full["MINE"] == "job"


def test_the_jobs_environment_wins_over_the_models(stage: Stage) -> None:
    """Which one wins is undocumented; here the transform job does (C.2, G.7)."""
    stage.model("with-environment", {"BOTH": "model", "ONLY": "model"})
    run(stage, "clash", {"a": b"environment\n"}, ModelName="with-environment", Environment={"BOTH": "job"})
    seen = json.loads(outputs(stage, "clash")["a.out"])
    assert (seen["BOTH"], seen["ONLY"]) == ("job", "model")


@pytest.mark.parametrize(
    ("offer", "asked", "effective"),
    [
        (None, {}, "MaxConcurrentTransforms=1, MaxPayloadInMB=6, BatchStrategy=MULTI_RECORD"),
        (
            {"MaxConcurrentTransforms": 4, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 2},
            {},
            "MaxConcurrentTransforms=4, MaxPayloadInMB=2, BatchStrategy=SINGLE_RECORD",
        ),
        (
            {"MaxConcurrentTransforms": 4, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 2},
            {"MaxPayloadInMB": 5, "MaxConcurrentTransforms": 0},
            "MaxConcurrentTransforms=4, MaxPayloadInMB=5, BatchStrategy=SINGLE_RECORD",
        ),
        (
            {"MaxConcurrentTransforms": True, "BatchStrategy": "ALL", "MaxPayloadInMB": -1},
            {"BatchStrategy": "SingleRecord"},
            "MaxConcurrentTransforms=1, MaxPayloadInMB=6, BatchStrategy=SINGLE_RECORD",
        ),
        ([1], {}, "MaxConcurrentTransforms=1, MaxPayloadInMB=6, BatchStrategy=MULTI_RECORD"),
    ],
)
def test_request_before_container_before_default(stage: Stage, offer: Any, asked: Any, effective: str) -> None:
    """Each member is taken from the first that has it; a 404 or nonsense offers nothing (C.2, F.3 28)."""
    name = f"offer-{abs(hash((str(offer), str(asked))))}"
    stage.model(name, **({} if offer is None else {"parameters": offer}))
    run(stage, name, {"a": b"x\n"}, ModelName=name, **asked)
    (line,) = stage.data_log(name)
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}:\[sagemaker logs\]: {effective}", line)


def test_server_errors_are_tried_again(stage: Stage) -> None:
    """Up to InvocationsMaxRetries times, three by default (C.5)."""
    assert run(stage, "patient", {"a": b"flaky=3\n"})["TransformJobStatus"] == "Completed"
    job = run(stage, "hasty", {"a": b"flaky=3\n"}, ModelClientConfig={"InvocationsMaxRetries": 1})
    assert (job["TransformJobStatus"], job["FailureReason"]) == ("Failed", SERVER_ERROR)
    assert "Bad HTTP status received from algorithm: 503" in stage.data_log("hasty")[1]


def test_client_errors_are_not_tried_again(stage: Stage) -> None:
    """One request, the container's words in the data log, no output (C.5, F.3 29)."""
    job = run(stage, "refused", {"a": b"status=400\n", "b": b"tries\n"}, MaxConcurrentTransforms=1)
    assert (job["TransformJobStatus"], job["FailureReason"]) == ("Failed", CLIENT_ERROR)
    assert json.loads(outputs(stage, "refused")["b.out"])["status=400\n"] == 1
    said = [line.partition("[sagemaker logs]: ")[2] for line in stage.data_log("refused")[1:]]
    where = "bucket/refused-in/a: "
    assert said == [f"{where}ClientError: 400", where, f"{where}Message:", f"{where}told to fail"]


def test_a_model_that_does_not_answer_in_time_is_tried_again(stage: Stage) -> None:
    """InvocationsTimeoutInSeconds is for each try; then the object fails and the next one is processed (C.5)."""
    job = run(
        stage,
        "slow",
        {"a": b"sleep=30\n", "b": b"fine\n"},
        ModelClientConfig={"InvocationsTimeoutInSeconds": 1, "InvocationsMaxRetries": 0},
    )
    assert job["FailureReason"] == SERVER_ERROR
    assert "Unable to get response from algorithm" in stage.data_log("slow")[1]
    assert outputs(stage, "slow") == {"b.out": b"FINE\n"}


def test_a_container_that_dies_fails_the_job(stage: Stage) -> None:
    """With a reason, and in seconds (S19)."""
    job = run(stage, "dying", {"a": b"die\n", "b": b"fine\n"}, ModelClientConfig={"InvocationsMaxRetries": 1})
    assert (job["TransformJobStatus"], job["FailureReason"]) == (
        "Failed",
        f"{SERVER_ERROR} (its program ended with exit code 9)",
    )


def test_a_container_that_never_gets_healthy_fails_the_job(stage: Stage) -> None:
    """At once if it ends (C.2)."""
    stage.model("stillborn", exit=5)
    job = run(stage, "no-container", {"a": b"x\n"}, ModelName="stillborn")
    assert "exit code 5" in job["FailureReason"]
    assert "told to exit" in job["FailureReason"]


def test_answers_keep_their_order(stage: Stage) -> None:
    """Eight at a time, the first the slowest: the output is in the input's order (C.3)."""
    lines = [f"sleep={0.2 if number == 0 else 0.01 * (number % 3)} {number}" for number in range(60)]
    began = time.monotonic()
    run(
        stage,
        "ordered",
        {"a": "\n".join(lines).encode()},
        BatchStrategy="SingleRecord",
        MaxConcurrentTransforms=8,
    )
    assert outputs(stage, "ordered")["a.out"].decode().splitlines() == [line.upper() for line in lines]
    assert time.monotonic() - began < 10


def test_many_small_objects_share_the_window(stage: Stage) -> None:
    """Concurrency is the job's, not the object's."""
    began = time.monotonic()
    run(stage, "many", {f"{number:02}": b"sleep=0.2\n" for number in range(16)}, MaxConcurrentTransforms=16)
    assert len(outputs(stage, "many")) == 16
    assert time.monotonic() - began < 16 * 0.2


def test_the_input_is_listed_before_anything_is_written(stage: Stage) -> None:
    """A prefix is a string and may hold the job's own output, which is then not read again (C.1, F.3 33, 34)."""
    stage.put("shared/in/deep/a", b"a\n")
    stage.put("shared/in-2/b", b"b\n")
    stage.put("shared/in/", b"")
    stage.transform(
        "sharing",
        TransformInput=source("shared/in"),
        TransformOutput={"S3OutputPath": "s3://bucket/shared/in-out/"},
    )
    made = [key for key in stage.keys("shared/") if key.endswith(".out")]
    assert made == ["shared/in-out/deep/a.out", "shared/in-out/in-2/b.out"]


def test_a_second_job_may_write_over_the_first_ones_output(stage: Stage) -> None:
    """Existing keys are overwritten (C.4)."""
    for name, data in {"first": b"one\n", "second": b"two\n"}.items():
        run(stage, name, {"a": data}, TransformOutput={"S3OutputPath": "s3://bucket/overwritten"})
    assert stage.get("overwritten/a.out") == b"TWO\n"


@pytest.mark.parametrize(("assemble", "ending"), [("Line", b"\n"), ("None", b"")])
def test_a_whole_object_streams_both_ways(stage: Stage, assemble: str, ending: bytes) -> None:
    """MaxPayloadInMB 0 sends it in chunks; the answer is stored as it comes (C.1)."""
    name = f"whole-{assemble.lower()}"
    run(
        stage,
        name,
        {"a": b"x" * 3_000_000, "b": b"flaky=1"},
        MaxPayloadInMB=0,
        TransformInput={"SplitType": "None"},
        TransformOutput={"AssembleWith": assemble},
    )
    assert outputs(stage, name) == {"a.out": b"X" * 3_000_000 + ending, "b.out": b"FLAKY=1" + ending}


def test_a_bad_gzip_object_spares_the_others(stage: Stage) -> None:
    """It fails alone, by name in the data log (C.5)."""
    objects = {"bad.gz": b"no gzip", "good.gz": gzip.compress(b"x\n")}
    job = run(stage, "gzip", objects, TransformInput={"CompressionType": "Gzip"})
    assert job["FailureReason"] == CLIENT_ERROR
    assert outputs(stage, "gzip") == {"good.gz.out": b"X\n"}
    assert "gzip-in/bad.gz: " in stage.data_log("gzip")[1]


@pytest.mark.parametrize(
    ("media_type", "record", "joined"),
    [
        ("text/csv", b"a,b", b"a,b,A,B\n"),
        ("application/jsonlines", b'{"a":1}', b'{"a":1,"SageMakerOutput":{"A":1}}\n'),
        ("application/jsonlines", b"[1]", b'{"SageMakerInput":[1],"SageMakerOutput":[1]}\n'),
    ],
)
def test_predictions_are_joined(stage: Stage, media_type: str, record: bytes, joined: bytes) -> None:
    """CSV columns side by side, JSON under SageMakerOutput (C.6, F.3 31)."""
    name = f"join-{len(joined)}"
    run(
        stage,
        name,
        {"a": record + b"\n"},
        TransformInput={"ContentType": media_type},
        TransformOutput={"Accept": media_type},
        DataProcessing={"JoinSource": "Input"},
    )
    found = outputs(stage, name)["a.out"]
    assert found == joined or json.loads(found) == json.loads(joined)


def test_stopping_does_not_wait_for_the_model(stage: Stage) -> None:
    """A request of ten minutes is cut; nothing unfinished is stored; stopping what has ended is refused (C.5)."""
    stage.put("endless-in/a", b"sleep=600\n")
    stage.call("CreateTransformJob", **stage.transform_request("endless", TransformInput=source("endless-in/")))
    stage.until(lambda: stage.data_log("endless"), bool)
    began = time.monotonic()
    stage.call("StopTransformJob", TransformJobName="endless")
    assert stage.transformed("endless")["TransformJobStatus"] == "Stopped"
    assert time.monotonic() - began < 5
    assert outputs(stage, "endless") == {}
    error = stage.refusal("StopTransformJob", TransformJobName="endless")
    assert error.message == "The request was rejected because the transform job is in status Stopped"


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"TransformInput": source("nowhere/")}, 'No S3 objects found under S3 URL "s3://bucket/nowhere/"'),
        ({"TransformInput": source("batch/", "AugmentedManifestFile")}, "S3DataType AugmentedManifestFile: batch"),
        ({"TransformInput": source("nowhere/", "ManifestFile")}, "No S3 objects found under S3 URL"),
        ({"TransformInput": {"SplitType": "RecordIO"}}, "SplitType RecordIO: this engine"),
        ({"TransformInput": {"SplitType": "line"}}, "must satisfy enum value set: [None, Line, RecordIO, TFRecord]"),
        ({"TransformInput": {"ContentType": "a\r\nb: c"}}, "visible ASCII"),
        ({"MaxPayloadInMB": 101}, "at 'maxPayloadInMB' failed to satisfy constraint: Member must have value less than"),
        ({"MaxPayloadInMB": 60, "MaxConcurrentTransforms": 2}, "exceeds 100 MB"),
        ({"ModelClientConfig": {"InvocationsMaxRetries": 4}}, "less than or equal to 3"),
        ({"ModelClientConfig": {"InvocationsTimeoutInSeconds": 0}}, "greater than or equal to 1"),
        ({"TransformResources": {"InstanceCount": 0}}, "greater than or equal to 1"),
        ({"TransformResources": {"InstanceCount": 21}}, "at most 20 servers"),
        ({"ModelName": "no-such"}, 'Could not find model "arn:aws:sagemaker:us-east-1:000000000000:model/no-such".'),
        ({"TransformOutput": {"S3OutputPath": "file:///tmp"}}, "not an S3 URI"),
        ({"DataProcessing": {"InputFilter": "$['a_b']"}}, 'Unexpected "_" in JsonPath'),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused(stage: Stage, members: Any, text: str) -> None:
    """In AWS's words where they are known, and no job is recorded (0.3, C.1, F.3 32)."""
    stage.put("batch/a", b"x\n")
    error = stage.refusal("CreateTransformJob", **stage.transform_request("never", **members))
    assert error.code == "ValidationException"
    assert text in error.message
    unknown = stage.refusal("DescribeTransformJob", TransformJobName="never")
    assert unknown.message == "Could not find requested job with name: never"
    assert stage.refusal("StopTransformJob", TransformJobName="never").message.startswith(
        "Could not find job to update with name"
    )


def test_names_are_unique_for_ever(stage: Stage) -> None:
    """A transform job cannot be deleted, so its name stays taken (0.2)."""
    run(stage, "unique", {"a": b"x\n"})
    assert stage.refusal("CreateTransformJob", **stage.transform_request("unique")).code == "ResourceInUse"


def test_a_manifest_names_the_inputs(stage: Stage) -> None:
    """Each output lies at its input's suffix; a missing object fails alone, a bad manifest the job (C.1, C.4)."""
    for key in ("a", "deep/b", "unnamed"):
        stage.put(f"listed/{key}", key.encode() + b"\n")
    stage.put("some.manifest", b'[{"prefix": "s3://bucket/listed/"}, "deep/b", "gone", "a"]')
    job = stage.transform("manifest", TransformInput=source("some.manifest", "ManifestFile"))
    assert job["FailureReason"] == CLIENT_ERROR
    assert outputs(stage, "manifest") == {"a.out": b"A\n", "deep/b.out": b"DEEP/B\n"}
    stage.put("bad.manifest", b'{"prefix": "s3://bucket/listed/"}')
    job = stage.transform("bad-manifest", TransformInput=source("bad.manifest", "ManifestFile"))
    assert job["FailureReason"].startswith("ClientError: s3://bucket/bad.manifest is not a manifest")


def test_an_object_that_vanishes_fails_alone(make_stage: MakeStage) -> None:
    """Deleted between the listing and its turn: the others are processed."""
    stage = make_stage()
    stage.model("model")
    for key, seconds in ("a", 0), ("b", 3), ("c", 0):
        stage.put(f"vanishing/{key}", b"sleep=%d\n" % seconds)
    stage.call("CreateTransformJob", **stage.transform_request("vanish", TransformInput=source("vanishing/")))
    stage.until(lambda: stage.data_log("vanish"), bool)
    stage.engine.site.store.delete("s3://bucket/vanishing/c")
    job = stage.transformed("vanish")
    assert set(outputs(stage, "vanish")) == {"a.out", "b.out"}
    assert job["FailureReason"] == CLIENT_ERROR
