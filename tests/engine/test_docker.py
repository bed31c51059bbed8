"""The docker runner on a real engine: what a program sees of its container, and what goes wrong there."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest

from backends.config import BackendConfig
from backends.engine.runners import RunnerFailed
from backends.engine.settings import DockerSettings
from sentiment.doctor import Finding, examine
from tests.archives import unarchived
from tests.docker_engine import BASE, left_over, probe_image
from tests.engine.conftest import ROLE, Stage, channel, variant
from tests.engine.hammer import hammering
from tests.faults.conftest import is_supervisor, kill, processes_of

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
LOOK_AROUND = """
import json, os
LIMITS = [
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"],
    ["/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"],
]
PROCESSORS = ["/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"]
quota, period = " ".join(open(p).read() for p in PROCESSORS if os.path.exists(p)).split()
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
seen = {
    "capabilities": [status[name] for name in ("CapEff", "CapPrm", "CapBnd")],
    "no_new_privileges": status["NoNewPrivs"],
    "socket": os.path.exists("/var/run/docker.sock"),
    "interfaces": sorted(os.listdir("/sys/class/net")),
    "shm_mib": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize // 2**20,
    "input": sorted(os.listdir("/opt/ml/input/data/train")),
    "limits": [next((int(open(p).read()) for p in paths if os.path.exists(p)), 0) for paths in LIMITS],
    "processors": 0 if quota in ("max", "-1") else int(quota) / int(period),
    "resources": json.load(open("/opt/ml/input/config/resourceconfig.json")),
}
json.dump(seen, open("/opt/ml/model/seen.json", "w"))
"""

MEET = """
import json, socket, time
resources = json.load(open("/opt/ml/input/config/resourceconfig.json"))
me = resources["current_host"]
first, second = resources["hosts"]
if me == first:
    with socket.create_server(("", 5000)) as server:
        connection, _ = server.accept()
        connection.sendall(me.encode())
else:
    for _ in range(200):
        try:
            connection = socket.create_connection((first, 5000), 5)
            break
        except OSError:
            time.sleep(0.1)
    connection.sendall(me.encode())
open(f"/opt/ml/model/{me}", "w").write(f"met {connection.recv(100).decode()}")
"""
MULTIPLY = """
import os, sys, time
try:
    for _ in range(100):
        if os.fork() == 0:
            time.sleep(60)
except BlockingIOError as error:
    open("/opt/ml/output/failure", "w").write(str(error))
    sys.exit(1)
"""


@pytest.fixture
def make(make_stage: Callable[..., Stage]) -> Callable[..., Stage]:
    """Opens an engine on the docker runner."""
    probe_image()
    return lambda **settings: make_stage(runner="docker", docker=DockerSettings(**settings), training_grace_seconds=5.0)


def run(stage: Stage, name: str, code: str, **members: Any) -> dict[str, Any]:
    """Train with Python *code* for a program; the job's description."""
    return stage.train(name, algorithm=program(stage, code), **members)


def program(stage: Stage, code: str) -> dict[str, Any]:
    """What an AlgorithmSpecification says so that Python *code* runs; it travels in the channel."""
    stage.put("in/program.py", code.encode())
    entrypoint = ["python3", "-u", "/opt/ml/input/data/train/program.py"]
    return {"TrainingImage": probe_image(), "ContainerEntrypoint": entrypoint}


