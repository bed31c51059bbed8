"""Batch transforms as documents: CreateTransformJob, DescribeTransformJob, StopTransformJob … (contract C).

The job itself is carried out by :mod:`backends.engine.transform_run` in a supervisor process.
"""

from typing import Any

from backends.engine import filters
from backends.engine.documents import page, refuse, required_name, violation
from backends.engine.hosting import find
from backends.engine.site import MODEL, TRANSFORM, Site
from backends.engine.state import Document, Resource, Taken
from backends.engine.supervision import Supervisor
from backends.engine.training import TERMINAL, require_objects
from backends.errors import BackendError
from backends.naming import split_uri
from backends.sagemaker.readings import ServiceError
from backends.specs import Split

_PAYLOAD_PRODUCT_LIMIT_MB = 100
_RETRY_LIMIT = 3
_TIMEOUT_LIMIT_SECONDS = 3600
_CHOICES = {
    "SplitType": ("None", "Line"),
    "AssembleWith": ("None", "Line"),
    "CompressionType": ("None", "Gzip"),
    "BatchStrategy": ("MultiRecord", "SingleRecord"),
}


def create(site: Site, request: Document) -> Document:
    """CreateTransformJob: check everything that AWS checks at once, record the job, hand it to a supervisor."""
    name = required_name(request, "TransformJobName")
    if site.state.find(TRANSFORM, name):
        raise _taken(site, name)
    supervisor = Supervisor(site.settings)  # It loads while the request is checked.
    try:
        _check(site, request)
        model = find(site, MODEL, required_name(request, "ModelName"))
        facts = {"status": "InProgress", "seat": supervisor.seat, "model": model.request}
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
        if facts["status"] in TERMINAL:
            raise refuse(f"The request was rejected because the transform job is in status {facts['status']}")
        facts["status"] = "Stopping"
        return True

    site.state.edit(TRANSFORM, job.name, ask)
    return {}


def listing(site: Site, request: Document) -> Document:
    """ListTransformJobs."""
    return page(
        site.state.every(TRANSFORM),
        request,
        status=lambda job: job.facts["status"],
        summary=lambda job: _summary(site, job),
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
    for holder, member in (
        (request["TransformInput"], "SplitType"),
        (request["TransformInput"], "CompressionType"),
        (request["TransformOutput"], "AssembleWith"),
        (request, "BatchStrategy"),
    ):
        value = holder.get(member)
        if value is not None and value not in _CHOICES[member]:
            raise violation(
                value,
                member[0].lower() + member[1:],
                f"Member must satisfy enum value set: [{', '.join(_CHOICES[member])}]",
            )
    _check_numbers(request)
    try:
        data_processing(request)
        split_uri(request["TransformOutput"]["S3OutputPath"], key_required=False)
    except BackendError as exc:
        raise refuse(str(exc)) from exc
    source = request["TransformInput"]["DataSource"]["S3DataSource"]
    if source.get("S3DataType") != "S3Prefix":
        raise refuse(f"S3DataType {source.get('S3DataType')}: this engine reads S3Prefix inputs for now.")
    require_objects(site, source["S3Uri"], role="")


def _check_numbers(request: Document) -> None:
    payload, concurrency = request.get("MaxPayloadInMB"), request.get("MaxConcurrentTransforms")
    client = request.get("ModelClientConfig", {})
    for value, member, low, high in (
        (payload, "maxPayloadInMB", 0, _PAYLOAD_PRODUCT_LIMIT_MB),
        (concurrency, "maxConcurrentTransforms", 0, None),
        (client.get("InvocationsMaxRetries"), "modelClientConfig.invocationsMaxRetries", 0, _RETRY_LIMIT),
        (
            client.get("InvocationsTimeoutInSeconds"),
            "modelClientConfig.invocationsTimeoutInSeconds",
            1,
            _TIMEOUT_LIMIT_SECONDS,
        ),
    ):
        if value is not None and value < low:
            raise violation(value, member, f"Member must have value greater than or equal to {low}")
        if value is not None and high is not None and value > high:
            raise violation(value, member, f"Member must have value less than or equal to {high}")
    if payload and concurrency and payload * concurrency > _PAYLOAD_PRODUCT_LIMIT_MB:
        raise refuse(
            f"MaxConcurrentTransforms {concurrency} times MaxPayloadInMB {payload} exceeds "
            f"{_PAYLOAD_PRODUCT_LIMIT_MB} MB; lower one of them."
        )


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


def _summary(site: Site, job: Resource) -> Document:
    summary = {
        "TransformJobName": job.name,
        "TransformJobArn": site.arn(TRANSFORM, job.name),
        "CreationTime": job.created,
        "LastModifiedTime": job.facts.get("TransformEndTime", job.created),
        "TransformJobStatus": job.facts["status"],
    }
    for member in ("FailureReason", "TransformEndTime"):
        if member in job.facts:
            summary[member] = job.facts[member]
    return summary
