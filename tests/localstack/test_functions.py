"""A function that fails, in each server: what stands in for AWS's environment must not hide it."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.localstack.webtier import create_function
from tests.peers import client

NAME = "failing"
LIMIT_SECONDS = 20
HANDLER = """
import os, time

def handler(event, context):
    print("asked to", event)
    if event == "raise":
        raise ValueError("as asked")
    if event == "sleep":
        time.sleep(60)
    return [os.environ["MINE"], context.aws_request_id, context.get_remaining_time_in_millis()]
"""


@pytest.fixture(scope="module")
def functions(url: str, role_arn: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The server's Lambda, with a function that fails as it is asked to, within a second."""
    folder = tmp_path_factory.mktemp(NAME)
    (folder / "handler.py").write_text(HANDLER)
    found = client("lambda", url)
    create_function(found, NAME, folder, role_arn=role_arn, variables={"MINE": "yes"}, timeout_seconds=1)
    return found


def invoke(functions: Any, event: str, name: str = NAME) -> tuple[str | None, Any]:
    """The kind of error and the reply."""
    answer = functions.invoke(FunctionName=name, Payload=json.dumps(event))
    return answer.get("FunctionError"), json.load(answer["Payload"])


def assert_answers(functions: Any) -> None:
    """The function is told its variables, its request and its time."""
    error, (mine, request_id, milliseconds) = invoke(functions, "answer")
    assert (error, mine) == (None, "yes")
    assert request_id
    assert 0 < milliseconds <= 1000


def test_an_exception_is_told(functions: Any) -> None:
    """The caller sees a function's error, not a refusal of Lambda's; the function lives on."""
    error, document = invoke(functions, "raise")
    assert (error, document["errorMessage"]) == ("Unhandled", "as asked")
    assert_answers(functions)


def test_a_function_out_of_time_is_ended(functions: Any) -> None:
    """What it was at is not waited for, and the next event gets an answer."""
    error, document = invoke(functions, "sleep")
    assert error == "Unhandled"
    assert "Task timed out after 1.00 seconds" in document["errorMessage"]
    assert_answers(functions)


def test_code_that_cannot_be_imported_is_told(functions: Any, role_arn: str, tmp_path: Path) -> None:
    """In the words of what failed."""
    (tmp_path / "handler.py").write_text("import nothing_such")
    create_function(functions, "broken", tmp_path, role_arn=role_arn, variables={})
    error, document = invoke(functions, "answer", "broken")
    assert error == "Unhandled"
    assert "No module named 'nothing_such'" in document["errorMessage"]


def test_what_a_function_prints_is_in_its_log(functions: Any, url: str) -> None:
    """In CloudWatch Logs, under the function's name."""
    assert_answers(functions)
    logs = client("logs", url)
    deadline = time.monotonic() + LIMIT_SECONDS
    while "asked to answer" not in (said := messages(logs)):
        assert time.monotonic() < deadline, said


def messages(logs: Any) -> str:
    """All that is in the function's log so far."""
    found = logs.filter_log_events(logGroupName=f"/aws/lambda/{NAME}")["events"]
    return "\n".join(event["message"] for event in found)
