"""kill -9 at any point: nothing stays InProgress for ever, nothing is orphaned, the state opens (S25, S26)."""

import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backends.engine import Engine
from backends.sagemaker.readings import ServiceError
from tests.engine.conftest import Stage, settings_for, variant
from tests.faults.conftest import is_supervisor, kill, nurseries_of, processes_of, programs_root

OpenStage = Callable[[], Stage]
ROOT = Path(__file__).parents[2]
KILLED = "its program ended with exit code 137"
ENDED = {"Completed", "Failed", "Stopped"}


def check_after_a_crash(stage: Stage) -> None:
    """What must hold once an engine is open again."""
    for job in stage.engine.site.state.every("training job"):
        if "hang" in str(job.request.get("HyperParameters")) and job.facts["status"] == "InProgress":
            try:
                stage.call("StopTrainingJob", TrainingJobName=job.name)
            except ServiceError as refused:  # its supervisor has just found out that its program was killed
                assert "is in status Failed" in refused.message  # noqa: PT017
        assert stage.trained(job.name)["TrainingJobStatus"] in ENDED
        assert stage.refusal("CreateTrainingJob", **job.request).code == "ResourceInUse"
    for job in stage.engine.site.state.every("transform job"):
        assert stage.transformed(job.name)["TransformJobStatus"] in ENDED
    for endpoint in stage.engine.site.state.every("endpoint"):
        if endpoint.facts["status"] == "Deleting":
            stage.until(lambda name=endpoint.name: stage.exists(name), lambda exists: not exists)  # type: ignore[misc]
        else:
            settled = stage.settled(endpoint.name)
            if settled["EndpointStatus"] == "Failed":  # See test_a_server_killed_before_it_was_healthy….
                assert KILLED in settled["FailureReason"]
                continue
            assert settled["EndpointStatus"] == "InService"
            stage.until(lambda name=endpoint.name: answers(stage, name), bool)  # type: ignore[misc]


def answers(stage: Stage, name: str) -> bool:
    """False while the container, which was killed as well, is being restarted."""
    try:
        return bool(stage.invoke(name, b"x")["Body"] == b"X")
    except ServiceError as error:
        if error.code != "ModelError":
            raise
        return False


def prepare(home: Path) -> None:
    stage = Stage(Engine(settings_for(home)), home)
    stage.model("model")
    stage.put("batch/a", b"x\n" * 50)
    stage.engine.close()


