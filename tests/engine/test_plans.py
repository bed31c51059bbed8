"""The requests that a spec becomes are what SageMaker takes; its responses and errors become ours."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from backends.errors import AlreadyExists, BackendError, Conflict, InvalidSpec, ModelError, NotFound, Throttled
from backends.sagemaker import plans, readings
from backends.sagemaker.readings import ServiceError
from backends.specs import (
    Canary,
    Channel,
    EndpointSpec,
    EndpointState,
    JobState,
    ModelSpec,
    Plan,
    Scaling,
    Script,
    Serverless,
    Split,
    Strategy,
    TrainingSpec,
    TransformSpec,
    Variant,
)
from tests.engine.shapes import request_problems, service

ROLE = "arn:aws:iam::000000000000:role/test"

names = some.from_regex(r"[a-zA-Z0-9](-?[a-zA-Z0-9]){0,20}", fullmatch=True)
texts = some.dictionaries(
    some.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,20}", fullmatch=True), some.text(max_size=40), max_size=3
)
tags = some.dictionaries(names, names, max_size=3)
uris = some.builds("s3://bucket/{}".format, names)
images = some.sampled_from(["probe", "probe:1", "1.dkr.ecr.us-east-1.amazonaws.com/x:y"])
scripts = some.none() | some.builds(Script, program=names, code_uri=uris, region=some.just("eu-west-1"))
models = some.builds(
    ModelSpec,
    image=images,
    artifact_uri=some.none() | uris,
    script=scripts,
    environment=texts,
    network_isolation=some.booleans(),
)
trainings = some.builds(
    TrainingSpec,
    name=names,
    image=images,
    output_uri=uris,
    channels=some.lists(some.builds(Channel, name=names, uri=uris, content_type=some.none() | names), max_size=3).map(
        tuple
    ),
    hyperparameters=texts,
    environment=texts,
    metrics=some.dictionaries(names, some.just("loss=(.*)"), max_size=2),
    entrypoint=some.lists(names, max_size=2).map(tuple),
    arguments=some.lists(names, max_size=2).map(tuple),
    script=scripts,
    checkpoint_uri=some.none() | uris,
    max_spot_seconds=some.none() | some.integers(86_400, 2_592_000),
    network_isolation=some.booleans(),
    tags=tags,
)
transforms = some.builds(
    TransformSpec,
    name=names,
    model=models,
    input_uri=uris,
    output_uri=uris,
    content_type=some.none() | some.just("text/csv"),
    accept=some.none() | some.just("text/csv"),
    split=some.sampled_from(Split),
    assemble=some.sampled_from(Split),
    strategy=some.none() | some.sampled_from(Strategy),
    max_payload_mb=some.none() | some.integers(0, 100),
    max_concurrency=some.none() | some.integers(0, 100),
    gzip_input=some.booleans(),
    input_filter=some.sampled_from(["$", "$[0]"]),
    join_input=some.booleans(),
    environment=texts,
    invocation_timeout_seconds=some.none() | some.integers(1, 3600),
    invocation_retries=some.none() | some.integers(0, 3),
    tags=tags,
)
variants = some.lists(
    some.builds(
        Variant,
        model=models,
        name=names,
        weight=some.floats(0, 10),
        instance_count=some.integers(2, 3),
        startup_timeout_seconds=some.none() | some.integers(60, 3600),
    ),
    min_size=1,
    max_size=3,
).map(tuple)


def problems(plan: Plan) -> list[str]:
    return [line for request in plan.requests for line in request_problems(request.operation, dict(request.document))]


@settings(max_examples=30, deadline=None)
@given(trainings)
def test_training_plans_are_valid(spec: TrainingSpec) -> None:
    """Held against botocore's service model: members, types, enums, patterns."""
    assert problems(plans.training_plan(spec, role_arn=ROLE)) == []


@settings(max_examples=30, deadline=None)
@given(transforms)
def test_transform_plans_are_valid(spec: TransformSpec) -> None:
    """As above; the model carries the job's name."""
    plan = plans.transform_plan(spec, role_arn=ROLE)
    assert problems(plan) == []
    assert [request.operation for request in plan.requests] == ["CreateModel", "CreateTransformJob"]


