"""Spec → the exact SageMaker request documents. Pure: no network, no clock, no disk.

What is not asked for is left out, so that the platform's own defaults apply and a diff of two plans shows
only what was meant. Source: the SageMaker API reference of each operation named here.
"""

import json
from collections.abc import Mapping
from typing import Any

from backends.errors import InvalidSpec
from backends.naming import check_name, split_uri
from backends.specs import EndpointSpec, ModelSpec, Plan, Request, Split, TrainingSpec, TransformSpec, Variant

Document = dict[str, Any]


def training_plan(spec: TrainingSpec, *, role_arn: str) -> Plan:
    """One CreateTrainingJob."""
    check_name("training job", spec.name)
    split_uri(spec.output_uri, key_required=False)
    algorithm: Document = {"TrainingImage": spec.image, "TrainingInputMode": "File"}
    if spec.entrypoint:
        algorithm["ContainerEntrypoint"] = list(spec.entrypoint)
    if spec.arguments:
        algorithm["ContainerArguments"] = list(spec.arguments)
    if spec.metrics:
        algorithm["MetricDefinitions"] = [{"Name": name, "Regex": regex} for name, regex in spec.metrics.items()]
    document: Document = {
        "TrainingJobName": spec.name,
        "AlgorithmSpecification": algorithm,
        "RoleArn": spec.role_arn or role_arn,
        "OutputDataConfig": {"S3OutputPath": spec.output_uri},
        "ResourceConfig": {
            "InstanceType": spec.instance_type,
            "InstanceCount": spec.instance_count,
            "VolumeSizeInGB": spec.volume_size_gb,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": spec.max_runtime_seconds},
    }
    if spec.channels:
        document["InputDataConfig"] = [
            _channel(channel.name, channel.uri, channel.content_type) for channel in spec.channels
        ]
    if spec.hyperparameters or spec.script:
        document["HyperParameters"] = _hyperparameters(spec)
    if spec.environment:
        document["Environment"] = _strings("environment variable", spec.environment)
    if spec.checkpoint_uri:
        split_uri(spec.checkpoint_uri, key_required=False)
        document["CheckpointConfig"] = {"S3Uri": spec.checkpoint_uri}
    check_spot(spec)
    if spec.max_spot_seconds is not None:
        document["EnableManagedSpotTraining"] = True
        document["StoppingCondition"]["MaxWaitTimeInSeconds"] = spec.max_spot_seconds
    if spec.network_isolation:
        document["EnableNetworkIsolation"] = True
    return Plan("training job", spec.name, (Request("CreateTrainingJob", _tagged(document, spec.tags)),))


def check_spot(spec: TrainingSpec) -> None:
    """Raise InvalidSpec if *spec* wants to run for longer than it may wait and run."""
    if spec.max_spot_seconds is not None and spec.max_spot_seconds < spec.max_runtime_seconds:
        raise InvalidSpec(
            f"training job {spec.name!r} may run {spec.max_runtime_seconds} s; its max_spot_seconds, for waiting and "
            f"running, are {spec.max_spot_seconds}.",
            kind="training job",
            name=spec.name,
        )


def transform_plan(spec: TransformSpec, *, role_arn: str) -> Plan:
    """One CreateModel, named as the job, and one CreateTransformJob."""
    check_name("transform job", spec.name)
    split_uri(spec.input_uri, key_required=False)
    split_uri(spec.output_uri, key_required=False)
    document: Document = {
        "TransformJobName": spec.name,
        "ModelName": spec.name,
        "TransformInput": _present(
            DataSource={"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": spec.input_uri}},
            ContentType=spec.content_type,
            CompressionType="Gzip" if spec.gzip_input else None,
            SplitType=None if spec.split is Split.NONE else str(spec.split),
        ),
        "TransformOutput": _present(
            S3OutputPath=spec.output_uri,
            Accept=spec.accept,
            AssembleWith=None if spec.assemble is Split.NONE else str(spec.assemble),
        ),
        "TransformResources": {"InstanceType": spec.instance_type, "InstanceCount": spec.instance_count},
    }
    document |= _present(
        BatchStrategy=spec.strategy and str(spec.strategy),
        MaxPayloadInMB=spec.max_payload_mb,
        MaxConcurrentTransforms=spec.max_concurrency,
        ModelClientConfig=_present(
            InvocationsTimeoutInSeconds=spec.invocation_timeout_seconds,
            InvocationsMaxRetries=spec.invocation_retries,
        )
        or None,
        DataProcessing=_data_processing(spec) or None,
    )
    if spec.environment:
        document["Environment"] = _strings("environment variable", spec.environment)
    return Plan(
        "transform job",
        spec.name,
        (
            _model(spec.name, spec.model, role_arn, spec.tags),
            Request("CreateTransformJob", _tagged(document, spec.tags)),
        ),
    )