@pytest.mark.parametrize("seed", range(3))
def test_everything_killed_at_random_points(home: Path, open_stage: OpenStage, seed: int) -> None:
    """The caller, supervisors and programs die in the middle of whatever they do; then an engine is opened."""
    chance = random.Random(seed)  # noqa: S311  repeatable, not secret
    prepare(home)
    acknowledged: set[tuple[str, str]] = set()
    for round_number in range(4):
        command = [sys.executable, "-m", "tests.faults.driver", str(home), str(100 * seed + round_number)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout is not None
            lines = [driver.stdout.readline()]
            time.sleep(chance.uniform(0, 0.3))
            driver.kill()
            lines += driver.stdout.readlines()
        acknowledged |= {tuple(json.loads(line)) for line in lines if line.endswith("\n")}
        victims = processes_of(home) + nurseries_of(home)
        kill(*chance.sample(victims, chance.randint(0, len(victims))))
    stage = open_stage()
    check_after_a_crash(stage)
    known = {
        resource.name for kind in ("training job", "transform job") for resource in stage.engine.site.state.every(kind)
    }
    assert {name for kind, name in acknowledged if kind != "endpoint"} <= known
    stage.strike()
    stage.until(lambda: processes_of(home), lambda left: left == [])


@pytest.mark.parametrize("kind", ["training job", "transform job"])
def test_a_killed_supervisor_fails_its_job(open_stage: OpenStage, home: Path, kind: str) -> None:
    """With a reason, when an engine is opened; its program is ended, its scratch files are gone."""
    stage = open_stage()
    if kind == "training job":
        stage.call("CreateTrainingJob", **stage.training_request("job", HyperParameters={"mode": "hang"}))
        stage.until(lambda: list(stage.engine.read_log(kind, "job", follow=False)), lambda log: "hanging" in log)
    else:
        stage.model("model")
        stage.put("batch/a", b"sleep=60\n")
        stage.call("CreateTransformJob", **stage.transform_request("job"))
        stage.until(lambda: stage.data_log("job"), bool)
    (supervisor,) = [process for process in processes_of(home) if is_supervisor(process, home)]
    kill(supervisor)
    assert len(processes_of(home)) == 1
    again = open_stage()
    job = again.trained("job") if kind == "training job" else again.transformed("job")
    assert job["FailureReason"].startswith("InternalServerError: the process that carried this job was killed")
    assert processes_of(home) == []
    assert [path for path in home.glob("*/job@*/*") if path.is_dir()] == []


def test_a_server_killed_before_it_was_healthy_fails_its_endpoint(open_stage: OpenStage, home: Path) -> None:
    """As any server does that ends while its endpoint is being created; it is not started again."""
    stage = open_stage()
    stage.create_endpoint("early", ping_delay=0.4)
    programs = stage.until(lambda: [process for process in processes_of(home) if programs_root(process)], bool)
    kill(*programs)
    endpoint = stage.settled("early")
    assert (endpoint["EndpointStatus"], KILLED in endpoint["FailureReason"]) == ("Failed", True)


def test_a_killed_supervisor_gets_a_successor(open_stage: OpenStage, home: Path) -> None:
    """The endpoint answers again once an engine is opened, also where its files were left read-only."""
    open_stage().deploy("lasting")
    kill(*processes_of(home))
    stage = open_stage()
    assert stage.settled("lasting")["EndpointStatus"] == "InService"
    assert stage.invoke("lasting", b"x")["Body"] == b"X"


def prepare_update(stage: Stage) -> None:
    """An endpoint "updated" in service, and the configuration "second" of a model that takes its time to start."""
    stage.deploy("updated")
    stage.model("second", {"VERSION": "2"}, ping_delay=0.4)
    stage.call("CreateEndpointConfig", EndpointConfigName="second", ProductionVariants=[variant("second")])


def check_update(stage: Stage, home: Path) -> None:
    """What must hold at last: the second model serves, alone."""
    settled = stage.settled("updated")
    assert (settled["EndpointStatus"], settled["EndpointConfigName"]) == ("InService", "second")
    assert json.loads(stage.invoke("updated", b"environment")["Body"])["VERSION"] == "2"
    stage.until(lambda: len(processes_of(home)), lambda count: count == 2)


def test_an_update_outlives_its_supervisor(open_stage: OpenStage, home: Path) -> None:
    """Killed in the middle of it: the next engine brings the endpoint back and the update to its end; later as well."""
    stage = open_stage()
    prepare_update(stage)
    stage.call("UpdateEndpoint", EndpointName="updated", EndpointConfigName="second")
    kill(*processes_of(home))
    assert stage.call("DescribeEndpoint", EndpointName="updated")["EndpointStatus"] == "Updating"
    check_update(open_stage(), home)
    kill(*processes_of(home))
    check_update(open_stage(), home)


def test_a_canary_outlives_its_supervisor(open_stage: OpenStage, home: Path) -> None:
    """Killed while it bakes: nobody is sent to a container that is gone, and the update begins anew."""
    stage = open_stage()
    prepare_update(stage)
    size = {"Type": "CAPACITY_PERCENT", "Value": 50}
    routing = {"Type": "CANARY", "WaitIntervalInSeconds": 2, "CanarySize": size}
    deployment = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}
    stage.call("UpdateEndpoint", EndpointName="updated", EndpointConfigName="second", DeploymentConfig=deployment)
    stage.until(lambda: pending_status(stage), "Baking".__eq__)
    kill(*processes_of(home))
    successor = open_stage()
    assert pending_status(successor) == "Creating"
    stage.until(lambda: "shift" in next(stage.engine.site.state.every("endpoint")).facts, bool)
    check_update(successor, home)


def pending_status(stage: Stage) -> str:
    described = stage.call("DescribeEndpoint", EndpointName="updated")
    if "PendingDeploymentSummary" not in described:
        return ""
    return str(described["PendingDeploymentSummary"]["ProductionVariants"][0]["VariantStatus"][0]["Status"])