@settings(max_examples=30, deadline=None)
@given(names, variants, tags, some.none() | some.builds(Canary))
def test_endpoint_plans_are_valid(
    name: str, several: tuple[Variant, ...], tagged: dict[str, str], canary: Canary | None
) -> None:
    """As above, whether the endpoint is made or changed."""
    spec = EndpointSpec(name=name, variants=several, tags=tagged, canary=canary)
    for plan in (plans.endpoint_plan(spec, role_arn=ROLE), plans.update_plan(spec, role_arn=ROLE)):
        assert problems(plan) == []


@settings(max_examples=30, deadline=None)
@given(
    names,
    models.filter(lambda model: not model.network_isolation),
    some.integers(1, 6),
    some.integers(1, 200),
    some.booleans(),
)
def test_serverless_plans_are_valid(name: str, model: ModelSpec, gib: int, most: int, warm: bool) -> None:  # noqa: FBT001
    """As above; nothing is said of instances."""
    serverless = Serverless(
        memory_mb=1024 * gib, max_concurrency=most, provisioned_concurrency=max(1, most // 2) if warm else None
    )
    plan = plans.endpoint_plan(
        EndpointSpec(name=name, variants=(Variant(model=model, serverless=serverless),)), role_arn=ROLE
    )
    assert problems(plan) == []
    variants: Any = plan.requests[1].document["ProductionVariants"]
    assert variants[0].keys() == {"VariantName", "ModelName", "ServerlessConfig", "InitialVariantWeight"}


PLAIN = Variant(model=ModelSpec(image="i"), instance_count=2)


def planned(**members: Any) -> list[dict[str, Any]]:
    """The documents of an endpoint of one variant with *members*."""
    spec = EndpointSpec(name="endpoint", variants=(replace(PLAIN, **members),))
    return [dict(request.document) for request in plans.endpoint_plan(spec, role_arn=ROLE).requests]


def test_what_differs_has_another_name() -> None:
    """A changed capacity: another configuration of the same model; a changed model: both. Tags change neither."""
    model, config, _ = planned()
    same_model, other_config, _ = planned(instance_count=3)
    other_model, third_config, endpoint = planned(model=ModelSpec(image="other"))
    assert model == same_model
    assert len({model["ModelName"], other_model["ModelName"]}) == 2
    assert len({each["EndpointConfigName"] for each in (config, other_config, third_config)}) == 3
    assert endpoint["EndpointConfigName"] == third_config["EndpointConfigName"]
    spec = EndpointSpec(name="endpoint", variants=(PLAIN,), tags={"a": "b"})
    assert plans.config_name(spec, role_arn=ROLE) == config["EndpointConfigName"]
    assert plans.names_made_for("endpoint").fullmatch(model["ModelName"])
    assert not plans.names_made_for("end").fullmatch(model["ModelName"])


def test_variants_of_one_model_share_it() -> None:
    """It is created once."""
    spec = EndpointSpec(name="endpoint", variants=(PLAIN, replace(PLAIN, name="Second")))
    operations = [request.operation for request in plans.endpoint_plan(spec, role_arn=ROLE).requests]
    assert operations == ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"]


def test_names_fit_however_long_the_endpoints_is() -> None:
    """Of 63 characters 52 are the endpoint's; names made so are recognised."""
    spec = EndpointSpec(name="e" * 63, variants=(PLAIN,))
    plan = plans.endpoint_plan(spec, role_arn=ROLE)
    assert problems(plan) == []
    assert plans.names_made_for(spec.name).fullmatch(plans.config_name(spec, role_arn=ROLE))


def test_an_update_says_how_the_traffic_moves() -> None:
    """A canary is a share for a time; scaled variants keep the number of instances that they have."""
    canary = Canary(percent=20, wait_seconds=60)
    spec = EndpointSpec(name="endpoint", variants=(PLAIN,), canary=canary)
    update = plans.update_plan(spec, role_arn=ROLE).requests[-1]
    assert update.operation == "UpdateEndpoint"
    assert update.document["DeploymentConfig"] == {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {
                "Type": "CANARY",
                "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 20},
                "WaitIntervalInSeconds": 60,
            }
        }
    }
    scaled = replace(PLAIN, scaling=Scaling(min_instances=2, max_instances=4))
    update = plans.update_plan(EndpointSpec(name="endpoint", variants=(scaled,)), role_arn=ROLE).requests[-1]
    assert update.document["RetainAllVariantProperties"] is True
    assert update.document["ExcludeRetainedVariantProperties"] == [{"VariantPropertyType": "DesiredWeight"}]
    assert "DeploymentConfig" not in update.document


