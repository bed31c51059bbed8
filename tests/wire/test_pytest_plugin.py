"""Users' own tests with the plugin, run by a pytest of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.rigs import PROBE
from tests.faults.conftest import processes_of

TESTS = """
import os
import boto3

def train(name):
    boto3.client("sagemaker").create_training_job(
        TrainingJobName=name,
        RoleArn="arn:aws:iam::000000000000:role/anybody",
        AlgorithmSpecification={"TrainingImage": "probe", "TrainingInputMode": "File"},
        HyperParameters={"mode": "hang"},
        OutputDataConfig={"S3OutputPath": "s3://mine/out"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )
    return [job["TrainingJobName"] for job in boto3.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]]

def test_one(FIXTURE):
    boto3.client("s3").create_bucket(Bucket="mine")
    assert train("one") == ["one"]
    assert os.environ["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
    assert "AWS_PROFILE" not in os.environ

def test_two(FIXTURE):
    boto3.client("s3").create_bucket(Bucket="mine")
    assert train("two") == EXPECTED

def test_nothing(): ...
"""


def run(folder: Path, *options: str, fixture: str, expected: str) -> subprocess.CompletedProcess[str]:
    """A user's project in *folder*, and its pytest."""
    (folder / "greenroom.toml").write_text(f'[images]\nprobe = "{PROBE}"\n')
    (folder / "test_mine.py").write_text(TESTS.replace("FIXTURE", fixture).replace("EXPECTED", expected))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTEST_"))}
    environment |= {"AWS_PROFILE": "production"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        str(folder / "tmp"),
        *options,
    ]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize(
    ("options", "fixture", "expected"),
    [((), "greenroom", '["two"]'), (("--greenroom",), "", '["two", "one"]')],
    ids=["a fresh one for each test", "one for all"],
)
def test_users_tests_find_an_emulator(tmp_path: Path, options: tuple[str, ...], fixture: str, expected: str) -> None:
    """boto3 without a word of configuration; what hangs is ended after the test, and nothing outlives pytest."""
    done = run(tmp_path, *options, fixture=fixture, expected=expected)
    assert "3 passed" in done.stdout, done.stdout + done.stderr
    homes = [database.parent for database in (tmp_path / "tmp").rglob("state.db")]
    assert homes
    assert [process for home in homes for process in processes_of(home)] == []
