"""Training jobs as documents: CreateTrainingJob, DescribeTrainingJob, StopTrainingJob … (contract A).

The job itself is carried out by :mod:`backends.engine.training_run` in a supervisor process.
"""

import re
import time
from typing import Any

from backends.engine import layout
from backends.engine.documents import (
    check_absent,
    check_choice,
    check_range,
    page,
    refuse,
    required,
    required_name,
    violation,
)
from backends.engine.runners import ImageMissing
from backends.engine.site import ENDED, TRAINING, Site
from backends.engine.state import Document, Resource, Taken
from backends.engine.supervision import Supervisor
from backends.engine.tags import check_tags
from backends.errors import BackendError, NotFound
from backends.naming import join_uri, split_uri
from backends.sagemaker.readings import ServiceError

_UPDATABLE = ("ProfilerConfig", "ProfilerRuleConfigurations", "RemoteDebugConfig", "ResourceConfig")
_KEEP_ALIVE_RANGE = ("ResourceConfig.KeepAlivePeriodInSeconds", 0, 21_600)
_RUNTIME_RANGE = ("StoppingCondition.MaxRuntimeInSeconds", 1, 28 * 86_400)
# What a channel of each mode may be read from (A.7).
_INPUT_MODES = {"File": {"S3Prefix", "ManifestFile"}, "FastFile": {"S3Prefix"}}
_CHANNEL_NAME = re.compile(r"[A-Za-z0-9.\-_]{1,64}")


def create(site: Site, request: Document) -> Document:
    """CreateTrainingJob: check everything that AWS checks at once, record the job, hand it to a supervisor."""
    name = required_name(request, "TrainingJobName")
    if site.state.find(TRAINING, name):
        raise _taken(site, name)
    supervisor = Supervisor(site.settings)  # It loads while the request is checked.
    try:
        _check(site, request)
        facts = {
            "status": "InProgress",
            "seat": supervisor.seat,
            "transitions": [
                {
                    "Status": "Starting",
                    "StartTime": time.time(),
                    "StatusMessage": "Preparing the instances for training",
                }
            ],
        }
        site.state.insert(TRAINING, name, request, facts)
    except Taken as exc:
        supervisor.dismiss()
        raise _taken(site, name) from exc
    except BaseException:
        supervisor.dismiss()
        raise
    supervisor.carry(TRAINING, name)
    return {"TrainingJobArn": site.arn(TRAINING, name)}


def describe(site: Site, request: Document) -> Document:
    """DescribeTrainingJob: the request echoed with AWS's defaults filled in, and what became of it (A.12)."""
    job = _find(site, request)
    document = _echo(_as_updated(job))
    transitions = job.facts["transitions"]
    document |= {
        "TrainingJobArn": site.arn(TRAINING, job.name),
        "TrainingJobStatus": job.facts["status"],
        "SecondaryStatus": transitions[-1]["Status"],
        "SecondaryStatusTransitions": transitions,
        "CreationTime": job.created,
        "LastModifiedTime": _modified(job),
        "ModelArtifacts": {"S3ModelArtifacts": artifact_uri(job.request)},
        "ProfilingStatus": "Disabled",
    }
    if pool := _warm_pool(job):
        document["WarmPoolStatus"] = pool
    for member in ("FailureReason", "TrainingStartTime", "TrainingEndTime", "FinalMetricDataList"):
        if member in job.facts:
            document[member] = job.facts[member]
    if {"TrainingStartTime", "TrainingEndTime"} <= job.facts.keys():
        seconds = max(1, round(job.facts["TrainingEndTime"] - job.facts["TrainingStartTime"]))
        document |= {"TrainingTimeInSeconds": seconds, "BillableTimeInSeconds": seconds}
    return document


def stop(site: Site, request: Document) -> Document:
    """StopTrainingJob: ask the supervisor; it answers by SIGTERM, and SIGKILL after the grace."""
    job = _find(site, request)

    def ask(facts: Document) -> bool:
        if facts["status"] in ENDED:
            raise refuse(f"The request was rejected because the training job is in status {facts['status']}.")
        facts["status"] = "Stopping"
        return True

    site.state.edit(job, ask)
    return {}


def update(site: Site, request: Document) -> Document:
    """UpdateTrainingJob: what is given replaces what DescribeTrainingJob shows; none of it changes the program's world.

    Of an ended job only the warm pool's KeepAlivePeriodInSeconds can be changed; the pool is gone by then.
    """
    job = _find(site, request)
    changes = {member: request[member] for member in _UPDATABLE if member in request}
    _check_keep_alive(request.get("ResourceConfig", {}))

    def change(facts: Document) -> None:
        if facts["status"] in ENDED and changes.keys() - {"ResourceConfig"}:
            raise refuse(f"The request was rejected because the training job is in status {facts['status']}.")
        facts["changes"] = facts.get("changes", {}) | changes
        facts["modified"] = time.time()

    site.state.edit(job, change)
    return {"TrainingJobArn": site.arn(TRAINING, job.name)}


