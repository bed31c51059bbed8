"""Models, endpoints and invocations under contract B."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from backends.engine.settings import ACCOUNT
from backends.sagemaker.readings import ServiceError
from tests.archives import archive
from tests.engine.conftest import ROLE, Stage, variant

MakeStage = Callable[..., Stage]
ARN = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}"


@pytest.fixture(scope="module")
def endpoint(stage: Stage) -> Iterator[str]:
    yield stage.deploy("Shared")
    stage.delete_endpoint("Shared")


def data_source(uri: str, **members: str) -> dict[str, Any]:
    """A container whose model is not a tar.gz."""
    source = {"S3Uri": uri, "S3DataType": "S3Prefix", "CompressionType": "None", **members}
    return {"Image": "probe", "ModelDataSource": {"S3DataSource": source}}


def model_error(stage: Stage, name: str, body: bytes) -> ServiceError:
    error = stage.refusal("InvokeEndpoint", EndpointName=name, Body=body)
    assert (error.code, error.status) == ("ModelError", 424)
    group = f"/aws/sagemaker/Endpoints/{name}"
    assert error.members["LogStreamArn"] == f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:{group}"
    assert f"logEventViewer:group={group} in account {ACCOUNT} for more information." in error.message
    return error


# Documents.


def test_a_model_is_described(stage: Stage) -> None:
    """Mode SingleModel is filled in, the ARN's name is lower-cased (B.3, F.3 1)."""
    stage.model("Described")
    model = stage.call("DescribeModel", ModelName="Described")
    assert model["ModelArn"] == f"{ARN}:model/described"
    assert model["PrimaryContainer"]["Mode"] == "SingleModel"
    assert (model["ExecutionRoleArn"], model["EnableNetworkIsolation"]) == (ROLE, False)
    again = stage.refusal("CreateModel", ModelName="Described", PrimaryContainer={"Image": "probe"})
    assert again.message == f'Cannot create already existing model "{ARN}:model/described".'
    stage.call("DeleteModel", ModelName="Described")
    for operation in ("DescribeModel", "DeleteModel"):
        error = stage.refusal(operation, ModelName="Described")
        assert (error.code, error.message) == ("ValidationException", f'Could not find model "{ARN}:model/described".')


