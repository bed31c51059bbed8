"""Inputs and places that are not as they should be."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backends.engine import Engine
from tests.engine.conftest import Stage, channel, settings_for
from tests.requirements import require

OpenStage = Callable[[], Stage]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("data", [b"no archive", b"\x1f\x8b\x08\x00broken", b""])
def test_an_unreadable_model_fails_with_a_reason(open_stage: OpenStage, data: bytes) -> None:
    """Endpoint and transform alike; the endpoint can be deleted."""
    stage = open_stage()
    stage.model("model")
    stage.put("models/model.tar.gz", data)
    stage.put("batch/a", b"x\n")
    job = stage.transform("job")
    assert job["TransformJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: ")
    stage.model("unreadable")
    stage.put("models/unreadable.tar.gz", data)
    stage.call(
        "CreateEndpointConfig",
        EndpointConfigName="unreadable",
        ProductionVariants=[
            {"VariantName": "A", "ModelName": "unreadable", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
        ],
    )
    stage.call("CreateEndpoint", EndpointName="unreadable", EndpointConfigName="unreadable")
    assert stage.settled("unreadable")["EndpointStatus"] == "Failed"
    stage.delete_endpoint("unreadable")


@pytest.mark.parametrize("keys", [["a", "a/b"], ["../../escape"], ["nul\0"]])
def test_keys_that_cannot_be_files_fail_the_job(open_stage: OpenStage, home: Path, keys: list[str]) -> None:
    """ClientError that names the object; nothing appears outside (S13)."""
    stage = open_stage()
    for key in keys:
        stage.put(f"odd/{key}", b"x")
    job = stage.train("odd", InputDataConfig=[channel("train", "s3://bucket/odd/")])
    assert job["FailureReason"].startswith("ClientError: s3://bucket/odd/")
    assert not list(home.rglob("escape"))


def test_secrets_are_masked(open_stage: OpenStage) -> None:
    """In the reason and in the log that is shown (S9)."""
    stage = open_stage()
    secret = "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG"
    job = stage.train("leaky", HyperParameters={"mode": "fail", "failure": f"cannot use {secret}", "say": secret})
    assert job["FailureReason"] == "AlgorithmError: cannot use AWS_SECRET_ACCESS_KEY=****, exit code: 1"
    assert "AWS_SECRET_ACCESS_KEY=****" in list(stage.engine.read_log("training job", "leaky", follow=False))


def test_a_regex_that_never_ends_does_not_hold_the_job(open_stage: OpenStage) -> None:
    """It completes, and its log says what was given up (S22)."""
    stage = open_stage()
    job = stage.train(
        "regex",
        algorithm={
            "MetricDefinitions": [{"Name": "evil", "Regex": "(a+)+b=(.*)"}, {"Name": "loss", "Regex": "loss=(.*);"}]
        },
        HyperParameters={"say": "a" * 60},
    )
    assert [entry["MetricName"] for entry in job["FinalMetricDataList"]] == ["loss"]
    assert "'evil' was given up" in "".join(stage.engine.read_log("training job", "regex", follow=False))


def test_files_that_cannot_be_written_fail_the_job(home: Path, open_stage: OpenStage) -> None:
    """A limit on file size stands for a full disk: the job fails with the system's words, the state stays whole."""
    stage = open_stage()
    stage.put("big/data", bytes(4_000_000))
    request = stage.training_request("no-space", InputDataConfig=[channel("train", "s3://bucket/big/")])
    code = (
        "import json, sys; from pathlib import Path; from backends.engine import Engine\n"
        "from tests.engine.conftest import settings_for\n"
        "engine = Engine(settings_for(Path(sys.argv[1])))\n"
        "engine.call('CreateTrainingJob', json.loads(sys.argv[2])); engine.close()"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    subprocess.run([sys.executable, "-c", code, str(home), json.dumps(request)], check=True, cwd=ROOT, preexec_fn=limit)
    job = stage.trained("no-space")
    assert "File too large" in job["FailureReason"]
    assert stage.train("space-again")["TrainingJobStatus"] == "Completed"


def test_a_full_disk_fails_the_job(tmp_path: Path) -> None:
    """On a small file system of its own, where the machine lets us make one."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(small)], check=False, capture_output=True
    )
    require("mount", lambda: mounted.returncode == 0, "mounting is not allowed here")
    try:
        stage = Stage(Engine(settings_for(small / "home")), small / "home")
        job = stage.train("large", HyperParameters={"mode": "write", "bytes": "50000000"})
        assert job["TrainingJobStatus"] == "Failed"
        assert "exit code: 1 (the disk is full: make room for " in job["FailureReason"]
        assert "No space left" in "".join(stage.engine.read_log("training job", "large", follow=False))
        stage.put("big/data", bytes(7_000_000))
        job = stage.train("not-twice", InputDataConfig=[channel("train", "s3://bucket/big/")])
        assert job["FailureReason"].startswith(f"InternalServerError: the disk is full: make room for {stage.home}")
        stage.engine.site.store.delete("s3://bucket/big/data")
        assert stage.train("small")["TrainingJobStatus"] == "Completed"
        stage.until(stage.engine.is_idle, bool)
        stage.engine.close()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
