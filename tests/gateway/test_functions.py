"""How a handler is run: as Lambda would, in a process that nothing outlives."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from backends.gateway.functions import (
    MAX_PAYLOAD_BYTES,
    Function,
    FunctionBroken,
    FunctionSettings,
    PayloadTooLarge,
    Throttled,
    TimedOut,
)

LIMIT_SECONDS = 20
REQUEST_ID = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"


def bundle(tmp_path: Path, source: str) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "handler.py").write_text(source)
    return folder


@asynccontextmanager
async def started(settings: FunctionSettings) -> AsyncIterator[Function]:
    function = Function(settings)
    try:
        await function.start()
        yield function
    finally:
        await function.close()


def run(settings: FunctionSettings, use: Callable[[Function], Awaitable[Any]]) -> Any:
    async def body() -> Any:
        async with started(settings) as function:
            return await use(function)

    return asyncio.run(body())


async def answer(function: Function, event: dict[str, Any] | None = None) -> Any:
    invocation = await function.invoke(event or {}, REQUEST_ID)
    assert not invocation.failed, invocation.payload
    return json.loads(invocation.payload)


async def error(function: Function, event: dict[str, Any] | None = None) -> Any:
    invocation = await function.invoke(event or {}, REQUEST_ID)
    assert invocation.failed, invocation.payload
    return json.loads(invocation.payload)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(0.01)


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler sees its own variables and Lambda's: none of the user's, and no credentials but dummies."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the user's own")
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("HOME", "/home/user")
    folder = bundle(tmp_path, "import os\ndef handler(event, context):\n    return dict(os.environ)\n")
    settings = FunctionSettings(folder, environment={"ENDPOINT_NAME": "e", "TZ": "Europe/Oslo"}, name="fn")
    seen = run(settings, answer)
    assert (seen["ENDPOINT_NAME"], seen["TZ"], seen["_HANDLER"]) == ("e", "Europe/Oslo", "handler.handler")
    assert seen["AWS_SECRET_ACCESS_KEY"] == "greenroom"
    assert seen["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull
    assert seen["AWS_LAMBDA_FUNCTION_NAME"] == "fn"
    assert seen["LAMBDA_TASK_ROOT"] == str(folder)
    assert not {"AWS_PROFILE", "HOME", "PYTEST_CURRENT_TEST", "VIRTUAL_ENV"} & set(seen)


def test_credentials_that_are_given(tmp_path: Path) -> None:
    """They stand where the dummies would, and in the region of the function."""
    folder = bundle(tmp_path, "import os\ndef handler(event, context):\n    return dict(os.environ)\n")
    given = {"AWS_PROFILE": "production", "HOME": "/home/user", "AWS_REGION": "eu-west-1"}
    seen = run(FunctionSettings(folder, credentials=given), answer)
    assert (seen["AWS_PROFILE"], seen["HOME"], seen["AWS_REGION"]) == ("production", "/home/user", "us-east-1")
    assert not {"AWS_SECRET_ACCESS_KEY", "AWS_SHARED_CREDENTIALS_FILE"} & set(seen)


def test_reserved_variables(tmp_path: Path) -> None:
    """A variable that Lambda keeps for itself cannot be configured."""
    with pytest.raises(ValueError, match="AWS_ACCESS_KEY_ID"):
        FunctionSettings(tmp_path, environment={"AWS_ACCESS_KEY_ID": "x"})


def test_working_directory(tmp_path: Path) -> None:
    """The bundle is the working directory and comes first on sys.path, before the standard library."""
    source = "import os, sys, shlex\ndef handler(event, context):\n    return [os.getcwd(), sys.path[0], shlex.MINE]\n"
    folder = bundle(tmp_path, source)
    (folder / "shlex.py").write_text("MINE = True\n")
    assert run(FunctionSettings(folder), answer) == [str(folder), str(folder), True]


@pytest.mark.parametrize("name", ["deep/inner.go", "deep.inner.go"])
def test_handler_in_a_package(tmp_path: Path, name: str) -> None:
    """A handler may lie in a package, written with a slash or a dot."""
    folder = bundle(tmp_path, "")
    (folder / "deep").mkdir()
    (folder / "deep" / "__init__.py").touch()
    (folder / "deep" / "inner.py").write_text("def go(event, context):\n    return __name__\n")
    assert run(FunctionSettings(folder, handler=name), answer) == "deep.inner"


def test_context(tmp_path: Path) -> None:
    """The context has Lambda's members; the remaining time counts down from the function's time-out."""
    source = """
def handler(event, context):
    return [context.aws_request_id, context.function_name, context.function_version, context.invoked_function_arn,
            context.memory_limit_in_mb, context.log_group_name, context.identity, context.client_context,
            context.get_remaining_time_in_millis()]