def endpoint_plan(spec: EndpointSpec, *, role_arn: str) -> Plan:
    """One CreateModel per variant, one CreateEndpointConfig and one CreateEndpoint, all named after it."""
    check_name("endpoint", spec.name)
    if not spec.variants:
        raise InvalidSpec(f"endpoint {spec.name!r} has no variant; give it at least one model.", name=spec.name)
    named = [(variant, model_name(spec, variant)) for variant in spec.variants]
    config: Document = {
        "EndpointConfigName": spec.name,
        "ProductionVariants": [_variant(variant, model) for variant, model in named],
    }
    return Plan(
        "endpoint",
        spec.name,
        (
            *(_model(model, variant.model, role_arn, spec.tags) for variant, model in named),
            Request("CreateEndpointConfig", _tagged(config, spec.tags)),
            Request(
                "CreateEndpoint",
                _tagged({"EndpointName": spec.name, "EndpointConfigName": spec.name}, spec.tags),
            ),
        ),
    )


def model_name(spec: EndpointSpec, variant: Variant) -> str:
    """The name of the model behind *variant*: the endpoint's, with the variant's where there are several."""
    if len(spec.variants) == 1:
        return spec.name
    return check_name("model", f"{spec.name}-{check_name('variant', variant.name)}")


def _model(name: str, model: ModelSpec, role_arn: str, tags: Mapping[str, str]) -> Request:
    container: Document = {"Image": model.image}
    if model.artifact_uri:
        split_uri(model.artifact_uri)
        container["ModelDataUrl"] = model.artifact_uri
    if model.environment or model.script:
        container["Environment"] = _serving_environment(model)
    document: Document = {
        "ModelName": name,
        "PrimaryContainer": container,
        "ExecutionRoleArn": model.role_arn or role_arn,
    }
    if model.network_isolation:
        document["EnableNetworkIsolation"] = True
    return Request("CreateModel", _tagged(document, tags))


def _hyperparameters(spec: TrainingSpec) -> Document:
    """As they are; for a framework image all in JSON, as its toolkit decodes them, with what says what to run."""
    own = _strings("hyperparameter", spec.hyperparameters)
    if spec.script is None:
        return own
    split_uri(spec.script.code_uri)
    toolkit = {
        "sagemaker_program": spec.script.program,
        "sagemaker_submit_directory": spec.script.code_uri,
        "sagemaker_container_log_level": 20,  # INFO
        "sagemaker_job_name": spec.name,
        "sagemaker_region": spec.script.region,
    }
    return {name: json.dumps(value) for name, value in (own | toolkit).items()}


def _serving_environment(model: ModelSpec) -> Document:
    own = _strings("environment variable", model.environment)
    if model.script is None:
        return own
    return {
        "SAGEMAKER_PROGRAM": model.script.program,
        "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
        "SAGEMAKER_CONTAINER_LOG_LEVEL": "20",
        "SAGEMAKER_REGION": model.script.region,
        **own,
    }


def _variant(variant: Variant, model: str) -> Document:
    return _present(
        VariantName=check_name("variant", variant.name),
        ModelName=model,
        InitialInstanceCount=variant.instance_count,
        InstanceType=variant.instance_type,
        InitialVariantWeight=variant.weight,
        ContainerStartupHealthCheckTimeoutInSeconds=variant.startup_timeout_seconds,
    )


def _channel(name: str, uri: str, content_type: str | None) -> Document:
    split_uri(uri, key_required=False)
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return _present(ChannelName=name, ContentType=content_type, DataSource={"S3DataSource": source})


def _data_processing(spec: TransformSpec) -> Document:
    return _present(
        InputFilter=None if spec.input_filter == "$" else spec.input_filter,
        OutputFilter=None if spec.output_filter == "$" else spec.output_filter,
        JoinSource="Input" if spec.join_input else None,
    )


def _present(**members: object) -> Document:
    return {name: value for name, value in members.items() if value is not None}


def _tagged(document: Document, tags: Mapping[str, str]) -> Document:
    if tags:
        document["Tags"] = [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
    return document


def _strings(what: str, values: Mapping[str, str]) -> dict[str, str]:
    for name, value in values.items():
        if not isinstance(value, str):
            raise InvalidSpec(f"{what} {name!r} is {value!r}; SageMaker takes strings only.", name=name)
    return dict(values)