@pytest.mark.parametrize(
    ("container", "text"),
    [
        (
            {"Image": "probe", "ModelDataUrl": "s3://bucket/none.tar.gz"},
            "Could not find model data at s3://bucket/none",
        ),
        ({"Image": "probe", "ModelDataUrl": "https://example.com/m.tar.gz"}, "Could not find model data at https://"),
        ({"Image": "probe", "ModelDataUrl": "file:///etc/passwd"}, "Could not find model data at file://"),
        ({"Image": "no-such"}, "Requested image no-such not found."),
        ({"Image": "probe", "Mode": "MultiModel"}, "one model per container"),
        ({}, "Value null at 'primaryContainer.image'"),
        (data_source("s3://bucket/none/"), "Could not find model data at s3://bucket/none/"),
        (data_source("s3://bucket/none", S3DataType="S3Object"), "Could not find model data at s3://bucket/none"),
        (data_source("s3://bucket/none"), "an S3Prefix ends with /"),
        (data_source("s3://bucket/none/", CompressionType="Gzip"), "goes with CompressionType None"),
        (data_source("s3://bucket/none/", S3DataType="File"), "enum value set: [S3Prefix, S3Object]"),
        (data_source("s3://bucket/none/") | {"ModelDataUrl": "s3://bucket/m.tar.gz"}, "exclude one another"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused(stage: Stage, container: dict[str, Any], text: str) -> None:
    """At CreateModel; only objects of the configured store are read (0.3, S14, F.3 4)."""
    assert text in stage.refusal("CreateModel", ModelName="never", PrimaryContainer=container).message


def test_several_containers_are_refused(stage: Stage) -> None:
    """By name, until they are carried out (B.8)."""
    container = {"Image": "probe"}
    for members in (
        {"Containers": [container, container]},
        {"PrimaryContainer": container, "InferenceExecutionConfig": {"Mode": "Direct"}},
    ):
        error = stage.refusal("CreateModel", ModelName="never", **members)
        assert (error.code, "does not carry out" in error.message) == ("ValidationException", True)


def test_an_endpoint_configuration_is_described(stage: Stage) -> None:
    """The weight of 1.0 is filled in; unknown models are refused (B.4)."""
    stage.model("for-config")
    stage.call("CreateEndpointConfig", EndpointConfigName="Config", ProductionVariants=[variant("for-config")])
    config = stage.call("DescribeEndpointConfig", EndpointConfigName="Config")
    assert config["ProductionVariants"][0]["InitialVariantWeight"] == 1.0
    again = stage.refusal(
        "CreateEndpointConfig", EndpointConfigName="Config", ProductionVariants=[variant("for-config")]
    )
    assert again.message == f'Cannot create already existing endpoint configuration "{ARN}:endpoint-config/config".'
    stage.call("DeleteEndpointConfig", EndpointConfigName="Config")
    gone = stage.refusal("DescribeEndpointConfig", EndpointConfigName="Config")
    assert gone.message == f'Could not find endpoint configuration "{ARN}:endpoint-config/config".'
    unknown = stage.refusal("CreateEndpointConfig", EndpointConfigName="Config", ProductionVariants=[variant("gone")])
    assert unknown.message == f'Could not find model "{ARN}:model/gone".'


@pytest.mark.parametrize(
    ("variants", "text"),
    [
        ([], "production variants"),
        ([variant("for-variants", "../../etc")], "at 'variantName'"),
        ([variant("for-variants", "a"), variant("for-variants", "A")], "a name of its own"),
        ([variant("for-variants", InitialVariantWeight=-1.0)], "greater than or equal to 0"),
        ([variant("for-variants", ContainerStartupHealthCheckTimeoutInSeconds=5)], "greater than or equal to 60"),
        ([variant("for-variants", ServerlessConfig={"MemorySizeInMB": 1024, "MaxConcurrency": 1})], "ServerlessConfig"),
    ],
)
def test_variants_that_cannot_be_are_refused(stage: Stage, variants: list[dict[str, object]], text: str) -> None:
    """A variant's name becomes a folder's, so it has to be a name."""
    if not [model for model in stage.engine.site.state.every("model") if model.name == "for-variants"]:
        stage.model("for-variants")
    error = stage.refusal("CreateEndpointConfig", EndpointConfigName="never", ProductionVariants=variants)
    assert text in error.message


def test_an_endpoint_is_described(stage: Stage, endpoint: str) -> None:
    """Weights, counts and images of its variants; names differ by more than case (0.2, B.5)."""
    described = stage.call("DescribeEndpoint", EndpointName=endpoint)
    assert described["EndpointArn"] == f"{ARN}:endpoint/shared"
    (summary,) = described["ProductionVariants"]
    assert (summary["CurrentWeight"], summary["DesiredInstanceCount"]) == (1.0, 1)
    assert summary["DeployedImages"][0]["SpecifiedImage"] == "probe"
    for name in (endpoint, endpoint.upper()):
        error = stage.refusal("CreateEndpoint", EndpointName=name, EndpointConfigName=endpoint)
        assert error.message == f'Cannot create already existing endpoint "{ARN}:endpoint/shared".'


def test_what_does_not_exist_is_not_found(stage: Stage) -> None:
    """Describe, Delete and the runtime, each in its own words (0.3, B.6, F.3 23)."""
    for operation in ("DescribeEndpoint", "DeleteEndpoint"):
        assert (
            stage.refusal(operation, EndpointName="gone").message == f'Could not find endpoint "{ARN}:endpoint/gone".'
        )
    error = stage.refusal("CreateEndpoint", EndpointName="gone", EndpointConfigName="gone")
    assert error.message == f'Could not find endpoint configuration "{ARN}:endpoint-config/gone".'
    error = stage.refusal("InvokeEndpoint", EndpointName="gone", Body=b"")
    assert (error.code, error.message) == ("ValidationError", f"Endpoint gone of account {ACCOUNT} not found.")


def test_operations_that_are_not_emulated_say_so(stage: Stage) -> None:
    """UnknownOperationException, with the operation's name."""
    error = stage.refusal("CreateNotebookInstance")
    assert error.code == "UnknownOperationException"
    assert "CreateNotebookInstance" in error.message


# The container.


def test_only_sagemakers_headers_reach_the_container(stage: Stage, endpoint: str) -> None:
    """What was sent arrives, what was not stays absent (B.2)."""
    bare = json.loads(stage.invoke(endpoint, b"headers")["Body"])
    assert not {"content-type", "accept"} & set(bare)
    full = stage.invoke(endpoint, b"headers", ContentType="text/x", Accept="a/b", CustomAttributes="c", InferenceId="i")
    sent = json.loads(full["Body"])
    assert (sent["content-type"], sent["accept"]) == ("text/x", "a/b")
    assert sent["x-amzn-sagemaker-custom-attributes"] == "c"
    assert sent["x-amzn-sagemaker-inference-id"] == "i"
    assert full["InvokedProductionVariant"] == "AllTraffic"


@pytest.mark.parametrize("value", ["a\r\nx: y", "ä", "a" * 1025, "\0"])
def test_headers_cannot_be_smuggled(stage: Stage, endpoint: str, value: str) -> None:
    """Visible ASCII only, at most 1024 characters."""
    error = stage.refusal("InvokeEndpoint", EndpointName=endpoint, Body=b"", ContentType=value)
    assert error.code == "ValidationError"


def test_the_containers_environment_is_clean(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's variables and the platform's; nothing of the user's, no file that describes the endpoint (B.1)."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "users-secret")
    monkeypatch.setenv("DATABASE_URL", "users-database")
    stage.model("env-model", {"MINE": "yes"})
    stage.call("CreateEndpointConfig", EndpointConfigName="env", ProductionVariants=[variant("env-model")])
    stage.call("CreateEndpoint", EndpointName="env", EndpointConfigName="env")
    stage.settled("env")
    seen = json.loads(stage.invoke("env", b"environment")["Body"])
    assert (seen["MINE"], seen["AWS_REGION"]) == ("yes", "us-east-1")
    assert "users" not in json.dumps(seen)
    assert not [name for name in seen if name.startswith(("TRAINING_", "SAGEMAKER_BATCH", "SM_"))]
    stage.delete_endpoint("env")


def test_the_model_folder_is_read_only(stage: Stage, endpoint: str) -> None:
    """/opt/ml/model has no write permission (B.1, F.3 18).

    The process runner cannot hold back root, or an owner who takes the permission again: only a container can. So the
    mode bits are what is checked.
    """
    folder = next(stage.home.glob(f"endpoint/{endpoint}@*/AllTraffic/ml/model"))
    assert all(not path.stat().st_mode & 0o222 for path in [folder, *folder.iterdir()])


@pytest.mark.parametrize(
    ("source", "members"),
    [
        ("s3://bucket/raw/whole/", {}),
        ("s3://bucket/raw/whole/model.txt", {"S3DataType": "S3Object"}),
        ("s3://bucket/raw/whole.tar.gz", {"S3DataType": "S3Object", "CompressionType": "Gzip"}),
    ],
)
def test_a_model_may_be_files(stage: Stage, source: str, members: dict[str, str]) -> None:
    """ModelDataSource: a prefix, one file, or an archive; a batch transform does not take it (B.3, C.1)."""
    stage.put("raw/whole/model.txt", b"as it is")
    stage.put("raw/whole/model.txt.old", b"another object")
    stage.put("raw/whole.tar.gz", archive({"model.txt": b"as it is"}))
    stage.call("CreateModel", ModelName="raw", PrimaryContainer=data_source(source, **members), ExecutionRoleArn=ROLE)
    stage.call("CreateEndpointConfig", EndpointConfigName="raw", ProductionVariants=[variant("raw")])
    stage.call("CreateEndpoint", EndpointName="raw", EndpointConfigName="raw")
    assert stage.settled("raw")["EndpointStatus"] == "InService"
    assert stage.invoke("raw", b"model")["Body"] == b"as it is"
    stage.put("batch/a", b"x\n")
    error = stage.refusal("CreateTransformJob", **stage.transform_request("raw", ModelName="raw"))
    assert error.message.startswith("SageMaker Batch currently doesn't support Model entity with container definitions")
    stage.delete_endpoint("raw")
    stage.call("DeleteEndpointConfig", EndpointConfigName="raw")
    stage.call("DeleteModel", ModelName="raw")


@pytest.mark.parametrize("key", ["folder/", "..", "a//b"])
def test_a_model_of_unusable_keys_fails_the_endpoint(stage: Stage, key: str) -> None:
    """Keys that cannot be files, and objects that stand for folders; the endpoint says which (B.3, S12)."""
    prefix = f"unusable-{len(key)}"
    stage.put(f"{prefix}/{key}", b"" if key.endswith("/") else b"x")
    stage.call("CreateModel", ModelName=prefix, PrimaryContainer=data_source(f"s3://bucket/{prefix}/"))
    stage.call("CreateEndpointConfig", EndpointConfigName=prefix, ProductionVariants=[variant(prefix)])
    stage.call("CreateEndpoint", EndpointName=prefix, EndpointConfigName=prefix)
    endpoint = stage.settled(prefix)
    assert endpoint["EndpointStatus"] == "Failed"
    assert f"s3://bucket/{prefix}/{key}" in endpoint["FailureReason"]
    stage.delete_endpoint(prefix)


# Health.


def test_a_ping_slower_than_the_limit_has_failed(make_stage: MakeStage) -> None:
    """The endpoint fails after the start-up limit, with AWS's sentence (B.1, F.3 19)."""
    stage = make_stage(ping_timeout_seconds=0.1, startup_timeout_seconds=0.7)
    stage.create_endpoint("sluggish", ping_delay=0.4)
    endpoint = stage.settled("sluggish")
    assert endpoint["EndpointStatus"] == "Failed"
    assert endpoint["FailureReason"].startswith(
        "The primary container for production variant AllTraffic did not pass the ping health check. "
        "Please check CloudWatch logs for this endpoint."
    )
    assert "no answer within 0.1 s" in endpoint["FailureReason"]


def test_a_container_that_ends_fails_the_endpoint_at_once(stage: Stage) -> None:
    """No waiting for the limit; its last words are in the reason; the name is free after a delete (B.5)."""
    began = time.monotonic()
    stage.create_endpoint("stillborn", exit=3)
    endpoint = stage.settled("stillborn")
    assert "exit code 3" in endpoint["FailureReason"]
    assert "told to exit" in endpoint["FailureReason"]
    assert time.monotonic() - began < 5
    assert "not found" in stage.refusal("InvokeEndpoint", EndpointName="stillborn", Body=b"").message
    stage.delete_endpoint("stillborn")
    stage.call("CreateEndpoint", EndpointName="stillborn", EndpointConfigName="stillborn")
    stage.settled("stillborn")
    stage.delete_endpoint("stillborn")


def test_an_endpoint_cannot_be_deleted_while_it_is_created(stage: Stage) -> None:
    """ValidationException, and the creation goes on (B.5, F.3 20)."""
    stage.create_endpoint("creating", ping_delay=0.3)
    error = stage.refusal("DeleteEndpoint", EndpointName="creating")
    assert error.message == f'Cannot update in-progress endpoint "{ARN}:endpoint/creating".'
    assert "not found" in stage.refusal("InvokeEndpoint", EndpointName="creating", Body=b"").message
    assert stage.settled("creating")["EndpointStatus"] == "InService"
    stage.delete_endpoint("creating")


def test_a_deleted_endpoint_leaves_nothing(stage: Stage) -> None:
    """Record, files, processes; Describe is then the ValidationException that waiters need (0.4, F.3 21)."""
    stage.deploy("brief")
    stage.call("DeleteEndpoint", EndpointName="brief")
    stage.until(lambda: stage.exists("brief"), lambda exists: not exists)
    assert not list(stage.home.glob("endpoint/brief@*"))


def test_a_container_that_dies_comes_back(stage: Stage) -> None:
    """Whoever asked it gets ModelError 0, requests to another endpoint are unharmed, it recovers by itself (S19)."""
    stage.deploy("mortal")
    stage.deploy("neighbour")
    failed: list[object] = []
    over = threading.Event()

    def ask_neighbour() -> None:
        while not over.is_set():
            if stage.engine.call("InvokeEndpoint", {"EndpointName": "neighbour", "Body": b"x"})["Body"] != b"X":
                failed.append("a wrong answer")

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask_neighbour)
        try:
            assert model_error(stage, "mortal", b"die").members["OriginalStatusCode"] == 0

            def answers() -> bool:
                try:
                    return bool(stage.invoke("mortal", b"back")["Body"] == b"BACK")
                except ServiceError as error:
                    if error.code != "ModelError":
                        raise
                    return False

            stage.until(answers, bool)
        finally:
            over.set()
        asking.result()
    assert failed == []
    assert stage.call("DescribeEndpoint", EndpointName="mortal")["EndpointStatus"] == "InService"
    stage.delete_endpoint("mortal")
    stage.delete_endpoint("neighbour")


def test_a_container_that_loses_its_pings_is_restarted(stage: Stage) -> None:
    """Three in a row; the new one is healthy (B.1)."""
    stage.deploy("sickly")
    stage.invoke("sickly", b"sick")
    before = stage.engine.site.state.find("endpoint", "sickly")
    assert before is not None

    def moved() -> bool:
        now = stage.engine.site.state.find("endpoint", "sickly")
        assert now is not None
        return now.facts["variants"][0].get("address") not in (None, before.facts["variants"][0]["address"])

    stage.until(moved, bool)
    assert stage.invoke("sickly", b"well")["Body"] == b"WELL"
    stage.delete_endpoint("sickly")


# Invocations.


@pytest.mark.parametrize(("status", "blame"), [(400, "client"), (404, "client"), (500, "server"), (503, "server")])
def test_an_error_of_the_container_is_a_model_error(stage: Stage, endpoint: str, status: int, blame: str) -> None:
    """424 with its status and its words, in AWS's sentence (B.6, F.3 22)."""
    error = model_error(stage, endpoint, f"status={status}".encode())
    assert error.message.startswith(f'Received {blame} error ({status}) from primary with message "told to fail". See ')
    assert (error.members["OriginalStatusCode"], error.members["OriginalMessage"]) == (status, "told to fail")


def test_a_model_slower_than_the_limit_times_out(stage: Stage, endpoint: str) -> None:
    """AWS's sentence and status 0; the endpoint goes on (B.6)."""
    error = model_error(stage, endpoint, b"sleep=5")
    assert error.members["OriginalStatusCode"] == 0
    assert "Your invocation timed out while waiting for a response from container primary." in error.message
    assert stage.invoke(endpoint, b"on")["Body"] == b"ON"


def test_an_answer_without_end_times_out(stage: Stage, endpoint: str) -> None:
    """The limit is for the whole answer, not for each byte of it."""
    began = time.monotonic()
    assert "timed out" in model_error(stage, endpoint, b"drip").message
    assert time.monotonic() - began < 4


def test_a_closed_connection_is_a_model_error(stage: Stage, endpoint: str) -> None:
    """And the request is sent once only."""
    assert "gave no answer" in model_error(stage, endpoint, b"close").message
    assert json.loads(stage.invoke(endpoint, b"tries")["Body"])["close"] == 1


def test_the_payload_limit(stage: Stage, endpoint: str) -> None:
    """25 MB pass, a byte more does not (B.1)."""
    limit = 25 * 1024 * 1024
    assert len(stage.invoke(endpoint, b"x" * limit)["Body"]) == limit
    assert stage.refusal("InvokeEndpoint", EndpointName=endpoint, Body=b"x" * (limit + 1)).code == "ValidationError"


def test_connections_of_the_dead_are_not_kept(stage: Stage) -> None:
    """An engine that lives long does not gather them."""
    stage.deploy("passing")
    stage.invoke("passing", b"x")
    stage.delete_endpoint("passing")
    stage.refusal("InvokeEndpoint", EndpointName="passing", Body=b"x")
    assert not [key for key in stage.engine._invoker()._exchanges if key[0] == "passing"]


def test_threads_share_an_endpoint(stage: Stage, endpoint: str) -> None:
    """Each gets its own answer."""
    with ThreadPoolExecutor(8) as pool:
        bodies = [f"text {number}".encode() for number in range(200)]
        answers = list(
            pool.map(lambda body: stage.engine.call("InvokeEndpoint", {"EndpointName": endpoint, "Body": body}), bodies)
        )
    assert [answer["Body"] for answer in answers] == [body.upper() for body in bodies]


def test_one_variant_of_two_may_fail(stage: Stage) -> None:
    """Then the endpoint does, naming the variant, and nothing of the other stays behind."""
    stage.model("good")
    stage.model("bad", exit=2)
    stage.call(
        "CreateEndpointConfig",
        EndpointConfigName="mixed",
        ProductionVariants=[variant("good", "Good"), variant("bad", "Bad", InitialVariantWeight=0.0)],
    )
    stage.call("CreateEndpoint", EndpointName="mixed", EndpointConfigName="mixed")
    assert "production variant Bad" in stage.settled("mixed")["FailureReason"]
    stage.delete_endpoint("mixed")


def test_a_variant_without_weight_answers_only_by_name(stage: Stage) -> None:
    """TargetVariant overrides the weights; an unknown one is ValidationError (B.4, F.3 24)."""
    stage.model("heavy")
    stage.model("weightless")
    variants = [variant("heavy", "Heavy"), variant("weightless", "Weightless", InitialVariantWeight=0.0)]
    stage.call("CreateEndpointConfig", EndpointConfigName="scales", ProductionVariants=variants)
    stage.call("CreateEndpoint", EndpointName="scales", EndpointConfigName="scales")
    stage.settled("scales")
    assert {stage.invoke("scales", b"x")["InvokedProductionVariant"] for _ in range(40)} == {"Heavy"}
    named = stage.invoke("scales", b"x", TargetVariant="Weightless")
    assert named["InvokedProductionVariant"] == "Weightless"
    assert (
        stage.refusal("InvokeEndpoint", EndpointName="scales", Body=b"", TargetVariant="No").code == "ValidationError"
    )
    stage.delete_endpoint("scales")
