"""Training jobs as documents: CreateTrainingJob, DescribeTrainingJob, StopTrainingJob … (contract A).

The job itself is carried out by :mod:`backends.engine.training_run` in a supervisor process.
"""

import re
import time
from typing import Any

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
from backends.errors import BackendError, NotFound
from backends.naming import split_uri, training_output_uri
from backends.sagemaker.readings import ServiceError

_RUNTIME_RANGE = ("StoppingCondition.MaxRuntimeInSeconds", 1, 28 * 86_400)
_CHANNEL_NAME = re.compile(r"[A-Za-z0-9.\-_]{1,64}")


def create(site: Site, request: Document) -> Document:
    """CreateTrainingJob: check everything that AWS checks at once, record the job, hand it to a supervisor."""
    name = required_name(request, "TrainingJobName")
    if site.state.find(TRAINING, name):
        raise _taken(site, name)
    supervisor = Supervisor(site.nursery)
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
    document = _echo(job.request)
    transitions = job.facts["transitions"]
    document |= {
        "TrainingJobArn": site.arn(TRAINING, job.name),
        "TrainingJobStatus": job.facts["status"],
        "SecondaryStatus": transitions[-1]["Status"],
        "SecondaryStatusTransitions": transitions,
        "CreationTime": job.created,
        "LastModifiedTime": transitions[-1]["StartTime"],
        "ModelArtifacts": {"S3ModelArtifacts": _artifact_uri(job.request)},
        "ProfilingStatus": "Disabled",
    }
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


def delete(site: Site, request: Document) -> Document:
    """DeleteTrainingJob: forget an ended job and free its name; its artifacts stay in the store."""
    job = _find(site, request)
    if job.facts["status"] not in ENDED:
        raise refuse(f"The request was rejected because the training job is in status {job.facts['status']}.")
    site.state.remove(job)
    return {}


def listing(site: Site, request: Document) -> Document:
    """ListTrainingJobs."""
    return page(
        site.state.every(TRAINING),
        request,
        summary=lambda job: _summary(site, job),
        modified=lambda job: float(job.facts["transitions"][-1]["StartTime"]),
        result="TrainingJobSummaries",
    )


def _find(site: Site, request: Document) -> Resource:
    job = site.state.find(TRAINING, required_name(request, "TrainingJobName"))
    if job is None:
        raise refuse("Requested resource not found.")
    return job


def _artifact_uri(request: Document) -> str:
    """Where the job's model.tar.gz goes; known before the job has run."""
    return training_output_uri(request["OutputDataConfig"]["S3OutputPath"], request["TrainingJobName"], "model.tar.gz")


def _taken(site: Site, name: str) -> ServiceError:
    return ServiceError(
        "ResourceInUse",
        "Training job names must be unique within an AWS account and region, and a training job with this name "
        f"already exists ({site.arn(TRAINING, name)})",
    )


def _check(site: Site, request: Document) -> None:
    name = request["TrainingJobName"]
    check_absent(request, f"Training job '{name}'", ["CheckpointConfig", "WarmStartConfig", "RetryStrategy"])
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
    channels = request.get("InputDataConfig", [])
    for channel in channels:
        _check_channel(site, request, channel)
    if len({channel["ChannelName"].lower() for channel in channels}) < len(channels):
        raise refuse("The names of channels must differ from one another, by more than case.")
    _check_metrics(request["AlgorithmSpecification"].get("MetricDefinitions", []))


def _check_resources(site: Site, resources: Document) -> None:
    if resources.get("InstanceGroups"):
        raise refuse("InstanceGroups: this engine runs training jobs on instances of one type for now.")
    count = resources.get("InstanceCount", 1)
    check_range(count, "ResourceConfig.InstanceCount", 1)
    most = site.runner.most_hosts
    if count > most:
        raise refuse(
            f"InstanceCount {count}: the {site.settings.runner} runner has {most} host{'s' if most > 1 else ''} for a "
            "job; the docker runner gives each host a container. Ask for fewer, or choose that runner."
        )


def _check_channel(site: Site, request: Document, channel: Document) -> None:
    name = channel.get("ChannelName", "")
    if not _CHANNEL_NAME.fullmatch(name) or name in {".", ".."}:
        raise violation(
            name,
            "InputDataConfig.ChannelName",
            "Member must satisfy regular expression pattern: [A-Za-z0-9\\.\\-_]+",
        )
    source = channel.get("DataSource", {}).get("S3DataSource")
    mode = channel.get("InputMode", request["AlgorithmSpecification"].get("TrainingInputMode", "File"))
    if source is None or source.get("S3DataType") != "S3Prefix" or mode != "File":
        raise refuse(f"Channel '{name}': this engine reads S3Prefix channels in File mode for now.")
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
    if output.get("CompressionType", "GZIP") != "GZIP":
        raise refuse("OutputDataConfig.CompressionType NONE: this engine makes model.tar.gz only for now.")
    uri = required(output, "S3OutputPath")
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
        "LastModifiedTime": job.facts["transitions"][-1]["StartTime"],
        "TrainingJobStatus": job.facts["status"],
        "SecondaryStatus": job.facts["transitions"][-1]["Status"],
    }
    if "TrainingEndTime" in job.facts:
        summary["TrainingEndTime"] = job.facts["TrainingEndTime"]
    return summary
