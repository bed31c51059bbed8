"""The page on this machine: browser → gateway → Lambda handler → runtime API → endpoint, each on loopback."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

from backends.config import BackendConfig
from backends.errors import BackendUnavailable
from sentiment.bundle import HANDLER, WEB

_FUNCTION_TIMEOUT_SECONDS = 10.0
# boto3 takes 2 ms of CPU a call: more environments than this only wait for one another.
_ENVIRONMENTS_PER_CORE = 2
_START_TIMEOUT_SECONDS = 30.0


def serve_page(config: BackendConfig, endpoint: str, *, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve the page for *endpoint* until SIGINT or SIGTERM.

    The endpoint is the local backend's, or the AWS backend's; on AWS itself the function has the caller's credentials.
    Requests are answered if they are addressed to loopback or to *host*.

    Raises:
        BackendUnavailable: the port is taken, or the web libraries are not installed.
    """
    try:
        from backends.gateway import FunctionSettings, GatewaySettings, create_app  # noqa: PLC0415
        from backends.http_server import Server  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise BackendUnavailable(f"the page needs {exc.name}: pip install 'greenroom[web]'.") from exc
    _show_access_log()
    with _runtime_api(config) as runtime_url:
        environment = {"ENDPOINT_NAME": endpoint}
        if runtime_url:
            environment |= {"GREENROOM_BACKEND": "local", "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": runtime_url}
        function = FunctionSettings(
            bundle=HANDLER,
            environment=environment,
            credentials=None if runtime_url else _own_credentials(),
            timeout_seconds=_FUNCTION_TIMEOUT_SECONDS,
            max_concurrency=_ENVIRONMENTS_PER_CORE * (os.cpu_count() or 1),
            region=config.region,
        )
        allowed = GatewaySettings.allowed_hosts | {host}
        gateway = create_app(GatewaySettings(function=function, web_folder=WEB, allowed_hosts=allowed))
        server = Server(gateway, host=host, port=port, allow_remote=True, on_ready=on_ready)
        # Ctrl-C is how it is meant to end.
        with suppress(KeyboardInterrupt):
            server.run()


def _own_credentials() -> dict[str, str]:
    """The variables through which boto3 finds the user's credentials, and renews them."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_") or name in {"HOME", "PATH"}}


def _show_access_log() -> None:
    """One line on stderr for each request, and what goes wrong."""
    logging.getLogger("greenroom.function").setLevel(logging.WARNING)
    log = logging.getLogger("greenroom")
    log.setLevel(logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)


@contextmanager
def _runtime_api(config: BackendConfig) -> Iterator[str]:
    """Yield the URL of the runtime API: the configured one (empty: AWS's own), or else the emulator's while this lasts.

    It gets a process of its own, for in a thread it and the gateway would take turns at one interpreter lock.
    """
    if config.backend == "aws":
        yield config.endpoint_url
        return
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_runtime_api, args=(config, theirs), name="runtime-api", daemon=True)
    # A terminal's Ctrl-C reaches both; that one ends with the pipe. What is ignored here is ignored there.
    held = signal.signal(signal.SIGINT, signal.SIG_IGN)
    process.start()
    signal.signal(signal.SIGINT, held)
    theirs.close()
    try:
        if not ours.poll(_START_TIMEOUT_SECONDS):
            raise BackendUnavailable("the runtime API did not start.")
        try:
            url: str = ours.recv()
        except EOFError as exc:
            raise BackendUnavailable("the runtime API ended while it started; its reason is above.") from exc
        yield url
    finally:
        ours.close()
        process.join()


def _serve_runtime_api(config: BackendConfig, parent: Connection) -> None:
    """Serve until *parent* closes its end of the pipe, also by dying."""
    from backends.emulator.app import create_app  # noqa: PLC0415
    from backends.engine import Engine  # noqa: PLC0415
    from backends.http_server import Server  # noqa: PLC0415
    from backends.local.backend import engine_settings  # noqa: PLC0415

    engine = Engine(engine_settings(config))
    server = Server(create_app(engine), on_ready=parent.send)

    def leave_with_parent() -> None:
        parent.poll(None)  # Nothing is ever sent: what comes is the end.
        server.should_exit = True

    threading.Thread(target=leave_with_parent, daemon=True).start()
    server.run()
    engine.close()
