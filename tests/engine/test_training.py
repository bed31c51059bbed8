"""Training jobs under contract A, on one host in File mode."""

import json
import os
import struct
from collections.abc import Callable

import pytest

from tests.archives import archive, unarchived
from tests.engine.conftest import Stage, channel

MakeStage = Callable[..., Stage]


def seen_by(stage: Stage, name: str) -> dict[str, object]:
    """What the probe's mode "report" saw."""
    seen: dict[str, object] = json.loads(unarchived(stage.get(f"out/{name}/output/output.tar.gz"))["seen.json"])
    return seen


def manifest_channel(name: str, uri: str, **members: object) -> dict[str, object]:
    """A channel whose objects the manifest at *uri* names."""
    made = channel(name, uri, **members)
    made["DataSource"]["S3DataSource"]["S3DataType"] = "ManifestFile"
    return made


def shell(command: str) -> dict[str, object]:
    """What an AlgorithmSpecification says so that the shell runs *command* in /opt/ml."""
    return {"ContainerEntrypoint": ["/bin/sh", "-ec"], "ContainerArguments": [f'cd "$SAGEMAKER_BASE_DIR"; {command}']}


@pytest.fixture(scope="module")
def reported(stage: Stage) -> dict[str, object]:
    """One job's own report of its world; the parent's environment held secrets and Python settings."""
    secrets = {
        "AWS_ACCESS_KEY_ID": "AKIAUSERUSERUSERUSER",
        "AWS_SECRET_ACCESS_KEY": "users-secret",
        "AWS_PROFILE": "users-profile",
        "MY_TOKEN": "users-token",
        "PYTHONPATH": "/users/path",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in secrets.items():
            patch.setenv(name, value)
        stage.put("in-2/more.txt", b"sibling")
        job = stage.train(
            "Reporting-Job",
            HyperParameters={"mode": "report", "epochs": "3", "quoted": '"train.py"'},
            Environment={"MINE": "yes"},
            InputDataConfig=[
                channel("train", "s3://bucket/in/", ContentType="text/csv"),
                channel("other", "s3://bucket/in"),
            ],
        )
    assert job["TrainingJobStatus"] == "Completed", job
    return seen_by(stage, "Reporting-Job")


def test_hyperparameters_arrive_as_strings(reported: dict[str, dict[str, object]]) -> None:
    """A flat object of strings, untouched, JSON-quoted values too (A.2, A.6)."""
    assert reported["config"]["hyperparameters.json"] == {"mode": "report", "epochs": "3", "quoted": '"train.py"'}


def test_the_channels_are_described(reported: dict[str, dict[str, object]]) -> None:
    """S3DistributionType is spelled so, and ContentType is absent when it was not given (A.3)."""
    common = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
    assert reported["config"]["inputdataconfig.json"] == {
        "train": {**common, "ContentType": "text/csv"},
        "other": common,
    }


def test_the_cluster_is_described(reported: dict[str, dict[str, object]]) -> None:
    """One host, all keys that the toolkits and SDK v3 read (A.4)."""
    group = {"instance_group_name": "homogeneousCluster", "instance_type": "ml.m5.large", "hosts": ["algo-1"]}
    assert reported["config"]["resourceconfig.json"] == {
        "current_host": "algo-1",
        "current_instance_type": "ml.m5.large",
        "current_group_name": "homogeneousCluster",
        "hosts": ["algo-1"],
        "instance_groups": [group],
        "network_interface_name": "eth0",
        "topology": None,
    }


def test_only_the_documented_files_are_there(reported: dict[str, dict[str, object]]) -> None:
    """No configuration file appears for what was not asked (A.2)."""
    assert sorted(reported["config"]) == ["hyperparameters.json", "inputdataconfig.json", "resourceconfig.json"]


def test_the_environment_is_the_platforms(reported: dict[str, dict[str, str]]) -> None:
    """Name, ARN (lower-cased), region and the request's own variables; nothing of the user's (A.5, S9)."""
    environment = reported["environment"]
    assert environment["TRAINING_JOB_NAME"] == "Reporting-Job"
    assert environment["TRAINING_JOB_ARN"].endswith(":training-job/reporting-job")
    assert (environment["AWS_REGION"], environment["MINE"]) == ("us-east-1", "yes")
    allowed = {"PATH", "HOME", "TMPDIR", "LANG", "LC_CTYPE", "PYTHONUNBUFFERED", "SAGEMAKER_BASE_DIR", "GREENROOM_RUN"}
    allowed |= {"TRAINING_JOB_NAME", "TRAINING_JOB_ARN", "MINE", "AWS_REGION", "AWS_EC2_METADATA_DISABLED"}
    assert set(environment) <= allowed | {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "PWD", "SHLVL", "_"}
    assert environment["AWS_ACCESS_KEY_ID"] == environment["AWS_SECRET_ACCESS_KEY"] == "test"
    assert environment["HOME"] != os.environ.get("HOME")
    assert "users" not in json.dumps(environment)


def test_the_program_gets_the_argument_train(reported: dict[str, object]) -> None:
    """The image's own program is what is called "train"; the platform adds nothing to it (A.1, A.6)."""
    assert reported["argv"] == []


def test_an_entrypoint_runs_without_train(stage: Stage) -> None:
    """ContainerEntrypoint alone drops the argument; ContainerArguments alone replaces it (A.1)."""
    for name, override in {
        "entry": {"ContainerEntrypoint": ["python3", "./train", "--mine"]},
        "both": {"ContainerEntrypoint": ["./train"], "ContainerArguments": ["--mine"]},
        "arguments": {"ContainerArguments": ["train", "--mine"]},
    }.items():
        if name == "entry":
            override["ContainerEntrypoint"][1] = str(stage.engine.site.settings.images["probe"]) + "/train"
        job = stage.train(name, algorithm=override, HyperParameters={"mode": "report"})
        assert job["TrainingJobStatus"] == "Completed", job
        assert seen_by(stage, name)["argv"] == ["--mine"]


def test_the_code_of_script_mode_is_there(stage: Stage) -> None:
    """Where the toolkit would unpack it, whether the SDK wrote the hyperparameter or a person; else nothing is."""
    code = stage.put("code/sourcedir.tar.gz", archive({"train.py": b"pass"}))
    for name, uri in {"sdk": json.dumps(code), "person": code}.items():
        copying = {"ContainerEntrypoint": ["cp", "code/train.py", "model/"]}
        job = stage.train(name, algorithm=copying, HyperParameters={"sagemaker_submit_directory": uri})
        assert unarchived(stage.get(f"out/{name}/output/model.tar.gz")) == {"train.py": b"pass"}, job
    job = stage.train(
        "elsewhere",
        algorithm={"ContainerEntrypoint": ["test", "!", "-e", "code"]},
        HyperParameters={"sagemaker_submit_directory": "/opt/ml/input/data/train"},
    )
    assert job["TrainingJobStatus"] == "Completed", job


def test_a_prefix_is_a_string(stage: Stage) -> None:
    """s3://b/in matches in/… and in-2/…; each key keeps its path below the prefix's folder (A.7, F.3 34)."""
    stage.put("p/in/a", b"1")
    stage.put("p/in-2/b", b"2")
    stage.put("p/in/", b"")  # The folder object that S3's console makes.
    job = stage.train("siblings", InputDataConfig=[channel("train", "s3://bucket/p/in")])
    assert unarchived(stage.get("out/siblings/output/model.tar.gz"))["model.txt"] in {b"12", b"21"}, job


def test_a_uri_may_name_one_object(stage: Stage) -> None:
    """It becomes <channel>/<basename> (A.7)."""
    stage.put("single/one.txt", b"one")
    stage.train("single", InputDataConfig=[channel("train", "s3://bucket/single/one.txt")])
    assert unarchived(stage.get("out/single/output/model.tar.gz"))["model.txt"] == b"one"


def test_a_manifest_names_the_objects_of_a_channel(stage: Stage) -> None:
    """Each lies at its suffix, whatever else has that prefix (A.7)."""
    for key in ("a", "deep/b", "unnamed"):
        stage.put(f"parts/{key}", key.encode())
    manifest = stage.put("lists/some.manifest", b'[{"prefix": "s3://bucket/parts/"}, "deep/b", "a"]')
    job = stage.train(
        "manifest",
        algorithm=shell("cd input/data/train; find . -type f | sort > ../../../model/found"),
        InputDataConfig=[manifest_channel("train", manifest)],
    )
    assert job["TrainingJobStatus"] == "Completed", job
    assert unarchived(stage.get("out/manifest/output/model.tar.gz")) == {"found": b"./a\n./deep/b\n"}


@pytest.mark.parametrize(
    ("manifest", "text"),
    [
        (b"s3://bucket/in/data.txt", "is not a manifest"),
        (b'["s3://bucket/in/data.txt"]', "is not a manifest"),
        (b"[]", "is not a manifest"),
        (b'[{"prefix": "s3://bucket/in/"}, 1]', "is not a manifest"),
        (b'[{"prefix": "s3://bucket/in/"}, "gone.txt"]', "gone.txt"),
        (b'[{"prefix": "file:///etc/"}, "passwd"]', "is not an S3 URI"),
        (b'[{"prefix": "s3://bucket/odd/"}, "../data.txt"]', "has the component '..'"),
    ],
)
def test_a_bad_manifest_fails_the_job(stage: Stage, manifest: bytes, text: str) -> None:
    """ClientError, saying what is wrong (A.7, S12, S14)."""
    stage.put("odd/../data.txt", b"an object of an odd name")
    uri = stage.put("lists/bad.manifest", manifest)
    reason = stage.train("bad-manifest", InputDataConfig=[manifest_channel("train", uri)])["FailureReason"]
    assert reason.startswith("ClientError: ")
    assert text in reason
    stage.call("DeleteTrainingJob", TrainingJobName="bad-manifest")


def test_a_fast_file_channel_is_read_only(stage: Stage) -> None:
    """The program finds files, which it cannot write, and mode File in its configuration (A.3, A.7).

    As with a model's folder, the process runner cannot hold back root: the mode bits are what is checked.
    """
    job = stage.train(
        "fast-file",
        algorithm=shell("cp input/config/inputdataconfig.json model; find input/data/train -perm /222 > model/found"),
        InputDataConfig=[channel("train", "s3://bucket/in/", InputMode="FastFile")],
    )
    assert job["InputDataConfig"][0]["InputMode"] == "FastFile"
    left = unarchived(stage.get("out/fast-file/output/model.tar.gz"))
    assert json.loads(left["inputdataconfig.json"])["train"]["TrainingInputMode"] == "File"
    assert left["found"] == b""


def test_a_model_may_be_left_uncompressed(stage: Stage) -> None:
    """CompressionType NONE stores the files as they are, below …/output/model (A.8)."""
    job = stage.train(
        "uncompressed",
        algorithm=shell("mkdir model/a; echo w > model/a/b; ln -s a/b model/link; echo o > output/data/o"),
        OutputDataConfig={"S3OutputPath": "s3://bucket/out", "CompressionType": "NONE"},
    )
    assert job["ModelArtifacts"] == {"S3ModelArtifacts": "s3://bucket/out/uncompressed/output/model"}
    assert job["OutputDataConfig"]["CompressionType"] == "NONE"
    assert stage.keys("out/uncompressed/") == [
        f"out/uncompressed/output/{name}" for name in ("model/a/b", "model/link", "output.tar.gz")
    ]
    assert stage.get("out/uncompressed/output/model/link") == b"w\n"
    job = stage.train(
        "leaking",
        algorithm=shell("ln -s /etc/passwd model/link"),
        OutputDataConfig={"S3OutputPath": "s3://bucket/out", "CompressionType": "NONE"},
    )
    assert "which is not a file within the folder" in job["FailureReason"]
    assert stage.keys("out/leaking/") == []


@pytest.mark.parametrize("ending", ["true", "exit 1", "echo hanging; sleep 60"])
def test_checkpoints_pass_from_job_to_job(stage: Stage, ending: str) -> None:
    """They are there before the program starts and stored however it ends; what it removes goes (A.2, A.8)."""
    place = f"checkpoints-{len(ending)}"
    stage.put(f"{place}/deep/1", b"one")
    stage.put(f"{place}/old", b"old")
    stage.put(f"{place}-2/other", b"another prefix")
    command = f"cp input/config/checkpointconfig.json checkpoints; cd checkpoints; rm old; cp deep/1 2; {ending}"
    request = stage.training_request(
        place, algorithm=shell(command), CheckpointConfig={"S3Uri": f"s3://bucket/{place}"}
    )
    stage.call("CreateTrainingJob", **request)
    if "hanging" in ending:
        stage.until(lambda: list(stage.engine.read_log("training job", place, follow=False)), bool)
        stage.call("StopTrainingJob", TrainingJobName=place)
    assert stage.trained(place)["CheckpointConfig"] == {"S3Uri": f"s3://bucket/{place}"}
    assert stage.keys(f"{place}/") == [f"{place}/{name}" for name in ("2", "checkpointconfig.json", "deep/1")]
    assert stage.get(f"{place}/2") == b"one"
    assert json.loads(stage.get(f"{place}/checkpointconfig.json")) == {"LocalPath": "/opt/ml/checkpoints"}
    assert "checkpoints" not in stage.keys(f"out/{place}/")


def test_checkpoints_are_stored_while_the_program_runs(make_stage: Callable[..., Stage]) -> None:
    """What is written, written again and removed; no file that is still being written (A.8)."""
    stage = make_stage(checkpoint_pause_seconds=0.05)
    stage.put("live/old", b"old")
    steps = "rm old; echo one > 1; (while true; do echo more >> growing; sleep 0.01; done) & until [ -e ../go ]; do "
    command = f"cd checkpoints; {steps} sleep 0.01; done; echo two > 2; echo again > 1; sleep 60"
    request = stage.training_request("live", algorithm=shell(command), CheckpointConfig={"S3Uri": "s3://bucket/live"})
    stage.call("CreateTrainingJob", **request)
    stage.until(lambda: stage.keys("live/"), lambda keys: keys == ["live/1"])
    assert stage.get("live/1") == b"one\n"
    next(stage.home.rglob("ml/checkpoints")).with_name("go").touch()
    stage.until(lambda: stage.keys("live/"), lambda keys: keys == ["live/1", "live/2"])
    stage.until(lambda: stage.get("live/1"), lambda found: found == b"again\n")
    assert stage.call("DescribeTrainingJob", TrainingJobName="live")["TrainingJobStatus"] == "InProgress"


def test_a_job_may_be_updated(stage: Stage) -> None:
    """UpdateTrainingJob: the warm pool and the profiler; Describe shows what was changed (A.13, F.1)."""
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
    request = stage.training_request("Updated", HyperParameters={"mode": "hang"}, ResourceConfig=resources)
    stage.call("CreateTrainingJob", **request)
    before = stage.call("DescribeTrainingJob", TrainingJobName="Updated")
    assert "WarmPoolStatus" not in before
    answer = stage.call(
        "UpdateTrainingJob",
        TrainingJobName="Updated",
        ResourceConfig={"KeepAlivePeriodInSeconds": 600},
        ProfilerConfig={"S3OutputPath": "s3://bucket/profile"},
        RemoteDebugConfig={"EnableRemoteDebug": True},
    )
    assert answer == {"TrainingJobArn": before["TrainingJobArn"]}
    after = stage.call("DescribeTrainingJob", TrainingJobName="Updated")
    assert after["ResourceConfig"] == resources | {"KeepAlivePeriodInSeconds": 600}
    assert after["ProfilerConfig"] == {"S3OutputPath": "s3://bucket/profile"}
    assert after["RemoteDebugConfig"] == {"EnableRemoteDebug": True}
    assert after["WarmPoolStatus"] == {"Status": "InUse"}
    assert after["LastModifiedTime"] > before["CreationTime"]
    listed = stage.call("ListTrainingJobs", WarmPoolStatusEquals="InUse")["TrainingJobSummaries"]
    assert [job["TrainingJobName"] for job in listed] == ["Updated"]
    stage.call("StopTrainingJob", TrainingJobName="Updated")
    assert stage.trained("Updated")["WarmPoolStatus"]["Status"] == "Terminated"
    stage.call("UpdateTrainingJob", TrainingJobName="Updated", ResourceConfig={"KeepAlivePeriodInSeconds": 0})
    assert "WarmPoolStatus" not in stage.call("DescribeTrainingJob", TrainingJobName="Updated")
    error = stage.refusal("UpdateTrainingJob", TrainingJobName="Updated", ProfilerConfig={"DisableProfiler": True})
    assert error.message == "The request was rejected because the training job is in status Stopped."
    error = stage.refusal("UpdateTrainingJob", TrainingJobName="no-such")
    assert error.message == "Requested resource not found."


def test_a_completed_job_is_described_in_full(stage: Stage) -> None:
    """What AWS fills in is there, so that the SDK's attach() finds it (A.12, F.3 1, 15, 16)."""
    request = stage.training_request("Full-Job", Tags=[{"Key": "a", "Value": "b"}])
    arn = stage.call("CreateTrainingJob", **request)["TrainingJobArn"]
    assert arn == "arn:aws:sagemaker:us-east-1:000000000000:training-job/full-job"
    at_once = stage.call("DescribeTrainingJob", TrainingJobName="Full-Job")
    assert at_once["ModelArtifacts"] == {"S3ModelArtifacts": "s3://bucket/out/Full-Job/output/model.tar.gz"}
    job = stage.trained("Full-Job")
    assert job["TrainingJobName"] == "Full-Job"
    assert job["OutputDataConfig"]["KmsKeyId"] == ""
    assert job["InputDataConfig"][0]["CompressionType"] == job["InputDataConfig"][0]["RecordWrapperType"] == "None"
    assert not job["EnableNetworkIsolation"]
    assert not job["EnableManagedSpotTraining"]
    assert not job["EnableInterContainerTrafficEncryption"]
    assert job["TrainingTimeInSeconds"] == job["BillableTimeInSeconds"] >= 1
    assert job["CreationTime"] <= job["TrainingStartTime"] <= job["TrainingEndTime"]
    assert "Tags" not in job
    assert "FailureReason" not in job
    assert "FinalMetricDataList" not in job
    assert set(unarchived(stage.get("out/Full-Job/output/model.tar.gz"))) == {"model.txt", "serve.json"}


def test_the_phases_follow_one_another(stage: Stage) -> None:
    """Starting, Downloading, Training, Uploading, Completed, each ending where the next begins (A.9)."""
    transitions = stage.train("phases")["SecondaryStatusTransitions"]
    assert [entry["Status"] for entry in transitions] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    assert [entry["EndTime"] for entry in transitions[:-1]] == [entry["StartTime"] for entry in transitions[1:]]
    assert transitions[2]["StatusMessage"] == "Training image download completed. Training in progress."


def test_nothing_is_downloaded_without_channels(stage: Stage) -> None:
    """InputDataConfig is optional; then inputdataconfig.json is {} and no Downloading appears (A.3, A.9)."""
    request = stage.training_request("channelless", HyperParameters={"mode": "report"})
    del request["InputDataConfig"]
    stage.call("CreateTrainingJob", **request)
    transitions = stage.trained("channelless")["SecondaryStatusTransitions"]
    assert [entry["Status"] for entry in transitions] == ["Starting", "Training", "Uploading", "Completed"]
    config = seen_by(stage, "channelless")["config"]
    assert isinstance(config, dict)
    assert config["inputdataconfig.json"] == {}


def test_an_empty_model_is_an_empty_archive(stage: Stage) -> None:
    """A completed job always leaves model.tar.gz; output.tar.gz only if there was output (A.8)."""
    stage.train("empty", HyperParameters={"mode": "empty"})
    assert stage.keys("out/empty/") == ["out/empty/output/model.tar.gz"]
    assert unarchived(stage.get("out/empty/output/model.tar.gz")) == {}


def test_a_failing_program_speaks_through_its_failure_file(stage: Stage) -> None:
    """AlgorithmError, its text, its exit code; no model (A.11, F.3 11)."""
    job = stage.train("failing", HyperParameters={"mode": "fail", "failure": "no such column", "exit_code": "7"})
    assert job["FailureReason"] == "AlgorithmError: no such column, exit code: 7"
    assert job["SecondaryStatusTransitions"][-1]["StatusMessage"] == job["FailureReason"]
    assert stage.keys("out/failing/") == []


def test_a_long_failure_keeps_the_exit_code(stage: Stage) -> None:
    """The reason has at most 1024 characters, whatever alphabet, and ends with the exit code (A.11)."""
    job = stage.train("long-failure", HyperParameters={"mode": "fail", "failure": "é😀" * 1200, "exit_code": "3"})
    assert len(job["FailureReason"]) == 1024
    assert job["FailureReason"].endswith(", exit code: 3")


def test_a_killed_program_has_dockers_exit_code(stage: Stage) -> None:
    """SIGKILL, as by the kernel's memory killer, is 137 (A.11)."""
    assert (
        stage.train("killed", HyperParameters={"mode": "suicide"})["FailureReason"]
        == "AlgorithmError: , exit code: 137"
    )


def test_stopping_lets_the_program_save(stage: Stage) -> None:
    """SIGTERM reaches the program, what it saves is uploaded, the job is Stopped (A.9, F.3 9)."""
    stage.call("CreateTrainingJob", **stage.training_request("stopped", HyperParameters={"mode": "hang"}))
    stage.until(
        lambda: list(stage.engine.read_log("training job", "stopped", follow=False)), lambda log: "hanging" in log
    )
    stage.call("StopTrainingJob", TrainingJobName="stopped")
    assert stage.call("DescribeTrainingJob", TrainingJobName="stopped")["TrainingJobStatus"] in {"Stopping", "Stopped"}
    job = stage.trained("stopped")
    assert [entry["Status"] for entry in job["SecondaryStatusTransitions"]][-3:] == ["Stopping", "Uploading", "Stopped"]
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert unarchived(stage.get("out/stopped/output/model.tar.gz"))["model.txt"] == b"saved on the way out"
    error = stage.refusal("StopTrainingJob", TrainingJobName="stopped")
    assert error.message == "The request was rejected because the training job is in status Stopped."


def test_a_program_that_ignores_sigterm_is_killed(stage: Stage) -> None:
    """After the grace comes SIGKILL; the exit code of a stopped program counts for nothing (A.1)."""
    stage.call("CreateTrainingJob", **stage.training_request("stubborn", HyperParameters={"mode": "stubborn"}))
    stage.until(
        lambda: list(stage.engine.read_log("training job", "stubborn", follow=False)), lambda log: "hanging" in log
    )
    stage.call("StopTrainingJob", TrainingJobName="stubborn")
    assert stage.trained("stubborn")["TrainingJobStatus"] == "Stopped"


def test_the_runtime_limit_stops_and_uploads(stage: Stage) -> None:
    """MaxRuntimeInSeconds gives Stopped with MaxRuntimeExceeded, not Failed (A.9, F.3 10)."""
    job = stage.train("overlong", StoppingCondition={"MaxRuntimeInSeconds": 1}, HyperParameters={"mode": "hang"})
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert unarchived(stage.get("out/overlong/output/model.tar.gz"))["model.txt"] == b"saved on the way out"


def test_metrics_are_the_last_match_as_float32(stage: Stage) -> None:
    """First capture group, last value, single precision; what is no number is passed over (A.12, F.3 12)."""
    definitions = [
        {"Name": "loss", "Regex": "loss=([0-9.]+);"},
        {"Name": "accuracy", "Regex": "accuracy=(.*?);"},
        {"Name": "huge", "Regex": "huge=(.*?);"},
        {"Name": "silent", "Regex": "never"},
    ]
    job = stage.train("metrics", algorithm={"MetricDefinitions": definitions}, HyperParameters={"say": "huge=1e300;"})
    assert [entry["MetricName"] for entry in job["FinalMetricDataList"]] == ["loss"]
    assert job["FinalMetricDataList"][0]["Value"] == struct.unpack("f", struct.pack("f", 0.95))[0] == 0.949999988079071


def test_unusable_inputs_are_refused_at_creation(stage: Stage) -> None:
    """AWS's words, and no job is recorded (0.3, F.3 3, 14)."""
    for member, message in {
        "s3://bucket/nothing/": 'No S3 objects found under S3 URL "s3://bucket/nothing/" given in input data source.',
        "s3://no-such-bucket/x": 'No S3 objects found under S3 URL "s3://no-such-bucket/x"',
    }.items():
        request = stage.training_request("refused", InputDataConfig=[channel("train", member)])
        error = stage.refusal("CreateTrainingJob", **request)
        assert (error.code, error.status) == ("ValidationException", 400)
        assert error.message.startswith(message)
        assert "s3:ListBucket" in error.message
    gzip = [channel("train", "s3://bucket/in/", CompressionType="Gzip")]
    assert (
        "Pipe" in stage.refusal("CreateTrainingJob", **stage.training_request("refused", InputDataConfig=gzip)).message
    )
    error = stage.refusal("DescribeTrainingJob", TrainingJobName="refused")
    assert (error.code, error.message) == ("ValidationException", "Requested resource not found.")


@pytest.mark.parametrize(
    ("member", "value", "text"),
    [
        ("TrainingJobName", "-x", "at 'trainingJobName' failed to satisfy constraint: Member must satisfy regular"),
        ("TrainingJobName", "a" + "-" * 62 + "a", "at 'trainingJobName' failed to satisfy constraint: Member must ha"),
        ("RoleArn", None, "Value null at 'roleArn' failed to satisfy constraint: Member must not be null"),
        ("OutputDataConfig", None, "Value null at 'outputDataConfig'"),
        ("OutputDataConfig", {}, "Value null at 's3OutputPath'"),
        ("OutputDataConfig", {"S3OutputPath": "s3://bucket/o", "CompressionType": "ZIP"}, "value set: [GZIP, NONE]"),
        ("ResourceConfig", {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}, "has 1 host"),
        ("ResourceConfig", {"InstanceType": "ml.m5.large", "KeepAlivePeriodInSeconds": 21601}, "equal to 21600"),
        ("StoppingCondition", {"MaxRuntimeInSeconds": 0}, "greater than or equal to 1"),
        ("EnableManagedSpotTraining", True, "Invalid MaxWaitTimeInSeconds. It must be present"),
        ("StoppingCondition", {"MaxWaitTimeInSeconds": 9}, "only supported when EnableManagedSpotTraining is set"),
        ("HyperParameters", {"x": 1}, "Member must be a string"),
        ("InputDataConfig", [channel("..", "s3://bucket/in/")], "regular expression"),
        ("InputDataConfig", [channel("a", "s3://bucket/in/", InputMode="Pipe")], "File mode"),
        ("InputDataConfig", [manifest_channel("a", "s3://bucket/in/", InputMode="FastFile")], "S3Prefix in FastFile"),
        ("InputDataConfig", [manifest_channel("a", "s3://bucket/none/")], "No S3 objects found under S3 URL"),
        ("InputDataConfig", [channel("a", "s3://bucket/in/"), channel("A", "s3://bucket/in/")], "must differ"),
        ("CheckpointConfig", {"S3Uri": "s3://bucket/c", "LocalPath": "/state"}, "below /opt/ml"),
        ("CheckpointConfig", {"S3Uri": "s3://bucket/c", "LocalPath": "/opt/ml/input/data"}, "below /opt/ml"),
        ("CheckpointConfig", {"S3Uri": "s3://no-such-bucket/c"}, "cannot be used"),
        ("RetryStrategy", {"MaximumRetryAttempts": 1}, "does not carry out RetryStrategy"),
        ("AlgorithmSpecification", {"TrainingImage": "no-such", "TrainingInputMode": "File"}, "Cannot find the"),
        ("AlgorithmSpecification", {"TrainingImage": "probe", "TrainingInputMode": "Pipe"}, "File mode"),
        ("AlgorithmSpecification", {"AlgorithmName": "bought", "TrainingInputMode": "File"}, "out AlgorithmName"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused(stage: Stage, member: str, value: object, text: str) -> None:
    """Refused at once and by name, never half done (0.3)."""
    request = stage.training_request("refusable") | {member: value}
    assert text in stage.refusal("CreateTrainingJob", **request).message


def test_a_bad_metric_regex_is_refused(stage: Stage) -> None:
    """At creation, naming the metric."""
    request = stage.training_request("regex", algorithm={"MetricDefinitions": [{"Name": "m", "Regex": "("}]})
    assert "Metric 'm'" in stage.refusal("CreateTrainingJob", **request).message


def test_names_are_unique_until_deleted(stage: Stage) -> None:
    """ResourceInUse for a second job of one name; DeleteTrainingJob frees it, once it has ended (0.2, F.3 2)."""
    stage.call("CreateTrainingJob", **stage.training_request("twice", HyperParameters={"mode": "hang"}))
    error = stage.refusal("CreateTrainingJob", **stage.training_request("twice"))
    assert error.code == "ResourceInUse"
    assert "a training job with this name already exists (arn:aws:sagemaker:" in error.message
    assert "in status InProgress" in stage.refusal("DeleteTrainingJob", TrainingJobName="twice").message
    stage.call("StopTrainingJob", TrainingJobName="twice")
    stage.trained("twice")
    stage.call("DeleteTrainingJob", TrainingJobName="twice")
    assert stage.train("twice")["TrainingJobStatus"] == "Completed"


def test_an_image_may_be_spelled_as_on_aws(stage: Stage) -> None:
    """A registry in front and a tag behind are passed over, so that scripts written for AWS run (0.3)."""
    image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/probe:1.0"
    job = stage.train("ecr", algorithm={"TrainingImage": image})
    assert (job["TrainingJobStatus"], job["AlgorithmSpecification"]["TrainingImage"]) == ("Completed", image)


def test_a_program_that_cannot_be_started_is_the_clients_error(stage: Stage) -> None:
    """An entrypoint that is no program fails the job with a reason that names it."""
    job = stage.train("unstartable", algorithm={"ContainerEntrypoint": ["no-such-program"]})
    assert job["FailureReason"].startswith("ClientError: ")
    assert "no-such-program" in job["FailureReason"]


def test_the_log_survives_the_job_and_its_files_do_not(stage: Stage) -> None:
    """/opt/ml is removed, what the program printed stays."""
    stage.train("tidy", HyperParameters={"say": "grüße\u2028👋"})
    assert "grüße\u2028👋" in list(stage.engine.read_log("training job", "tidy", follow=True))
    folder = next(path for path in (stage.home / "training").iterdir() if path.name.startswith("tidy@"))
    stage.until(lambda: sorted(path.name for path in folder.iterdir()), lambda names: names == ["algo-1.log"])
