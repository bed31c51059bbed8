"""What goes wrong on the docker runner: each ends in a status whose reason says what to do, and leaves nothing."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from backends.sagemaker.readings import ServiceError
from tests.archives import archive, unarchived
from tests.docker_engine import BASE, left_over, probe_image
from tests.docker_machine import Machine, machine
from tests.engine.conftest import ROLE, Stage, variant
from tests.requirements import require

ROOT = Path(__file__).parents[2]
SOCKET = Path("/var/run/docker.sock")
OpenStage = Callable[..., Stage]


@pytest.fixture
def make(make_stage: OpenStage) -> OpenStage:
    """Opens an engine on the docker runner, whose image is the probe."""
    image = probe_image()
    return lambda **limits: make_stage(**{"image": image, "runner": "docker"} | limits)


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Another machine's engine, which sees none of the files that tests make."""
    with machine(hidden=tmp_path_factory.getbasetemp()) as running:
        yield running


@pytest.fixture
def far_stage(far: Machine, monkeypatch: pytest.MonkeyPatch, make_stage: OpenStage) -> Stage:
    """An engine that runs everything there."""
    monkeypatch.setenv("DOCKER_HOST", far.url)
    return make_stage(image="small:1", runner="docker")


def log_of(stage: Stage, kind: str, name: str) -> str:
    """What the programs of one job or endpoint have printed so far."""
    return "\n".join(stage.engine.read_log(kind, name, follow=False))


def start_hanging(stage: Stage, name: str) -> None:
    """Start a training job that runs until it is told to end; it then saves a model and exits with 0."""
    stage.call("CreateTrainingJob", **stage.training_request(name, HyperParameters={"mode": "hang"}))
    stage.until(lambda: log_of(stage, "training job", name), lambda log: "hanging" in log)


def check_nothing_left(stage: Stage, *names: str) -> None:
    """Every supervisor has gone in good order, with its scratch files and all that the Docker engine had of it."""
    stage.until(lambda: list((stage.home / "supervisors").iterdir()), lambda seats: seats == [])
    assert [left for name in names for left in left_over(name)] == []
    assert [path for path in stage.home.glob("*/*@*/*") if path.is_dir()] == []


# The image


@pytest.fixture
def foreign_image() -> Iterator[str]:
    """An image for other processors, whose programs are files that no machine here executes."""
    probe_image()
    client = docker.from_env()
    ours = client.info()["Architecture"]
    theirs, machine_number = ("amd64", 62) if ours == "aarch64" else ("arm64", 183)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack("<HHIQQQIHHHHHH", 2, machine_number, 1, *[0] * 10)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tape:
        for program in ("train", "serve"):
            member = tarfile.TarInfo(f"bin/{program}")
            member.mode, member.size = 0o755, len(header)
            tape.addfile(member, io.BytesIO(header))
    name = f"greenroom-{theirs}:{os.urandom(4).hex()}"
    command = ["docker", "import", "--platform", f"linux/{theirs}", "-", name]
    subprocess.run(command, input=packed.getvalue(), stdout=subprocess.DEVNULL, check=True)
    yield name
    client.images.remove(name)
    client.close()


def test_an_image_for_other_processors_is_said(make: OpenStage, foreign_image: str) -> None:
    """By job and endpoint, with how to build one for these."""
    stage = make(image=foreign_image)
    job = stage.train("foreign-job")
    stage.create_endpoint("foreign")
    endpoint = stage.settled("foreign")
    assert (job["TrainingJobStatus"], endpoint["EndpointStatus"]) == ("Failed", "Failed")
    for reason in (job["FailureReason"], endpoint["FailureReason"]):
        assert "the Docker engine's machine is" in reason
        assert "build it with --platform linux/" in reason
        assert "exec format error" in reason
    check_nothing_left(stage, "foreign", "foreign-job")


# The program


def test_pings_that_never_succeed_fail_the_endpoint(make: OpenStage) -> None:
    """After the limit, with what was seen and what the container printed; nobody has to delete it first."""
    stage = make(startup_timeout_seconds=1.5)
    stage.create_endpoint("unwell", ping=503)
    endpoint = stage.settled("unwell")
    assert endpoint["EndpointStatus"] == "Failed"
    assert "did not pass the ping health check" in endpoint["FailureReason"]
    assert "within 1.5 s (last: status 503)" in endpoint["FailureReason"]
    assert '"GET /ping HTTP/1.1" 503' in endpoint["FailureReason"]
    check_nothing_left(stage, "unwell")


def test_a_container_that_dies_in_a_request(make: OpenStage) -> None:
    """The caller gets ModelError, the endpoint stays InService and answers again; a transform says how it ended."""
    stage = make()
    stage.deploy("mortal")
    error = stage.refusal("InvokeEndpoint", EndpointName="mortal", Body=b"die")
    assert (error.code, error.members["OriginalStatusCode"]) == ("ModelError", 0)
    assert stage.call("DescribeEndpoint", EndpointName="mortal")["EndpointStatus"] == "InService"
    stage.until(lambda: answers(stage, "mortal"), bool)
    stage.model("model")
    stage.put("batch/a", b"x\ndie\n")
    job = stage.transform("fatal", BatchStrategy="SingleRecord")
    assert job["TransformJobStatus"] == "Failed"
    assert "its program ended with exit code 9" in job["FailureReason"]
    assert "Unable to get response from algorithm" in log_of(stage, "transform job", "fatal")
    assert stage.keys("fatal/") == []
    stage.delete_endpoint("mortal")
    check_nothing_left(stage, "mortal", "fatal")