def delete(site: Site, request: Document) -> Document:
    """DeleteTrainingJob: forget an ended job and free its name; its artifacts stay in the store."""
    job = _find(site, request)
    if job.facts["status"] not in ENDED:
        raise refuse(f"The request was rejected because the training job is in status {job.facts['status']}.")
    site.state.remove(job)
    return {}


def listing(site: Site, request: Document) -> Document:
    """ListTrainingJobs."""
    jobs = site.state.every(TRAINING)
    if wanted := request.get("WarmPoolStatusEquals"):
        jobs = (job for job in jobs if _warm_pool(job).get("Status") == wanted)
    if request.get("TrainingPlanArnEquals"):
        jobs = iter(())  # No job here belongs to a plan.
    return page(
        jobs, request, summary=lambda job: _summary(site, job), modified=_modified, result="TrainingJobSummaries"
    )


def artifact_uri(request: Document) -> str:
    """Where the job's model goes, an archive or a folder of files; known before the job has run (A.8)."""
    return output_uri(request, "model.tar.gz" if is_compressed(request) else "model")


def is_compressed(request: Document) -> bool:
    """Whether the model is to become model.tar.gz."""
    return bool(request["OutputDataConfig"].get("CompressionType", "GZIP") == "GZIP")


def input_mode(request: Document, channel: Document) -> str:
    """How the program is to read *channel*: its own InputMode, else the algorithm's."""
    return str(channel.get("InputMode", request["AlgorithmSpecification"].get("TrainingInputMode", "File")))


def output_uri(request: Document, file_name: str) -> str:
    """Where SageMaker puts *file_name* among the job's outputs."""
    return join_uri(request["OutputDataConfig"]["S3OutputPath"], request["TrainingJobName"], "output", file_name)


def _find(site: Site, request: Document) -> Resource:
    job = site.state.find(TRAINING, required_name(request, "TrainingJobName"))
    if job is None:
        raise refuse("Requested resource not found.")
    return job


def _taken(site: Site, name: str) -> ServiceError:
    return ServiceError(
        "ResourceInUse",
        "Training job names must be unique within an AWS account and region, and a training job with this name "
        f"already exists ({site.arn(TRAINING, name)})",
    )


def _check(site: Site, request: Document) -> None:
    name = request["TrainingJobName"]
    check_absent(request, f"Training job '{name}'", ["WarmStartConfig", "RetryStrategy"])
    check_tags(request)
    image = required(request, "AlgorithmSpecification.TrainingImage")
    required(request, "RoleArn")
    try:
        site.runner.check(image)
    except ImageMissing as exc:
        raise refuse(f"Cannot find the requested image: {exc}") from exc
    for hyperparameter, value in request.get("HyperParameters", {}).items():
        if not isinstance(value, str):
            raise violation(value, f"HyperParameters.{hyperparameter}", "Member must be a string")
    check_range(required(request, "StoppingCondition").get("MaxRuntimeInSeconds"), *_RUNTIME_RANGE)
    _check_resources(site, required(request, "ResourceConfig"))
    _check_output(site, required(request, "OutputDataConfig"))
    _check_checkpoints(site, request)
    channels = request.get("InputDataConfig", [])
    for channel in channels:
        _check_channel(site, request, channel)
    if len({channel["ChannelName"].lower() for channel in channels}) < len(channels):
        raise refuse("The names of channels must differ from one another, by more than case.")
    _check_metrics(request["AlgorithmSpecification"].get("MetricDefinitions", []))


def _check_resources(site: Site, resources: Document) -> None:
    if resources.get("InstanceGroups"):
        raise refuse("InstanceGroups: this engine runs training jobs on instances of one type for now.")
    _check_keep_alive(resources)
    count = resources.get("InstanceCount", 1)
    check_range(count, "ResourceConfig.InstanceCount", 1)
    most = site.runner.most_hosts
    if count > most:
        raise refuse(
            f"InstanceCount {count}: the {site.settings.runner} runner has {most} host{'s' if most > 1 else ''} for a "
            "job; the docker runner gives each host a container. Ask for fewer, or choose that runner."
        )


def _check_keep_alive(resources: Document) -> None:
    check_range(resources.get("KeepAlivePeriodInSeconds"), *_KEEP_ALIVE_RANGE)


