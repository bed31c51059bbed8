"""The ``greenroom`` command line: the framework without the reference application."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="SageMaker on this machine.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DEFAULT_PORT = 4566
LOOPBACK = "127.0.0.1"


@app.callback()
def _globals() -> None:
    """Keeps ``serve`` a command of its own while there are few."""


@app.command()
def serve(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = DEFAULT_PORT,
    host: Annotated[
        str,
        typer.Option(
            help="The name or address to serve at; by any but this, others reach it, "
            "and those who change something show GREENROOM_TOKEN as AWS_ACCESS_KEY_ID."
        ),
    ] = LOOPBACK,
    token: Annotated[str, typer.Option(envvar="GREENROOM_TOKEN", hidden=True)] = "",
    upstream: Annotated[str, typer.Option(help="A LocalStack-compatible server for all other services of AWS.")] = "",
    faults: Annotated[Path | None, typer.Option(help="Errors and latency to give, as a TOML file.")] = None,
    config: Annotated[Path | None, typer.Option(help="The configuration file (default: ./greenroom.toml).")] = None,
) -> None:
    """Be AWS for SageMaker's clients, until Ctrl-C: its API in front of the jobs and endpoints of this machine."""
    from dataclasses import replace  # noqa: PLC0415  --help shall not wait for libraries

    from backends.config import load_config  # noqa: PLC0415
    from backends.emulator.app import create_app  # noqa: PLC0415
    from backends.emulator.door import Door  # noqa: PLC0415
    from backends.emulator.faults import load_faults  # noqa: PLC0415
    from backends.emulator.upstream import Upstream  # noqa: PLC0415
    from backends.engine import Engine  # noqa: PLC0415
    from backends.http_server import listen, url_of  # noqa: PLC0415
    from backends.http_server import serve as serve_app  # noqa: PLC0415
    from backends.local.backend import engine_settings  # noqa: PLC0415

    wanted = load_faults(faults) if faults else ()
    settings = engine_settings(load_config(config, backend="local"))
    listener = listen(host, port)
    engine = Engine(replace(settings, aws_endpoint_url=url_of(listener)))
    try:
        app = create_app(
            engine,
            door=Door(host, token),
            upstream=Upstream(upstream) if upstream else None,
            faults=wanted,
            access_log=_say,
        )
        serve_app(app, listener=listener, on_ready=_say_ready)
    finally:
        engine.close()


def main() -> None:
    """Run the command line; errors become one sentence on stderr."""
    from backends.errors import BackendError  # noqa: PLC0415

    try:
        app()
    except (BackendError, OSError) as exc:
        print(f"error: {exc}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


def _say(line: str) -> None:
    with suppress(OSError):  # whoever read it has gone; the server stays
        sys.stderr.write(f"{line}\n")


def _say_ready(url: str) -> None:
    variables = f"AWS_ENDPOINT_URL={url} AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION=us-east-1"
    _say(f"export {variables}   # for AWS's clients; Ctrl-C ends the server")