def seen_by(job: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """What the program wrote into seen.json."""
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://bucket/")
    seen: dict[str, Any] = json.loads(unarchived(stage.get(key))["seen.json"])
    return seen


def test_a_program_is_locked_in(make: Callable[..., Stage]) -> None:
    """No capability, no way to get one, no engine's socket; its input is there, and nothing is left of it."""
    stage = make(shm_mib=64)
    seen = seen_by(run(stage, "look", LOOK_AROUND), stage)
    assert set(seen["capabilities"]) == {"0" * 16}
    assert (seen["no_new_privileges"], seen["socket"], seen["shm_mib"]) == ("1", False, 64)
    assert seen["processors"] == 0
    assert seen["input"] == ["data.txt", "program.py"]
    assert "eth0" in seen["interfaces"]
    assert left_over("look") == []


def test_network_isolation_leaves_loopback(make: Callable[..., Stage]) -> None:
    """EnableNetworkIsolation: no interface but lo."""
    stage = make()
    seen = seen_by(run(stage, "alone", LOOK_AROUND, EnableNetworkIsolation=True), stage)
    assert "eth0" not in seen["interfaces"]
    assert "lo" in seen["interfaces"]


def test_capabilities_are_given_back_by_name(make: Callable[..., Stage]) -> None:
    """That one and no other: bit 19 is SYS_PTRACE."""
    stage = make(capabilities=("SYS_PTRACE",))
    seen = seen_by(run(stage, "ptrace", LOOK_AROUND), stage)
    assert int(seen["capabilities"][2], 16) == 1 << 19


def test_an_instance_type_is_emulated(make: Callable[..., Stage]) -> None:
    """An ml.m5.large has 8 GiB and the time of two processors; without emulation the machine's share counts."""
    stage = make(emulates_instances=True, pids=99)
    seen = seen_by(run(stage, "small", LOOK_AROUND), stage)
    client = docker.from_env()
    machine = client.info()
    client.close()
    memory, pids = seen["limits"]
    assert memory == min(8 * 2**30, int(machine["MemTotal"] * 0.9) // 4096 * 4096)
    assert seen["processors"] == min(2, machine["NCPU"])
    assert pids == 99


def test_a_serverless_container_has_its_memory(make: Callable[..., Stage]) -> None:
    """MemorySizeInMB, and no more (B.4)."""
    stage = make()
    stage.call("CreateModel", ModelName="sparing", PrimaryContainer={"Image": probe_image()}, ExecutionRoleArn=ROLE)
    capacity = {"MemorySizeInMB": 1024, "MaxConcurrency": 1}
    only = {"VariantName": "AllTraffic", "ModelName": "sparing", "ServerlessConfig": capacity}
    stage.call("CreateEndpointConfig", EndpointConfigName="sparing", ProductionVariants=[only])
    stage.call("CreateEndpoint", EndpointName="sparing", EndpointConfigName="sparing")
    endpoint = stage.settled("sparing")
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    assert stage.invoke("sparing", b"x")["Body"] == b"X"
    client = docker.from_env()
    (inside,) = client.containers.list(filters={"name": "greenroom-sparing"})
    host = inside.attrs["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (2**30, 2**30)
    client.close()
    stage.delete_endpoint("sparing")
    stage.until(lambda: left_over("sparing"), lambda left: left == [])


def test_an_isolated_endpoint_answers(make: Callable[..., Stage]) -> None:
    """Over a network without a way out, which goes with it."""
    stage = make()
    container = {"Image": probe_image()}
    stage.call(
        "CreateModel", ModelName="cell", PrimaryContainer=container, ExecutionRoleArn=ROLE, EnableNetworkIsolation=True
    )
    stage.call("CreateEndpointConfig", EndpointConfigName="cell", ProductionVariants=[variant("cell")])
    stage.call("CreateEndpoint", EndpointName="cell", EndpointConfigName="cell")
    endpoint = stage.settled("cell")
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    assert stage.invoke("cell", b"x")["Body"] == b"X"
    client = docker.from_env()
    (inside,) = client.containers.list(filters={"name": "greenroom-cell"})
    (network,) = inside.attrs["NetworkSettings"]["Networks"]
    assert client.networks.get(network).attrs["Internal"]
    client.close()
    stage.delete_endpoint("cell")
    stage.until(lambda: left_over("cell"), lambda left: left == [])


def test_an_update_loses_no_request(make: Callable[..., Stage]) -> None:
    """The new container comes up beside the old one, which ends when nobody can wait for its answer any more."""
    stage = make()
    for version in "12":
        container = {"Image": probe_image(), "Environment": {"VERSION": version}}
        stage.call("CreateModel", ModelName=f"v{version}", PrimaryContainer=container, ExecutionRoleArn=ROLE)
        variants = [variant(f"v{version}")]
        stage.call("CreateEndpointConfig", EndpointConfigName=f"v{version}", ProductionVariants=variants)
    stage.call("CreateEndpoint", EndpointName="moving-update", EndpointConfigName="v1")
    stage.settled("moving-update")
    with hammering(stage, "moving-update") as seen:
        stage.call("UpdateEndpoint", EndpointName="moving-update", EndpointConfigName="v2")
        assert stage.settled("moving-update")["EndpointConfigName"] == "v2"
        stage.until(lambda: set(seen.versions[-20:]), {"2"}.__eq__)
        stage.until(lambda: len(left_over("moving-update")), lambda count: count == 2)  # A container and its volume.
    assert (seen.failures, set(seen.versions)) == ([], {"1", "2"})
    stage.delete_endpoint("moving-update")
    assert left_over("moving-update") == []


def test_checkpoints_are_brought_home(make: Callable[..., Stage]) -> None:
    """And a FastFile channel is read-only, to root as well; an entrypoint replaces the image's own (A.1, A.7, A.8)."""
    stage = make()
    stage.put("kept-checkpoints/1", b"one")
    command = "mv /opt/ml/checkpoints/1 /opt/ml/checkpoints/2; cd /opt/ml/input/data; touch train/x; ! touch fast/x"
    algorithm = {"ContainerEntrypoint": ["/bin/sh", "-ec"], "ContainerArguments": [command]}
    job = stage.train(
        "checkpointed",
        algorithm={"TrainingImage": probe_image(), **algorithm},
        InputDataConfig=[
            channel("train", "s3://bucket/in/"),
            channel("fast", "s3://bucket/in/", InputMode="FastFile"),
        ],
        CheckpointConfig={"S3Uri": "s3://bucket/kept-checkpoints"},
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert stage.keys("kept-checkpoints/") == ["kept-checkpoints/2"]


def test_checkpoints_outlive_a_job_that_is_killed(make_stage: Callable[..., Stage]) -> None:
    """They are brought home while the program runs, from every host, and the next job goes on with them (A.8)."""
    probe_image()
    stage = make_stage(runner="docker", training_grace_seconds=5.0, checkpoint_pause_seconds=0.05)
    stage.put("live/old", b"old")
    command = "cd /opt/ml/checkpoints; if [ -e algo-1 ]; then exit; fi; rm old; hostname > $(hostname); sleep 60"
    entrypoint = {"ContainerEntrypoint": ["/bin/sh", "-ec"], "ContainerArguments": [command]}
    members = {
        "algorithm": {"TrainingImage": probe_image(), **entrypoint},
        "CheckpointConfig": {"S3Uri": "s3://bucket/live"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
    }
    stage.call("CreateTrainingJob", **stage.training_request("first", **members))
    stage.until(lambda: stage.keys("live/"), lambda keys: keys == ["live/algo-1", "live/algo-2"])
    kill(*(process for process in processes_of(stage.home) if is_supervisor(process, stage.home)))
    stage.engine.recover()
    assert stage.trained("first")["TrainingJobStatus"] == "Failed"
    assert stage.train("second", **members)["TrainingJobStatus"] == "Completed"
    assert stage.keys("live/") == ["live/algo-1", "live/algo-2"]


PEEK = """
import sys
from pathlib import Path
from backends.engine.runners.base import RunnerFailed
from backends.engine.runners import Program, RunnerFailed
from backends.engine.runners.docker import DockerRunner
from backends.engine.settings import DockerSettings

folder, draft = Path(sys.argv[1]), Path(sys.argv[1], "draft")
start = {"argument": "train", "entrypoint": ("sleep", "60"), "root": folder / "ml", "log_path": folder / "log"}
(folder / "ml").mkdir()
running = DockerRunner(DockerSettings()).start(Program(label="gone", name="gone", image=sys.argv[2], **start))
print(list(running.peek("checkpoints", draft).iterdir()))
running.remove()
try:
    print(running.peek("checkpoints", draft))
except RunnerFailed as gone:
    print(gone)
"""


def test_a_container_that_is_gone_has_no_empty_folders(tmp_path: Path) -> None:
    """What was stored of it must not be taken for deleted; a folder that the program has removed is."""
    peek = [sys.executable, "-c", PEEK, str(tmp_path), probe_image()]
    seen = subprocess.run(peek, check=True, capture_output=True, text=True).stdout.splitlines()
    assert seen[0] == "[]"
    assert "No such container" in seen[1]


def test_a_host_each(make: Callable[..., Stage]) -> None:
    """Every host knows itself and the others by name, and reaches them; their models are merged."""
    stage = make()
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    job = run(stage, "two", MEET, ResourceConfig=resources)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    files = unarchived(stage.get(job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://bucket/")))
    assert files == {"algo-1": b"met algo-2", "algo-2": b"met algo-1"}


def test_too_much_memory_is_said(make: Callable[..., Stage]) -> None:
    """The job fails with the reason, and what to do."""
    job = run(make(memory_mib=64), "greedy", "x = [b'x' * 2**20 for _ in range(500)]")
    assert job["TrainingJobStatus"] == "Failed"
    assert "out of memory" in job["FailureReason"]
    assert "64 MiB" in job["FailureReason"]


def test_too_many_processes_are_refused(make: Callable[..., Stage]) -> None:
    """A fork bomb meets its end at the limit."""
    job = run(make(pids=20), "bomb", MULTIPLY)
    assert job["TrainingJobStatus"] == "Failed"
    assert "Resource temporarily unavailable" in job["FailureReason"]
    assert left_over("bomb") == []


def test_the_command_is_printed(make: Callable[..., Stage]) -> None:
    """What to type for a second container like it stands at the head of the log; typed, it does the same."""
    stage = make(prints_command=True)
    algorithm = program(stage, "import signal; print('hello'); signal.sigtimedwait([], 600)")
    stage.call("CreateTrainingJob", **stage.training_request("shown", algorithm=algorithm))
    first, _ = stage.until(
        lambda: list(stage.engine.read_log("training job", "shown", follow=False)), lambda lines: lines[1:] == ["hello"]
    )
    command = first.removeprefix("[greenroom] ")
    assert command.startswith("docker create ")
    assert "--cap-drop ALL" in command
    name = command.split()[-1]
    try:
        subprocess.run(command.replace("docker start --attach", "docker start"), shell=True, check=True)  # noqa: S602
        stage.until(lambda: subprocess.check_output(["docker", "logs", name]), lambda output: output == b"hello\n")
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], check=True)


def test_the_doctor_asks_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that answers is fine; one that does not is named with where it was looked for."""
    probe_image()
    assert docker_finding().is_fine
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    finding = docker_finding()
    assert finding.is_fatal
    assert "Connection refused" in finding.found
    assert "'docker info' should answer" in finding.found


def test_an_engine_behind_ssh_is_refused(monkeypatch: pytest.MonkeyPatch, make: Callable[..., Stage]) -> None:
    """By the doctor, and before a job is made: its servers' ports could not be reached."""
    monkeypatch.setenv("DOCKER_HOST", "ssh://somebody@example.com")
    assert "DOCKER_HOST=tcp://" in docker_finding().found
    with pytest.raises(RunnerFailed, match="SSH leads to the engine, but not to the ports"):
        make().train("behind")


def test_the_doctor_names_the_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Docker's client is not installed nothing is asked; only who wants containers needs it."""
    monkeypatch.setitem(sys.modules, "docker", None)
    for config in (BackendConfig(runner="docker"), BackendConfig(runner="process")):
        found = {finding.what: finding for finding in examine(config)}
        assert "Docker" not in found
        extra = found["libraries for docker"]
        assert (extra.is_fine, extra.is_fatal) == (False, config.runner == "docker")
        assert "greenroom[docker]" in extra.remedy


def docker_finding() -> Finding:
    """What the doctor says of Docker."""
    return next(finding for finding in examine(BackendConfig(runner="docker")) if finding.what == "Docker")


def test_a_missing_image_is_refused(make: Callable[..., Stage]) -> None:
    """Before anything is started, under every name that was looked for; nothing is pulled."""
    stage = make()
    request = stage.training_request("absent", algorithm={"TrainingImage": f"{ECR}/no-such-image:1"})
    message = stage.refusal("CreateTrainingJob", **request).message
    assert f"no image '{ECR}/no-such-image:1' or 'no-such-image:1'" in message


def test_an_image_in_ecr_may_be_here(make: Callable[..., Stage]) -> None:
    """Its URI falls back to the local image of that name and tag, in jobs and endpoints; it is described as asked."""
    stage = make()
    uri = f"{ECR}/{probe_image()}"
    job = stage.train("from-ecr", algorithm={"TrainingImage": uri})
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert job["AlgorithmSpecification"]["TrainingImage"] == uri
    stage.call("CreateModel", ModelName="ecr", PrimaryContainer={"Image": uri}, ExecutionRoleArn=ROLE)
    stage.call("CreateEndpointConfig", EndpointConfigName="ecr", ProductionVariants=[variant("ecr")])
    stage.call("CreateEndpoint", EndpointName="ecr", EndpointConfigName="ecr")
    endpoint = stage.settled("ecr")
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")


def test_an_image_without_serve_fails_the_endpoint(make: Callable[..., Stage]) -> None:
    """With what is missing and how to add it."""
    stage = make()
    stage.call("CreateModel", ModelName="bare", PrimaryContainer={"Image": BASE}, ExecutionRoleArn=ROLE)
    stage.call("CreateEndpointConfig", EndpointConfigName="bare", ProductionVariants=[variant("bare")])
    stage.call("CreateEndpoint", EndpointName="bare", EndpointConfigName="bare")
    endpoint = stage.settled("bare")
    assert endpoint["EndpointStatus"] == "Failed"
    assert "no executable 'serve'" in endpoint["FailureReason"]


def test_a_killed_supervisor_leaves_no_container(make: Callable[..., Stage]) -> None:
    """The next engine sweeps by label, and the job has failed."""
    stage = make()
    algorithm = program(stage, "import time; print('running'); time.sleep(600)")
    stage.call("CreateTrainingJob", **stage.training_request("orphan", algorithm=algorithm))
    stage.until(lambda: "running" in list(stage.engine.read_log("training job", "orphan", follow=False)), bool)
    kill(*processes_of(stage.home))
    stage = make()
    assert stage.trained("orphan")["TrainingJobStatus"] == "Failed"
    stage.until(lambda: left_over("orphan"), lambda left: left == [])