def answers(stage: Stage, name: str) -> bool:
    """False while the container is being restarted."""
    try:
        return bool(stage.engine.call("InvokeEndpoint", {"EndpointName": name, "Body": b"x"})["Body"] == b"X")
    except ServiceError as error:
        if error.code != "ModelError":
            raise
        return False


def test_ctrl_c_stops_the_job(tmp_path: Path) -> None:
    """In the middle of training: the program may save, the job is Stopped, and nothing of it is left."""
    reviews = {f"aclImdb/{half}/{label}/1_9.txt": b"fine" for half in ("train", "test") for label in ("pos", "neg")}
    (tmp_path / "reviews.tar.gz").write_bytes(archive(reviews))
    program = Path(sys.executable).with_name("sentiment")
    image = ["--runner", "docker", "--image", probe_image()]
    train = ["train", "--source", "reviews.tar.gz", "--parameter", "mode=hang"]
    with subprocess.Popen(
        [program, *image, *train], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as shell:
        assert shell.stderr is not None
        said = ""
        while "hanging" not in said:
            said = shell.stderr.readline()
            assert said
        os.killpg(shell.pid, signal.SIGINT)
        rest = shell.stderr.read()
    assert shell.returncode == 130
    assert "Traceback" not in rest
    status = subprocess.run([program, "status", "--json"], cwd=tmp_path, capture_output=True, text=True, check=True)
    (job,) = json.loads(status.stdout)["resources"]
    assert (job["kind"], job["state"].lower()) == ("training job", "stopped")
    assert left_over(job["name"]) == []
    subprocess.run([program, "destroy", "--yes"], cwd=tmp_path, capture_output=True, check=True)


# Several hosts

CLUSTER = """
import json, os, signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
resources = json.load(open("/opt/ml/input/config/resourceconfig.json"))
me, (first, second) = resources["current_host"], resources["hosts"]
gateway = os.environ["OUTSIDE"]
with socket.create_server(("", 5000)) as here:
    there = second if me == first else first
    while True:
        try:
            socket.create_connection((there, 5000), 5).close()
            break
        except OSError:
            time.sleep(0.05)
    here.accept()
    outside = socket.socket().connect_ex((gateway, 9))
print(f"{me} reached {there}; outside says {os.strerror(outside)}", flush=True)
if me == second and "FAILS" in os.environ:
    sys.exit(3)
while "FAILS" in os.environ:
    time.sleep(0.05)
"""


def cluster(stage: Stage, name: str, environment: dict[str, str], **members: Any) -> dict[str, Any]:
    """A job of two hosts that meet, then try to reach the machine; its description."""
    client = docker.from_env()
    gateway = client.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]
    client.close()
    stage.put("in/program.py", CLUSTER.encode())
    return stage.train(
        name,
        algorithm={"ContainerEntrypoint": ["python3", "/opt/ml/input/data/train/program.py"]},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
        Environment={"OUTSIDE": gateway, **environment},
        **members,
    )


def test_a_host_that_fails_ends_the_others(make: OpenStage) -> None:
    """At once, not after their grace or the job's limit; the reason is its, the logs are all hosts'."""
    stage = make(training_grace_seconds=20.0)
    job = cluster(stage, "pair", {"FAILS": "1"})
    assert (job["TrainingJobStatus"], job["FailureReason"]) == ("Failed", "AlgorithmError: , exit code: 3")
    log = log_of(stage, "training job", "pair")
    assert "algo-1 reached algo-2; outside says Connection refused" in log
    assert "algo-2 reached algo-1; outside says Connection refused" in log
    check_nothing_left(stage, "pair")


def test_isolated_hosts_reach_one_another_only(make: OpenStage) -> None:
    """EnableNetworkIsolation: algo-1 and algo-2 talk, the world is out of reach."""
    stage = make()
    job = cluster(stage, "cell-pair", {}, EnableNetworkIsolation=True)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    log = log_of(stage, "training job", "cell-pair")
    assert "algo-1 reached algo-2; outside says Network is unreachable" in log
    assert "algo-2 reached algo-1; outside says Network is unreachable" in log
    check_nothing_left(stage, "cell-pair")


# The engine


