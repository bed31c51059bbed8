"""What every request passes: the door, the limit, faults, the upstream server, the log."""

import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from backends.config import BackendConfig
from backends.emulator.app import create_app
from backends.emulator.door import Door
from backends.emulator.faults import Fault, load_faults
from backends.emulator.upstream import Upstream
from backends.engine import Engine
from backends.errors import InvalidSpec
from backends.local.backend import engine_settings
from tests.emulator import serving
from tests.wire.conftest import client


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine in which nothing runs."""
    engine = Engine(engine_settings(BackendConfig(home=tmp_path_factory.mktemp("chain") / "home")))
    yield engine
    engine.close()


def status(url: str, path: str, *, method: str = "GET", body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    """The answer to a request by hand."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    connection.request(method, path, body=body, headers=headers)
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def test_health(engine: Engine) -> None:
    """One word for whoever waits for the server."""
    with serving(create_app(engine)) as url:
        assert status(url, "/healthz") == (200, b'{"status":"ok"}')


@pytest.mark.parametrize(
    ("headers", "method", "code"),
    [
        ({"Host": "attacker.example"}, "GET", 403),
        ({"Host": "attacker.example:4566"}, "POST", 403),
        ({"Host": "127.0.0.1.attacker.example"}, "POST", 403),
        ({"Host": "["}, "POST", 403),
        ({"Origin": "https://attacker.example"}, "POST", 403),
        ({"Origin": "null"}, "POST", 403),
        ({"Origin": "https://attacker.example"}, "PUT", 403),
        ({"Host": "localhost"}, "POST", 200),
        ({"Host": "bucket.localhost:4566"}, "POST", 200),
        ({"Host": "[::1]:4566"}, "POST", 200),
        ({"Origin": "http://localhost:3000"}, "POST", 200),
    ],
)
def test_only_this_machines_own_are_heard(engine: Engine, headers: dict[str, str], method: str, code: int) -> None:
    """Neither a page that rebound its name to this machine nor one that writes across sites."""
    target = {"X-Amz-Target": "SageMaker.ListModels", "Content-Type": "application/x-amz-json-1.1"}
    with serving(create_app(engine)) as url:
        got, body = status(url, "/", method=method, body=b"{}", **target, **headers)
    assert got == code
    assert (b"AccessDeniedException" in body) is (code == 403)


def test_served_beyond_loopback_changes_need_the_token(engine: Engine) -> None:
    """Its own name is answered, a third one is not; a stranger may look, and change nothing."""
    name = socket.gethostname()
    signed = "AWS4-HMAC-SHA256 Credential={}/20260101/us-east-1/sagemaker/aws4_request, Signature=0"

    def ask(url: str, operation: str, key: str, host: str = name) -> int:
        headers = {"X-Amz-Target": f"SageMaker.{operation}", "Authorization": signed.format(key), "Host": host}
        return status(url, "/", method="POST", body=b'{"ModelName": "x"}', **headers)[0]

    with serving(create_app(engine, door=Door(name, "let-me-in"))) as url:
        assert ask(url, "ListModels", "test") == 200
        assert ask(url, "ListModels", "test", "attacker.example") == 403
        assert (ask(url, "DeleteModel", "test"), ask(url, "DeleteModel", "let-me-in")) == (403, 400)
        assert status(url, "/bucket", method="PUT", Host=name)[0] == 403
    with serving(create_app(engine, door=Door(name))) as url:
        assert ask(url, "DeleteModel", "") == 403


def test_too_many_at_once_are_told_to_slow_down(engine: Engine) -> None:
    """AWS's throttling answer, which boto3's retries outlast; nothing crashes."""
    slow = Fault(operation="sagemaker:ListModels", latency_ms=300)
    with serving(create_app(engine, faults=[slow], most_at_once=2)) as url:
        for attempts, expected in ((1, {None, "ThrottlingException"}), (8, {None})):
            sagemaker = client("sagemaker", url, attempts=attempts)
            with ThreadPoolExecutor(6) as pool:
                errors = [error["Code"] if error else None for error in pool.map(refusal, [sagemaker] * 6)]
            assert set(errors) == expected, attempts