@pytest.mark.parametrize(
    ("variant", "canary", "said"),
    [
        ({"serverless": Serverless(memory_mb=1000)}, None, "1024, 2048"),
        ({"serverless": Serverless(memory_mb=7168)}, None, "1024, 2048"),
        ({"serverless": Serverless(max_concurrency=0)}, None, "1 to 200"),
        ({"serverless": Serverless(max_concurrency=201)}, None, "1 to 200"),
        ({"serverless": Serverless(max_concurrency=2, provisioned_concurrency=3)}, None, "1 to 2"),
        ({"serverless": Serverless(), "model": ModelSpec(image="i", network_isolation=True)}, None, "isolation"),
        ({"serverless": Serverless(), "scaling": Scaling(min_instances=1, max_instances=2)}, None, "instances"),
        ({"serverless": Serverless()}, Canary(), "at once"),
        ({"scaling": Scaling(min_instances=0, max_instances=2)}, None, "1 instance or more"),
        ({"scaling": Scaling(min_instances=3, max_instances=2)}, None, "upwards"),
        ({"instance_count": 1}, Canary(), "two or more"),
        ({}, Canary(percent=51), "1 to 50"),
        ({}, Canary(wait_seconds=3601), "3600"),
    ],
)
def test_what_no_endpoint_can_be_is_refused(variant: dict[str, Any], canary: Canary | None, said: str) -> None:
    """Contract B.4 and the documentation of deployment guardrails; the text says what could be."""
    spec = EndpointSpec(name="endpoint", variants=(replace(PLAIN, **variant),), canary=canary)
    with pytest.raises(InvalidSpec, match=said):
        plans.update_plan(spec, role_arn=ROLE)


def test_a_serverless_variant_is_alone() -> None:
    """Contract B.4."""
    several = (replace(PLAIN, serverless=Serverless()), replace(PLAIN, name="Second"))
    with pytest.raises(InvalidSpec, match="only one"):
        plans.endpoint_plan(EndpointSpec(name="endpoint", variants=several), role_arn=ROLE)


def test_defaults_are_left_out() -> None:
    """A plan says only what was meant."""
    plain = TrainingSpec(name="n", image="probe", output_uri="s3://bucket/o")
    (request,) = plans.training_plan(plain, role_arn=ROLE).requests
    assert set(request.document) == {
        "TrainingJobName",
        "AlgorithmSpecification",
        "RoleArn",
        "OutputDataConfig",
        "ResourceConfig",
        "StoppingCondition",
    }


@pytest.mark.parametrize(
    "make",
    [
        lambda: plans.training_plan(TrainingSpec(name="n", image="i", output_uri="/tmp/x"), role_arn=ROLE),
        lambda: plans.training_plan(
            TrainingSpec(name="n", image="i", output_uri="s3://bucket", hyperparameters={"x": 1}),  # type: ignore[dict-item]
            role_arn=ROLE,
        ),
        lambda: plans.endpoint_plan(EndpointSpec(name="n", variants=()), role_arn=ROLE),
        lambda: plans.endpoint_plan(
            EndpointSpec(name="n", variants=(Variant(model=ModelSpec(image="i", artifact_uri="http://x")),)),
            role_arn=ROLE,
        ),
    ],
)
def test_what_can_never_be_carried_out_is_no_plan(make: Callable[[], Plan]) -> None:
    """InvalidSpec, before anything is sent."""
    with pytest.raises(InvalidSpec):
        make()


def test_a_script_is_asked_for_as_the_sdk_does() -> None:
    """Training: every hyperparameter in JSON, beside the toolkit's own. Serving: from the model's archive."""
    script = Script(program="script.py", code_uri="s3://bucket/code/sourcedir.tar.gz", region="eu-west-1")
    spec = TrainingSpec(name="job", image="probe", output_uri="s3://bucket", script=script, hyperparameters={"c": "1"})
    (request,) = plans.training_plan(spec, role_arn=ROLE).requests
    assert request.document["HyperParameters"] == {
        "c": '"1"',
        "sagemaker_program": '"script.py"',
        "sagemaker_submit_directory": '"s3://bucket/code/sourcedir.tar.gz"',
        "sagemaker_container_log_level": "20",
        "sagemaker_job_name": '"job"',
        "sagemaker_region": '"eu-west-1"',
    }
    model = ModelSpec(image="probe", script=script, environment={"SAGEMAKER_CONTAINER_LOG_LEVEL": "10"})
    endpoint = EndpointSpec(name="e", variants=(Variant(model=model),))
    container: Any = plans.endpoint_plan(endpoint, role_arn=ROLE).requests[0].document["PrimaryContainer"]
    assert container["Environment"] == {
        "SAGEMAKER_PROGRAM": "script.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
        "SAGEMAKER_CONTAINER_LOG_LEVEL": "10",
        "SAGEMAKER_REGION": "eu-west-1",
    }