def test_an_engine_elsewhere(far_stage: Stage) -> None:
    """DOCKER_HOST on a machine that sees no file of ours: data goes in, artifacts come out, its ports are reached."""
    job = far_stage.train("far-job")
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    files = unarchived(far_stage.get(job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://bucket/")))
    assert files["model.txt"] == b"data\n"
    far_stage.deploy("far")
    assert far_stage.invoke("far", b"model")["Body"] == b"m"
    far_stage.put("batch/a", b"x\ny\n")
    far_stage.model("model")
    assert far_stage.transform("far-batch")["TransformJobStatus"] == "Completed"
    assert far_stage.get("far-batch/a.out") == b"X\nY\n"
    model = {"ModelName": "cell", "PrimaryContainer": {"Image": far_stage.image}, "EnableNetworkIsolation": True}
    far_stage.call("CreateModel", **model, ExecutionRoleArn=ROLE)
    far_stage.call("CreateEndpointConfig", EndpointConfigName="cell", ProductionVariants=[variant("cell")])
    far_stage.call("CreateEndpoint", EndpointName="cell", EndpointConfigName="cell")
    assert "only be reached on the Docker engine's own machine" in far_stage.settled("cell")["FailureReason"]
    far_stage.delete_endpoint("far")
    check_nothing_left(far_stage, "far-job", "far", "far-batch")


def test_an_engine_stopped_under_what_it_runs(far: Machine, far_stage: Stage) -> None:
    """Jobs fail, whatever their programs' exit codes were; the endpoint answers again once the engine is back."""
    far_stage.deploy("lasting")
    start_hanging(far_stage, "struck")
    far_stage.model("model")
    far_stage.put("batch/a", b"sleep=60\n")
    far_stage.call("CreateTransformJob", **far_stage.transform_request("struck-batch"))
    far_stage.until(lambda: far_stage.data_log("struck-batch"), bool)
    far.stop()
    assert far_stage.refusal("InvokeEndpoint", EndpointName="lasting", Body=b"x").code == "ModelError"
    far.start()
    check_lost(far_stage.trained("struck"))
    check_lost(far_stage.transformed("struck-batch"))
    assert far_stage.keys("out/struck/") == []
    assert "hanging" in log_of(far_stage, "training job", "struck")
    far_stage.until(lambda: answers(far_stage, "lasting"), bool)
    assert far_stage.call("DescribeEndpoint", EndpointName="lasting")["EndpointStatus"] == "InService"
    assert len(left_over("lasting")) == len(["the container", "its model's volume"])
    far_stage.delete_endpoint("lasting")
    check_nothing_left(far_stage, "struck", "struck-batch", "lasting")


def test_a_machine_that_loses_its_power(far: Machine, far_stage: Stage) -> None:
    """Though it told nobody, its job fails and its endpoint comes back."""
    far_stage.deploy("powered")
    start_hanging(far_stage, "dark")
    far.cut()
    far.start()
    check_lost(far_stage.trained("dark"))
    far_stage.until(lambda: answers(far_stage, "powered"), bool)
    far_stage.delete_endpoint("powered")
    check_nothing_left(far_stage, "dark", "powered")


def check_lost(job: dict[str, Any]) -> None:
    """The engine is blamed, and what to do is said."""
    reason = job["FailureReason"]
    assert reason.startswith("InternalServerError: the Docker engine was stopped or lost the container")
    assert "See that 'docker info' answers, then run it again" in reason


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_stage: OpenStage) -> None:
    """The engine's: whether the program fills it or what it is given, the reason says so, and where to make room."""
    with machine(hidden=tmp_path, disk_mib=80) as small:
        monkeypatch.setenv("DOCKER_HOST", small.url)
        stage = make_stage(image="small:1", runner="docker")
        filled = stage.train("filled", HyperParameters={"mode": "write", "bytes": "200000000"})
        stage.put("large/data", bytes(60_000_000))
        request = stage.training_request("stuffed")
        request["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] = "s3://bucket/large/"
        stage.call("CreateTrainingJob", **request)
        for job in (filled, stage.trained("stuffed")):
            assert job["TrainingJobStatus"] == "Failed"
            assert "the Docker engine's disk is full" in job["FailureReason"]
            assert "docker system df" in job["FailureReason"]
        assert "No space left on device" in log_of(stage, "training job", "filled")
        assert stage.train("fits")["TrainingJobStatus"] == "Completed"
        check_nothing_left(stage, "filled", "stuffed", "fits")


@pytest.mark.parametrize("network", ["bridge", "host"])
def test_an_engine_within_a_container(network: str) -> None:
    """With the socket mounted, as a user who is not root and can delete the whole home afterwards."""
    image = probe_image()
    require("docker", SOCKET.is_socket, f"the Docker engine's socket is not at {SOCKET}")
    name = f"greenroom-inside-{os.urandom(4).hex()}"
    packages = Path(docker.__file__).parents[1]
    mounts = {SOCKET: SOCKET, ROOT: "/greenroom:ro", packages: "/packages:ro"}
    command = ["docker", "run", "--rm", "--name", name, "--network", network]
    command += ["--user", f"65534:{SOCKET.stat().st_gid}"]
    command += [word for here, there in mounts.items() for word in ("--volume", f"{here}:{there}")]
    command += ["--env", "PYTHONPATH=/packages:/greenroom"]
    command += [BASE, "python3", "-m", "tests.engine.in_container", image]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"job": "Completed", "reason": "", "inner-open": "X", "inner-shut": "X"}
    assert [left for thing in ("inner", "inner-open", "inner-shut") for left in left_over(thing)] == []