"""
    settings = FunctionSettings(bundle(tmp_path, source), name="fn", timeout_seconds=7, memory_mib=512)
    *members, remaining = run(settings, answer)
    arn = "arn:aws:lambda:us-east-1:000000000000:function:fn"
    assert members == [REQUEST_ID, "fn", "$LATEST", arn, "512", "/aws/lambda/fn", None, None]
    assert 5000 < remaining <= 7000


def test_raised(tmp_path: Path) -> None:
    """An exception becomes Lambda's error document, and the environment stays in use."""
    source = """
import os
def handler(event, context):
    if event:
        raise KeyError("gone")
    return os.getpid()
"""

    async def use(function: Function) -> tuple[Any, Any, Any]:
        return await answer(function), await error(function, {"x": 1}), await answer(function)

    before, document, after = run(FunctionSettings(bundle(tmp_path, source)), use)
    assert (document["errorType"], document["errorMessage"], document["requestId"]) == (
        "KeyError",
        "'gone'",
        REQUEST_ID,
    )
    assert any("handler.py" in line for line in document["stackTrace"])
    assert before == after


@pytest.mark.parametrize(
    ("statement", "error_type"),
    [
        ("return {1, 2}", "Runtime.MarshalError"),
        ("return 'x' * (7 * 1024 * 1024)", "Function.ResponseSizeTooLarge"),
        ("sys.exit(3)", "Runtime.ExitError"),
        ("os._exit(0)", "Runtime.ExitError"),
        ("os.kill(os.getpid(), 11)", "Runtime.ExitError"),
    ],
)
def test_no_answer(tmp_path: Path, statement: str, error_type: str) -> None:
    """What is no JSON, is over 6 MB, or never comes back is an error, and the next request is served."""
    source = f"import os, sys\ndef handler(event, context):\n    if event:\n        {statement}\n    return 'well'\n"

    async def use(function: Function) -> tuple[Any, Any]:
        return await error(function, {"x": 1}), await answer(function)

    document, after = run(FunctionSettings(bundle(tmp_path, source)), use)
    assert (document["errorType"], after) == (error_type, "well")


def test_event_limit(tmp_path: Path) -> None:
    """An event over 6 MB never reaches the function; one just below does."""

    async def use(function: Function) -> int:
        with pytest.raises(PayloadTooLarge):
            await function.invoke({"x": "y" * MAX_PAYLOAD_BYTES}, REQUEST_ID)
        length: int = await answer(function, {"x": "y" * (MAX_PAYLOAD_BYTES - 100)})
        return length

    source = "def handler(event, context):\n    return len(event['x'])\n"
    assert run(FunctionSettings(bundle(tmp_path, source)), use) == MAX_PAYLOAD_BYTES - 100


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nowhere_to_be_found", "Runtime.ImportModuleError"),
        ("def handler(", "Runtime.UserCodeSyntaxError"),
        ("other = 1", "Runtime.HandlerNotFound"),
        ("1 / 0", "ZeroDivisionError"),
        ("import os; os._exit(9)", "exit status 9"),
        ("import time; time.sleep(60)", "not loaded within"),
    ],
)
def test_broken(tmp_path: Path, source: str, reason: str) -> None:
    """A handler that cannot be loaded is told at start, with the reason."""
    with pytest.raises(FunctionBroken, match=reason):
        run(FunctionSettings(bundle(tmp_path, source), init_timeout_seconds=2), answer)


SLEEPY = """
import os, subprocess, time
def handler(event, context):
    if "child" in event:
        print("CHILD", subprocess.Popen(["sleep", "60"]).pid)
    time.sleep(event.get("seconds", 0))
    return os.getpid()
"""


