"""The ``greenroom`` command line: the framework without the reference application."""

import sys
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
        str, typer.Option(help="The name or address to serve at; by any but this, others reach it.")
    ] = LOOPBACK,
    config: Annotated[Path | None, typer.Option(help="The configuration file (default: ./greenroom.toml).")] = None,
) -> None:
    """Answer InvokeEndpoint, ListEndpoints and DescribeEndpoint for the endpoints of this machine, until Ctrl-C."""
    from backends.config import load_config  # noqa: PLC0415  --help shall not wait for libraries
    from backends.emulator.app import create_app  # noqa: PLC0415
    from backends.engine import Engine  # noqa: PLC0415
    from backends.http_server import serve as serve_app  # noqa: PLC0415
    from backends.local.backend import engine_settings  # noqa: PLC0415

    engine = Engine(engine_settings(load_config(config, backend="local")))
    try:
        serve_app(create_app(engine, host=host), host=host, port=port, allow_remote=True, on_ready=_say_ready)
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


def _say_ready(url: str) -> None:
    print(f"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME={url}   (Ctrl-C ends it)", file=sys.stderr)  # noqa: T201
