"""Batch transforms as documents: CreateTransformJob, DescribeTransformJob, StopTransformJob … (contract C).

The job itself is carried out by :mod:`backends.engine.transform_run` in a supervisor process.
"""

import re
from typing import Any

from backends.engine import filters
from backends.engine.documents import (
    check_absent,
    check_choice,
    check_range,
    page,
    refuse,
    required,
    required_name,
)
from backends.engine.models import find
from backends.engine.site import ENDED, MODEL, TRANSFORM, Site
from backends.engine.state import Document, Resource, Taken
from backends.engine.supervision import Supervisor
from backends.engine.tags import check_tags
from backends.engine.training import require_objects
from backends.errors import BackendError
from backends.naming import split_uri
from backends.sagemaker.readings import ServiceError
from backends.specs import Split

_MOST_INSTANCES = 20
_PAYLOAD_PRODUCT_LIMIT_MB = 100
_MEDIA_TYPE = re.compile(r"[\x20-\x7e]{0,256}")
_CHOICES = {
    "TransformInput.SplitType": ("None", "Line", "RecordIO", "TFRecord"),
    "TransformInput.CompressionType": ("None", "Gzip"),
    "TransformOutput.AssembleWith": ("None", "Line"),
    "BatchStrategy": ("MultiRecord", "SingleRecord"),
}


def create(site: Site, request: Document) -> Document:
    """CreateTransformJob: check everything that AWS checks at once, record the job, hand it to a supervisor."""
    name = required_name(request, "TransformJobName")
    if site.state.find(TRANSFORM, name):
        raise _taken(site, name)
    supervisor = Supervisor(site.nursery)
    try:
        _check(site, request)
        facts = {"status": "InProgress", "seat": supervisor.seat, "model": _model(site, request)}
        site.state.insert(TRANSFORM, name, request, facts)
    except Taken as exc:
        supervisor.dismiss()
        raise _taken(site, name) from exc
    except BaseException:
        supervisor.dismiss()
        raise
    supervisor.carry(TRANSFORM, name)
    return {"TransformJobArn": site.arn(TRANSFORM, name)}


def describe(site: Site, request: Document) -> Document:
    """DescribeTransformJob: the request echoed with the effective defaults, and what became of it (C.5)."""
    job = _find(site, request, "Could not find requested job with name: ")
    document: dict[str, Any] = {key: value for key, value in job.request.items() if key != "Tags"}
    document["TransformInput"] = {"CompressionType": "None", "SplitType": "None", **job.request["TransformInput"]}
    document["TransformOutput"] = {"AssembleWith": "None", "KmsKeyId": "", **job.request["TransformOutput"]}
    document["DataProcessing"] = {
        "InputFilter": "$",
        "OutputFilter": "$",
        "JoinSource": "None",
        **job.request.get("DataProcessing", {}),
    }
    document |= {
        "TransformJobArn": site.arn(TRANSFORM, job.name),
        "TransformJobStatus": job.facts["status"],
        "CreationTime": job.created,
    }
    for member in ("FailureReason", "TransformStartTime", "TransformEndTime"):
        if member in job.facts:
            document[member] = job.facts[member]
    return document


def stop(site: Site, request: Document) -> Document:
    """StopTransformJob: ask the supervisor; what is not yet uploaded is dropped."""
    job = _find(site, request, "Could not find job to update with name ")

    def ask(facts: Document) -> bool:
        if facts["status"] in ENDED:
            raise refuse(f"The request was rejected because the transform job is in status {facts['status']}")
        facts["status"] = "Stopping"
        return True

    site.state.edit(job, ask)
    return {}


def listing(site: Site, request: Document) -> Document:
    """ListTransformJobs."""
    return page(
        site.state.every(TRANSFORM),
        request,
        summary=lambda job: _summary(site, job),
        modified=_modified,
        result="TransformJobSummaries",
    )


def data_processing(request: Document) -> filters.DataProcessing:
    """The filters and the join of a CreateTransformJob document.

    Raises:
        filters.InvalidDataProcessing: a filter that SageMaker would refuse, or one that does not fit the formats.
    """
    asked = request.get("DataProcessing", {})
    return filters.DataProcessing(
        input_filter=asked.get("InputFilter", "$"),
        output_filter=asked.get("OutputFilter", "$"),
        join_source=asked.get("JoinSource", "None"),
        content_type=request["TransformInput"].get("ContentType"),
        accept=request["TransformOutput"].get("Accept"),
        split=Split(request["TransformInput"].get("SplitType", "None")),
        assemble=Split(request["TransformOutput"].get("AssembleWith", "None")),
    )