def test_timeout(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A handler over its time is killed with its children, and a fresh environment takes the next request."""
    caplog.set_level("INFO", logger="greenroom.function")

    async def use(function: Function) -> tuple[int, int]:
        before = await answer(function)
        with pytest.raises(TimedOut, match=r"Task timed out after 0\.30 seconds"):
            await function.invoke({"seconds": 60, "child": True}, REQUEST_ID)
        return before, await answer(function)

    before, after = run(FunctionSettings(bundle(tmp_path, SLEEPY), timeout_seconds=0.3), use)
    assert before != after
    (child,) = [int(r.getMessage().split()[1]) for r in caplog.records if r.getMessage().startswith("CHILD")]
    assert not _runs(before)
    assert not _runs(child)


def test_concurrency_and_throttling(tmp_path: Path) -> None:
    """Environments are added while requests wait, up to the limit; waiting has a limit too."""

    async def use(function: Function) -> tuple[list[int], int]:
        calls = [asyncio.create_task(function.invoke({"seconds": 0.8}, REQUEST_ID)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Throttled):
            await function.invoke({}, REQUEST_ID)
        done = await asyncio.gather(*calls)
        return [json.loads(call.payload) for call in done], await answer(function)

    settings = FunctionSettings(bundle(tmp_path, SLEEPY), max_concurrency=2, max_waiting=2, timeout_seconds=5)
    used, last = run(settings, use)
    assert len(set(used)) == 2
    assert last in used


def test_dead_while_idle(tmp_path: Path) -> None:
    """An environment that died while it had nothing to do is replaced without an error."""

    async def use(function: Function) -> tuple[int, int]:
        before = await answer(function)
        os.kill(before, signal.SIGKILL)
        await until(lambda: not function._idle[0].is_idle)
        return before, await answer(function)

    before, after = run(FunctionSettings(bundle(tmp_path, SLEEPY)), use)
    assert before != after


def test_an_edited_bundle_is_loaded_anew(tmp_path: Path) -> None:
    """The request after an edit runs the new code, and an unchanged bundle keeps its environment."""
    folder = bundle(tmp_path, "import os\ndef handler(event, context):\n    return 'old', os.getpid()\n")

    async def use(function: Function) -> list[Any]:
        answers = [await answer(function), await answer(function)]
        (folder / "words.py").write_text("WORD = 'new'\n")
        (folder / "handler.py").write_text("from words import WORD\ndef handler(event, context):\n    return WORD\n")
        answers.append(await answer(function))
        (folder / "words.py").write_text("WORD = 'newer'\n")
        return [*answers, await answer(function)]

    first, second, third, fourth = run(FunctionSettings(folder), use)
    assert first == second
    assert (third, fourth) == ("new", "newer")


def test_an_edit_that_breaks_the_bundle_can_be_undone(tmp_path: Path) -> None:
    """What cannot be loaded fails the requests that want it, and no later one."""
    folder = bundle(tmp_path, SLEEPY)

    async def use(function: Function) -> None:
        (folder / "handler.py").write_text("def handler(:\n")
        with pytest.raises(FunctionBroken, match="SyntaxError"):
            await answer(function)
        (folder / "handler.py").write_text(SLEEPY + "# mended\n")
        await answer(function)

    run(FunctionSettings(folder), use)


def test_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """START, END and REPORT frame what a handler prints; escape sequences do not reach the terminal."""
    caplog.set_level("INFO", logger="greenroom.function")
    source = """
import logging, sys
def handler(event, context):
    print("to \\x1b[31mstdout")
    print("to stderr", file=sys.stderr)
    logging.getLogger("mine").warning("by logging")
"""

    async def use(function: Function) -> None:
        await function.invoke({}, REQUEST_ID)
        await until(lambda: "REPORT" in caplog.text)

    run(FunctionSettings(bundle(tmp_path, source)), use)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == f"START RequestId: {REQUEST_ID} Version: $LATEST"
    assert lines[1:4] == ["to \N{REPLACEMENT CHARACTER}[31mstdout", "to stderr", "[WARNING]\tby logging"]
    assert lines[4] == f"END RequestId: {REQUEST_ID}"
    assert lines[5].startswith(f"REPORT RequestId: {REQUEST_ID}\tDuration: ")
    assert "Init Duration" in lines[5]


def test_endless_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A line without end is cut, not collected."""
    caplog.set_level("INFO", logger="greenroom.function")
    source = "def handler(event, context):\n    print('x' * 1_000_000)\n"

    async def use(function: Function) -> None:
        await function.invoke({}, REQUEST_ID)
        await until(lambda: "REPORT" in caplog.text)

    run(FunctionSettings(bundle(tmp_path, source)), use)
    assert max(len(record.getMessage()) for record in caplog.records) < 500_000
    assert sum(record.getMessage().count("x") for record in caplog.records) >= 1_000_000


OWNER = """
import asyncio, json, sys
from pathlib import Path
from backends.gateway.functions import Function, FunctionSettings

async def main():
    function = Function(FunctionSettings(Path(sys.argv[1])))
    await function.start()
    print(json.loads((await function.invoke({}, "id")).payload), flush=True)
    await function.invoke({"seconds": 60}, "id")

asyncio.run(main())
"""


def test_nothing_outlives_the_gateway(tmp_path: Path) -> None:
    """When the gateway is killed outright, its environments end too, even in the middle of a request."""
    folder = bundle(tmp_path, SLEEPY)
    with subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        environment = int(owner.stdout.readline())
        assert _runs(environment)
        owner.kill()
    asyncio.run(until(lambda: not _runs(environment)))


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_own_session(tmp_path: Path) -> None:
    """Ctrl-C in the terminal goes to the gateway alone: an environment is in a session of its own."""
    source = "import os\ndef handler(event, context):\n    return os.getsid(0)\n"
    assert run(FunctionSettings(bundle(tmp_path, source)), answer) != os.getsid(0)


def test_overhead(tmp_path: Path) -> None:
    """Running a handler in another process costs a fraction of a millisecond, not a start."""

    async def use(function: Function) -> float:
        await answer(function)
        started_at = time.perf_counter()
        for _ in range(100):
            await function.invoke({"body": "x" * 500}, REQUEST_ID)
        return (time.perf_counter() - started_at) / 100

    source = "def handler(event, context):\n    return {'statusCode': 200}\n"
    assert run(FunctionSettings(bundle(tmp_path, source)), use) < 0.02
