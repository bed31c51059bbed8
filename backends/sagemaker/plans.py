"""Spec → the exact SageMaker request documents. Pure: no network, no clock, no disk.

What is not asked for is left out, so that the platform's own defaults apply and a diff of two plans shows
only what was meant. Source: the SageMaker API reference of each operation named here.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from backends.errors import InvalidSpec
from backends.naming import LONGEST_NAME_CHARS, check_name, split_uri
from backends.specs import (
    Canary,
    EndpointSpec,
    ModelSpec,
    Plan,
    Request,
    Serverless,
    Split,
    TrainingSpec,
    TransformSpec,
    Variant,
)

Document = dict[str, Any]

_DIGEST_CHARS = 10
# So much of an endpoint's name is in those of its models and configurations.
STEM_CHARS = LONGEST_NAME_CHARS - 1 - _DIGEST_CHARS
_MEMORY_SIZES_MB = range(1024, 6145, 1024)
_MOST_AT_ONCE = 200
_LARGEST_CANARY_PERCENT = 50
_LONGEST_WAIT_SECONDS = 3600


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
            Request("CreateModel", _tagged({"ModelName": spec.name, **_model(spec.model, role_arn)}, spec.tags)),
            Request("CreateTransformJob", _tagged(document, spec.tags)),
        ),
    )


def endpoint_plan(spec: EndpointSpec, *, role_arn: str) -> Plan:
    """One CreateModel for each model, one CreateEndpointConfig and one CreateEndpoint.

    Models and configuration are named after the endpoint and a digest of what they say: a change has names of its
    own, and what is the same is found to be there.
    """
    members = {"EndpointName": spec.name, "EndpointConfigName": config_name(spec, role_arn=role_arn)}
    create = Request("CreateEndpoint", _tagged(members, spec.tags))
    return Plan("endpoint", spec.name, (*_configuration(spec, role_arn), create))


def update_plan(spec: EndpointSpec, *, role_arn: str) -> Plan:
    """As :func:`endpoint_plan`, with one UpdateEndpoint at the end. Autoscaled variants keep their present number."""
    members: Document = {"EndpointName": spec.name, "EndpointConfigName": config_name(spec, role_arn=role_arn)}
    if any(variant.scaling for variant in spec.variants):
        members["RetainAllVariantProperties"] = True
        members["ExcludeRetainedVariantProperties"] = [{"VariantPropertyType": "DesiredWeight"}]
    if spec.canary:
        members["DeploymentConfig"] = _deployment(spec.canary)
    return Plan("endpoint", spec.name, (*_configuration(spec, role_arn), Request("UpdateEndpoint", members)))


def config_name(spec: EndpointSpec, *, role_arn: str) -> str:
    """The name of the configuration that serves *spec*, and nothing else."""
    return str(_configuration(spec, role_arn)[-1].document["EndpointConfigName"])


def names_made_for(endpoint: str) -> re.Pattern[str]:
    """What the configurations and models of *endpoint* are called; earlier versions gave them its own name."""
    return re.compile(rf"{re.escape(endpoint)}|{re.escape(endpoint[:STEM_CHARS])}-[0-9a-f]{{{_DIGEST_CHARS}}}")


def check_endpoint(spec: EndpointSpec) -> None:
    """Refuse what SageMaker can never serve (contract B.4). Raises InvalidSpec."""
    check_name("endpoint", spec.name)
    if not spec.variants:
        raise InvalidSpec(f"endpoint {spec.name!r} has no variant; give it at least one model.", name=spec.name)
    for variant in spec.variants:
        check_name("variant", variant.name)
        if variant.serverless:
            _check_serverless(spec, variant, variant.serverless)
        if variant.scaling and not 1 <= variant.scaling.min_instances <= variant.scaling.max_instances:
            raise _refusal(spec, f"variant {variant.name!r} scales from 1 instance or more upwards")
    if spec.canary:
        _check_canary(spec, spec.canary)


def _check_serverless(spec: EndpointSpec, variant: Variant, serverless: Serverless) -> None:
    warm = serverless.provisioned_concurrency
    if serverless.memory_mb not in _MEMORY_SIZES_MB:
        raise _refusal(spec, f"memory is {', '.join(map(str, _MEMORY_SIZES_MB))} MB, not {serverless.memory_mb}")
    if not 1 <= serverless.max_concurrency <= _MOST_AT_ONCE:
        raise _refusal(spec, f"concurrency is 1 to {_MOST_AT_ONCE}, not {serverless.max_concurrency}")
    if warm is not None and not 1 <= warm <= serverless.max_concurrency:
        raise _refusal(spec, f"provisioned concurrency is 1 to {serverless.max_concurrency}, the most at once")
    if len(spec.variants) > 1:
        raise _refusal(spec, "a serverless variant is the only one of its endpoint")
    if variant.model.network_isolation or variant.scaling:
        raise _refusal(spec, "a serverless variant knows neither network isolation nor a number of instances")


def _check_canary(spec: EndpointSpec, canary: Canary) -> None:
    if not (1 <= canary.percent <= _LARGEST_CANARY_PERCENT and 0 <= canary.wait_seconds <= _LONGEST_WAIT_SECONDS):
        raise _refusal(spec, f"a canary gets 1 to 50 percent for at most {_LONGEST_WAIT_SECONDS} seconds")
    if any(variant.serverless for variant in spec.variants):
        raise _refusal(spec, "a serverless variant changes at once, without a canary")
    if any(variant.instance_count < 2 for variant in spec.variants):
        raise _refusal(spec, "a canary is at most half of a variant's instances; give it two or more")


def _refusal(spec: EndpointSpec, what: str) -> InvalidSpec:
    return InvalidSpec(f"endpoint {spec.name!r}: {what}.", kind="endpoint", name=spec.name)


def _configuration(spec: EndpointSpec, role_arn: str) -> list[Request]:
    """CreateModel for each model that differs, and CreateEndpointConfig."""
    check_endpoint(spec)
    models, variants = {}, []
    for variant in spec.variants:
        document = _model(variant.model, role_arn)
        name = _digested(spec.name, document)
        models[name] = Request("CreateModel", _tagged({"ModelName": name, **document}, spec.tags))
        variants.append(_variant(variant, name))
    config: Document = {"EndpointConfigName": _digested(spec.name, variants), "ProductionVariants": variants}
    return [*models.values(), Request("CreateEndpointConfig", _tagged(config, spec.tags))]


def _digested(endpoint: str, what: object) -> str:
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    return f"{endpoint[:STEM_CHARS]}-{digest[:_DIGEST_CHARS]}"


def _model(model: ModelSpec, role_arn: str) -> Document:
    container: Document = {"Image": model.image}
    if model.artifact_uri:
        split_uri(model.artifact_uri)
        container["ModelDataUrl"] = model.artifact_uri
    if model.environment or model.script:
        container["Environment"] = _serving_environment(model)
    document: Document = {"PrimaryContainer": container, "ExecutionRoleArn": model.role_arn or role_arn}
    if model.network_isolation:
        document["EnableNetworkIsolation"] = True
    return document


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
    document: Document = {"VariantName": variant.name, "ModelName": model}
    if variant.serverless:
        document["ServerlessConfig"] = _present(
            MemorySizeInMB=variant.serverless.memory_mb,
            MaxConcurrency=variant.serverless.max_concurrency,
            ProvisionedConcurrency=variant.serverless.provisioned_concurrency,
        )
    else:
        document |= {"InitialInstanceCount": variant.instance_count, "InstanceType": variant.instance_type}
    return document | _present(
        InitialVariantWeight=variant.weight,
        ContainerStartupHealthCheckTimeoutInSeconds=variant.startup_timeout_seconds,
    )


def _deployment(canary: Canary) -> Document:
    routing = {
        "Type": "CANARY",
        "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": canary.percent},
        "WaitIntervalInSeconds": canary.wait_seconds,
    }
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}


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