def _check(site: Site, request: Document) -> None:
    check_absent(request, f"Transform job '{request['TransformJobName']}'", ["DataCaptureConfig"])
    check_tags(request)
    uri = required(request, "TransformInput.DataSource.S3DataSource.S3Uri")
    output_uri = required(request, "TransformOutput.S3OutputPath")
    count = required(request, "TransformResources.InstanceCount")
    check_range(count, "TransformResources.InstanceCount", 1)
    if count > _MOST_INSTANCES:
        raise refuse(
            f"InstanceCount {count}: this engine starts at most {_MOST_INSTANCES} servers for a transform job."
        )
    kind = request["TransformInput"]["DataSource"]["S3DataSource"].get("S3DataType")
    if kind not in {"S3Prefix", "ManifestFile"}:
        raise refuse(f"S3DataType {kind}: batch transform reads S3Prefix and ManifestFile.")
    _check_choices(request)
    _check_numbers(request)
    _check_media_types(request)
    try:
        data_processing(request)
        split_uri(output_uri, key_required=False)
        next(iter(site.store.list_objects(output_uri)), None)
    except BackendError as exc:
        raise refuse(str(exc)) from exc
    require_objects(site, uri, role="")


def _model(site: Site, request: Document) -> Document:
    model = find(site, MODEL, required_name(request, "ModelName"))
    if "ModelDataSource" in model.request["PrimaryContainer"]:
        raise refuse(
            "SageMaker Batch currently doesn't support Model entity with container definitions which use "
            "ModelDataSource; give the model a ModelDataUrl."
        )
    return model.request


def _check_choices(request: Document) -> None:
    for path, choices in _CHOICES.items():
        holder, _, member = path.rpartition(".")
        value = (request[holder] if holder else request).get(member)
        check_choice(value, path, choices)
        if value in {"RecordIO", "TFRecord"}:
            raise refuse(f"SplitType {value}: this engine splits by Line or not at all for now.")


def _check_numbers(request: Document) -> None:
    payload, concurrency = request.get("MaxPayloadInMB"), request.get("MaxConcurrentTransforms")
    check_range(payload, "MaxPayloadInMB", 0, _PAYLOAD_PRODUCT_LIMIT_MB)
    check_range(concurrency, "MaxConcurrentTransforms", 0)
    client = request.get("ModelClientConfig", {})
    check_range(client.get("InvocationsMaxRetries"), "ModelClientConfig.InvocationsMaxRetries", 0, 3)
    check_range(client.get("InvocationsTimeoutInSeconds"), "ModelClientConfig.InvocationsTimeoutInSeconds", 1, 3600)
    if payload and concurrency and payload * concurrency > _PAYLOAD_PRODUCT_LIMIT_MB:
        raise refuse(
            f"MaxConcurrentTransforms {concurrency} times MaxPayloadInMB {payload} exceeds "
            f"{_PAYLOAD_PRODUCT_LIMIT_MB} MB; lower one of them."
        )


def _check_media_types(request: Document) -> None:
    for holder, member in (("TransformInput", "ContentType"), ("TransformOutput", "Accept")):
        value = request[holder].get(member, "")
        if not _MEDIA_TYPE.fullmatch(value):
            raise refuse(f"{holder}.{member} {value!r} is not allowed: at most 256 visible ASCII characters.")


def _find(site: Site, request: Document, missing: str) -> Resource:
    name = required_name(request, "TransformJobName")
    job = site.state.find(TRANSFORM, name)
    if job is None:
        raise refuse(f"{missing}{name}")
    return job


def _taken(site: Site, name: str) -> ServiceError:
    return ServiceError(
        "ResourceInUse",
        "Job name must be unique within an AWS account and region, and a job with this name already exists "
        f"({site.arn(TRANSFORM, name)})",
    )


def _modified(job: Resource) -> float:
    started: float = job.facts.get("TransformStartTime", job.created)
    ended: float = job.facts.get("TransformEndTime", started)
    return ended


def _summary(site: Site, job: Resource) -> Document:
    summary = {
        "TransformJobName": job.name,
        "TransformJobArn": site.arn(TRANSFORM, job.name),
        "CreationTime": job.created,
        "LastModifiedTime": _modified(job),
        "TransformJobStatus": job.facts["status"],
    }
    for member in ("FailureReason", "TransformEndTime"):
        if member in job.facts:
            summary[member] = job.facts[member]
    return summary