def test_a_fault_has_awss_shape_and_a_rate(engine: Engine, tmp_path: Path) -> None:
    """Error code, text and status as written; other operations go on; a retry can succeed."""
    file = tmp_path / "faults.toml"
    file.write_text(
        '[[fault]]\noperation = "sagemaker:ListModels"\nerror = "ThrottlingException"\nmessage = "Rate exceeded"\n'
        'rate = 0.5\n[[fault]]\noperation = "sts:*"\nerror = "ServiceUnavailable"\nstatus = 503\n'
    )
    with serving(create_app(engine, faults=load_faults(file))) as url:
        sagemaker = client("sagemaker", url)
        met = [error for error in (refusal(sagemaker) for _ in range(60)) if error]
        assert 10 < len(met) < 50
        assert met[0] == {"Code": "ThrottlingException", "Message": "Rate exceeded"}
        assert sagemaker.list_endpoints()["Endpoints"] == []
        with pytest.raises(ClientError) as caught:
            client("sts", url).get_caller_identity()
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        assert client("sagemaker", url, attempts=10).list_models()["Models"] == []


def refusal(sagemaker: Any) -> dict[str, str] | None:
    """The error of one call, or None."""
    try:
        sagemaker.list_models()
    except ClientError as exc:
        error: Any = exc.response["Error"]
        return dict(error)
    return None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[fault", "cannot read"),
        ("[[fault]]\noperation = 'x y'", "fault.0.operation"),
        ("[[fault]]\noperation = '*'\nrate = 2", "fault.0.rate"),
        ("[[fault]]\noperation = '*'\nlatency = 2", "fault.0.latency"),
        ("", "fault: Field required"),
    ],
)
def test_wrong_faults_are_refused(tmp_path: Path, text: str, said: str) -> None:
    """The text names the file and the place in it."""
    file = tmp_path / "faults.toml"
    file.write_text(text)
    with pytest.raises(InvalidSpec, match=said) as caught:
        load_faults(file)
    assert str(file) in str(caught.value)


def test_the_rest_goes_upstream(engine: Engine, moto: str) -> None:
    """Another service, and operations of ours that are not emulated, are asked of the other server."""
    with serving(create_app(engine, upstream=Upstream(moto))) as url:
        sqs = client("sqs", url)
        made = sqs.create_queue(QueueName="a queue is elsewhere".replace(" ", "-"))["QueueUrl"]
        assert made.endswith("a-queue-is-elsewhere")
        iam = client("iam", url)
        iam.create_role(RoleName="made", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17"}))
        assert [role["RoleName"] for role in iam.list_roles()["Roles"]] == ["made"]
        assert client("sagemaker", url).list_models()["Models"] == []


def test_an_upstream_that_does_not_answer_is_said_so(engine: Engine) -> None:
    """Which server was asked, and what to do."""
    app = create_app(engine, upstream=Upstream("http://127.0.0.1:1"))
    with serving(app) as url, pytest.raises(ClientError, match=r"http://127\.0\.0\.1:1 does not answer"):
        client("sqs", url).list_queues()


def test_each_request_is_one_line_of_the_log(engine: Engine) -> None:
    """As JSON, with the request id that the client has; credentials are not in it."""
    log: list[str] = []
    with serving(create_app(engine, access_log=log.append)) as url:
        response = client("sagemaker", url).list_models()
        with pytest.raises(ClientError) as caught:
            client("sagemaker", url).describe_model(ModelName="nobody")
    lines = list(map(json.loads, log))
    assert [(line["operation"], line["status"], line.get("error")) for line in lines] == [
        ("ListModels", 200, None),
        ("DescribeModel", 400, "ValidationException"),
    ]
    ids = [response["ResponseMetadata"]["RequestId"], caught.value.response["ResponseMetadata"]["RequestId"]]
    assert [line["request_id"] for line in lines] == ids
    assert "Credential" not in "".join(log)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """A server whose services we did not write."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