def _check_channel(site: Site, request: Document, channel: Document) -> None:
    name = channel.get("ChannelName", "")
    if not _CHANNEL_NAME.fullmatch(name) or name in {".", ".."}:
        raise violation(
            name,
            "InputDataConfig.ChannelName",
            "Member must satisfy regular expression pattern: [A-Za-z0-9\\.\\-_]+",
        )
    source = channel.get("DataSource", {}).get("S3DataSource")
    mode = input_mode(request, channel)
    if source is None or mode not in _INPUT_MODES or source.get("S3DataType") not in _INPUT_MODES[mode]:
        raise refuse(
            f"Channel '{name}': this engine reads S3Prefix and ManifestFile in File mode, S3Prefix in FastFile mode, "
            "and nothing else for now."
        )
    if channel.get("RecordWrapperType", "None") != "None":
        raise refuse(f"Channel '{name}': RecordWrapperType RecordIO is only valid in Pipe mode.")
    check_choice(channel.get("CompressionType"), "InputDataConfig.CompressionType", ("None", "Gzip"))
    if channel.get("CompressionType", "None") != "None":
        raise refuse(f"Channel '{name}': CompressionType Gzip is only valid in Pipe mode.")
    require_objects(site, source["S3Uri"], role=request.get("RoleArn", ""))


def require_objects(site: Site, uri: str, *, role: str) -> None:
    """Refuse the request, in AWS's words, unless an object lies below *uri*."""
    try:
        if next(iter(site.store.list_objects(uri)), None) is not None:
            return
    except NotFound:
        pass
    except BackendError as exc:
        raise refuse(str(exc)) from exc
    bucket, _ = split_uri(uri, key_required=False)
    raise refuse(
        f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket exists '
        f"in the selected region ({site.settings.region}), that objects exist under that S3 prefix, and that the "
        f'role "{role}" has "s3:ListBucket" permissions on bucket "{bucket}".'
    )


def _check_output(site: Site, output: Document) -> None:
    check_choice(output.get("CompressionType"), "OutputDataConfig.CompressionType", ("GZIP", "NONE"))
    _check_place(site, required(output, "S3OutputPath"))


def _check_checkpoints(site: Site, request: Document) -> None:
    for folder in layout.checkpoint_folders(request):
        _check_place(site, required(request, "CheckpointConfig.S3Uri"))
        if folder.split("/")[0] in {"..", ".", "input"}:
            raise refuse("CheckpointConfig.LocalPath: this engine keeps checkpoints below /opt/ml, outside its input.")


def _check_place(site: Site, uri: str) -> None:
    """Refuse a request whose results could not be stored below *uri*."""
    try:
        split_uri(uri, key_required=False)
        next(iter(site.store.list_objects(uri)), None)
    except BackendError as exc:
        raise refuse(f"The output path {uri} cannot be used: {exc}") from exc


def _check_metrics(definitions: list[Document]) -> None:
    for definition in definitions:
        try:
            re.compile(definition["Regex"])
        except re.error as exc:
            raise refuse(
                f"Metric '{definition['Name']}': the regex {definition['Regex']!r} is not valid: {exc}."
            ) from exc


def _as_updated(job: Resource) -> Document:
    """The job's request with what UpdateTrainingJob has changed of it."""
    request = dict(job.request)
    for member, value in job.facts.get("changes", {}).items():
        request[member] = {**request.get(member, {}), **value} if isinstance(value, dict) else value
    return request


def _modified(job: Resource) -> float:
    return float(max(job.facts["transitions"][-1]["StartTime"], job.facts.get("modified", 0.0)))


def _warm_pool(job: Resource) -> Document:
    """WarmPoolStatus of a job that asked for instances to be kept; here none are, once it has ended (A.13)."""
    if not _as_updated(job)["ResourceConfig"].get("KeepAlivePeriodInSeconds"):
        return {}
    if job.facts["status"] not in ENDED:
        return {"Status": "InUse"}
    return {"Status": "Terminated", "ResourceRetainedBillableTimeInSeconds": 0}


def _echo(request: Document) -> Document:
    document: dict[str, Any] = {key: value for key, value in request.items() if key != "Tags"}
    document["AlgorithmSpecification"] = {
        "EnableSageMakerMetricsTimeSeries": False,
        **request["AlgorithmSpecification"],
    }
    document["OutputDataConfig"] = {"KmsKeyId": "", "CompressionType": "GZIP", **request["OutputDataConfig"]}
    document["StoppingCondition"] = {"MaxRuntimeInSeconds": 86_400, **request["StoppingCondition"]}
    if "InputDataConfig" in request:
        document["InputDataConfig"] = [
            {"CompressionType": "None", "RecordWrapperType": "None", **channel}
            for channel in request["InputDataConfig"]
        ]
    for flag in ("EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining"):
        document.setdefault(flag, False)
    return document


def _summary(site: Site, job: Resource) -> Document:
    summary = {
        "TrainingJobName": job.name,
        "TrainingJobArn": site.arn(TRAINING, job.name),
        "CreationTime": job.created,
        "LastModifiedTime": _modified(job),
        "TrainingJobStatus": job.facts["status"],
        "SecondaryStatus": job.facts["transitions"][-1]["Status"],
    }
    if pool := _warm_pool(job):
        summary["WarmPoolStatus"] = pool
    if "TrainingEndTime" in job.facts:
        summary["TrainingEndTime"] = job.facts["TrainingEndTime"]
    return summary