def test_an_endpoint_whose_supervisor_is_dead_can_be_updated(open_stage: OpenStage, home: Path) -> None:
    """A successor is found at once, without another engine."""
    stage = open_stage()
    prepare_update(stage)
    kill(*[process for process in processes_of(home) if "supervisor" in " ".join(process.cmdline())])
    stage.call("UpdateEndpoint", EndpointName="updated", EndpointConfigName="second")
    check_update(stage, home)


def test_an_endpoint_whose_supervisor_is_dead_can_be_deleted(open_stage: OpenStage, home: Path) -> None:
    """Its container goes with it, though nobody watches it any more."""
    stage = open_stage()
    stage.deploy("orphaned")
    (supervisor,) = [process for process in processes_of(home) if is_supervisor(process, home)]
    kill(supervisor)
    stage.call("DeleteEndpoint", EndpointName="orphaned")
    assert not stage.exists("orphaned")
    assert processes_of(home) == []


def test_a_killed_nursery_is_replaced(open_stage: OpenStage, home: Path) -> None:
    """The supervisors that it forked go on, and the next ones come from another; it ends with its engine."""
    stage = open_stage()
    stage.deploy("lasting")
    kill(*stage.until(lambda: nurseries_of(home), bool))
    assert stage.invoke("lasting", b"x")["Body"] == b"X"
    assert stage.train("later")["TrainingJobStatus"] == "Completed"
    stage.engine.close()
    assert nurseries_of(home) == []
    assert open_stage().invoke("lasting", b"x")["Body"] == b"X"


def test_what_leaves_its_group_is_ended_too(open_stage: OpenStage, home: Path) -> None:
    """A daemon that a program started does not outlive the job."""
    stage = open_stage()
    assert stage.train("daemon", HyperParameters={"mode": "daemon"})["TrainingJobStatus"] == "Completed"
    stage.until(lambda: processes_of(home), lambda left: left == [])


def test_many_engines_open_one_home(open_stage: OpenStage, home: Path) -> None:
    """At once, after a crash: one successor for each endpoint, and everybody sees it."""
    first = open_stage()
    first.deploy("common")
    kill(*processes_of(home))
    stages: list[Stage] = []
    threads = [threading.Thread(target=lambda: stages.append(open_stage())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for stage in stages:
        assert stage.settled("common")["EndpointStatus"] == "InService"
        assert stage.invoke("common", b"x")["Body"] == b"X"
    first.until(lambda: len(processes_of(home)), lambda count: count == 2)


def test_many_processes_open_a_new_home(home: Path) -> None:
    """The state is made once, whoever comes first."""
    code = (
        "import sys; from pathlib import Path; from backends.engine import Engine, EngineSettings\n"
        "Engine(EngineSettings(home=Path(sys.argv[1]))).close()"
    )
    openers = [subprocess.Popen([sys.executable, "-c", code, str(home)], cwd=ROOT) for _ in range(6)]
    assert [opener.wait(60) for opener in openers] == [0] * 6


def test_names_are_taken_once(open_stage: OpenStage) -> None:
    """Of many threads that create one name, one wins; the others are told."""
    stages = [open_stage() for _ in range(4)]
    stages[0].put("in/data.txt", b"x")
    results: list[str] = []

    def create(stage: Stage) -> None:
        try:
            stage.engine.call("CreateTrainingJob", stage.training_request("contested"))
            results.append("won")
        except ServiceError as error:
            results.append(error.code)

    threads = [threading.Thread(target=create, args=(stage,)) for stage in stages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["ResourceInUse"] * 3 + ["won"]
    assert stages[0].trained("contested")["TrainingJobStatus"] == "Completed"
    assert stages[0].engine.is_idle()


def test_a_place_removed_by_hand_is_left(tmp_path: Path) -> None:
    """Who deletes the state folder under a running endpoint leaves no process behind."""
    home = tmp_path / "removed"
    stage = Stage(Engine(settings_for(home)), home)
    stage.deploy("endpoint")
    assert processes_of(home)
    stage.engine.close()
    shutil.rmtree(home)
    stage.until(lambda: processes_of(home), lambda left: left == [])