def test_spare_capacity_is_asked_for_with_its_limit() -> None:
    """And the checkpoints that make it worth while."""
    spec = TrainingSpec(
        name="job",
        image="probe",
        output_uri="s3://bucket",
        max_runtime_seconds=60,
        max_spot_seconds=90,
        checkpoint_uri="s3://bucket/kept",
    )
    (request,) = plans.training_plan(spec, role_arn=ROLE).requests
    assert request.document["EnableManagedSpotTraining"] is True
    assert request.document["StoppingCondition"] == {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 90}
    assert request.document["CheckpointConfig"] == {"S3Uri": "s3://bucket/kept"}


def test_roles_of_the_spec_win() -> None:
    """The backend's role is for specs without one."""
    own = "arn:aws:iam::000000000000:role/own"
    spec = TrainingSpec(name="n", image="i", output_uri="s3://bucket")
    for wanted, role in ((spec, ROLE), (replace(spec, role_arn=own), own)):
        assert plans.training_plan(wanted, role_arn=ROLE).requests[0].document["RoleArn"] == role


@pytest.mark.parametrize(
    ("shape", "table", "enum"),
    [
        ("TrainingJobStatus", readings.JOB_STATES, JobState),
        ("TransformJobStatus", readings.JOB_STATES, JobState),
        ("EndpointStatus", readings.ENDPOINT_STATES, EndpointState),
    ],
)
def test_every_native_state_is_known(shape: str, table: dict[str, Any], enum: Any) -> None:
    """What the service model can say has a word of ours."""
    native = service("sagemaker").shape_for(shape).enum  # type: ignore[attr-defined]  # botocore's StringShape
    assert set(native) <= set(table)
    assert set(table.values()) <= set(enum)


def test_an_unknown_state_is_an_error() -> None:
    """Never a silent "unknown"."""
    document = {"EndpointName": "e", "EndpointStatus": "Melting", "CreationTime": 0.0}
    with pytest.raises(BackendError, match="Melting"):
        readings.endpoint_status(document)


@pytest.mark.parametrize(
    ("code", "message", "ours"),
    [
        ("ValidationException", "Requested resource not found.", NotFound),
        ("ValidationException", "Could not find requested job with name: x", NotFound),
        ("ValidationException", "Could not find job to update with name x", NotFound),
        ("ValidationException", 'Could not find endpoint "arn".', NotFound),
        ("ValidationException", 'Could not find endpoint configuration "arn".', NotFound),
        ("ValidationException", 'Could not find model "arn".', NotFound),
        ("ValidationException", "Could not find model data at s3://x", InvalidSpec),
        ("ResourceNotFound", "whatever", NotFound),
        ("ValidationError", "Endpoint x of account 1 not found.", NotFound),
        ("ValidationError", "Variant x not found for endpoint y (known: z).", InvalidSpec),
        ("ResourceInUse", "whatever", AlreadyExists),
        ("ValidationException", 'Cannot create already existing model "arn".', AlreadyExists),
        ("ValidationException", "The request was rejected because the training job is in status Completed.", Conflict),
        ("ValidationException", 'Cannot update in-progress endpoint "arn".', Conflict),
        ("ValidationException", "1 validation error detected: …", InvalidSpec),
        ("ThrottlingException", "Rate exceeded", Throttled),
        ("InternalFailure", "whatever", BackendError),
    ],
)
def test_errors_are_restated(code: str, message: str, ours: type[BackendError]) -> None:
    """By code and text, for SageMaker's code alone does not say (0.3)."""
    error = readings.restated(ServiceError(code, message), kind="endpoint", name="x", place="here")
    assert type(error) is ours
    assert message in str(error)
    assert "here" in str(error)


def test_model_errors_keep_what_the_container_said() -> None:
    """Status and words."""
    native = ServiceError("ModelError", "text", status=424, OriginalStatusCode=503, OriginalMessage="busy")
    error = readings.restated(native, kind="endpoint", name="x", place="here")
    assert isinstance(error, ModelError)
    assert (error.status, error.reason) == (503, "busy")
