"""What a command works with, opened: the backend, the pipeline, and on AWS what stands around them.

The only caller of :func:`backends.open_backend`.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sentiment.options import DebugName

if TYPE_CHECKING:
    from backends.base import Backend
    from backends.config import BackendConfig
    from backends.specs import Plan
    from sentiment.image import PublishedImage
    from sentiment.pipeline import Pipeline
    from sentiment.production import Production
    from sentiment.reporter import Reporter
    from sentiment.settings import SentimentSettings
    from sentiment.webtier import WebTier


@dataclass(frozen=True)
class Globals:
    """The options before the command; None: not given."""

    backend: str | None
    runner: str | None
    endpoint_url: str | None
    config: Path | None
    image: str | None


@dataclass(frozen=True)
class Session:
    """One command at work; *production* and *image* are those of AWS."""

    backend: "Backend"
    pipeline: "Pipeline"
    config: "BackendConfig"
    settings: "SentimentSettings"
    reporter: "Reporter"
    production: "Production | None"
    image: "PublishedImage | None"

    def agree(self, plans: "Callable[[], list[Plan]]", *, yes: bool) -> None:
        """On AWS, show what would be made and for how much, ask, and make what the jobs need; elsewhere nothing.

        Raises:
            InvalidSpec: there is nobody to ask.
        """
        if self.production is None:
            return
        self.production.announce(self.production.plan([*self._image_plans, *plans()]))
        self._ask("Go on?", yes=yes)
        self.production.provide()
        if self.image is not None:
            self.image.push(self.reporter)

    def web_tier(self, ttl: str | None = None, *, yes: bool = False) -> "WebTier | None":
        """The page's stack; None for the local backend, which has none."""
        if self.production is None:
            if ttl:
                raise typer.BadParameter("--ttl is about AWS: sentiment --backend aws …")
            return None
        from sentiment.webtier import WebTier  # noqa: PLC0415

        return WebTier(
            self.production.account, self.settings, self.backend.store, self.reporter, lambda q: self._ask(q, yes=yes)
        )

    def _ask(self, question: str, *, yes: bool) -> None:
        if self.production and self.production.bills and not yes:
            from backends.errors import InvalidSpec  # noqa: PLC0415

            if not sys.stdin.isatty():
                raise InvalidSpec("this makes things that bill, and nobody is there to be asked: say --yes.")
            typer.confirm(question, abort=True, err=True)

    def print_plans(self, plans: "list[Plan]") -> None:
        """The requests of *plans*, behind those for what they need on AWS."""
        requests = [
            *(self.production.requests if self.production else ()),
            *(r for plan in (*self._image_plans, *plans) for r in plan.requests),
        ]
        documents = [{"operation": request.operation, "document": request.document} for request in requests]
        print(json.dumps({"requests": documents}, indent=2))  # noqa: T201

    @property
    def _image_plans(self) -> "list[Plan]":
        return [] if self.image is None else [self.image.plan]

    def show_command(self, name: str) -> None:
        """Where that was asked for, say how to start by hand the container of *name*, whose log is not shown."""
        if self.config.docker.prints_command:
            from sentiment.overview import find_logs  # noqa: PLC0415

            for line in find_logs(self.backend, name, follow=False):
                if line.startswith("[greenroom] docker "):
                    self.reporter.say(line)


@contextmanager
def open_session(
    given: Globals,
    *,
    source: str = "movie-reviews",
    parameters: list[str] | None = None,
    fresh: bool = False,
    docker: dict[str, Any] | None = None,
    hosting: dict[str, Any] | None = None,
    asks: bool = True,
    names_image: bool = False,
    **options: Any,
) -> Iterator[Session]:
    """Everything opened; unless it *asks*, AWS is not asked whose account this is.

    *options* are members of the application's settings. Only what starts jobs *names_image*: on AWS the one in ECR.
    """
    from backends import open_backend  # noqa: PLC0415
    from sentiment.hosting import Hosting  # noqa: PLC0415
    from sentiment.pipeline import Pipeline  # noqa: PLC0415
    from sentiment.reporter import make_reporter  # noqa: PLC0415
    from sentiment.settings import IMAGE, PREBUILT, SentimentSettings  # noqa: PLC0415

    config = configured(given, docker)
    named = given.image or IMAGE
    if names_image and named == PREBUILT:
        from sentiment.prebuilt import image_uri  # noqa: PLC0415

        named = image_uri(config.region, SentimentSettings.instance_type)
        options["script_region"] = config.region
    settings = SentimentSettings(
        home=config.home,
        bucket=config.bucket,
        source=source,
        image=named,
        hyperparameters=_pairs(parameters or []),
        hosting=Hosting(**(hosting or {})),
        **options,
    )
    reporter = make_reporter()
    production, image = None, None
    if config.backend == "aws":
        from sentiment.production import open_production  # noqa: PLC0415

        production = open_production(config, settings, reporter, asks=asks)
        config, settings = production.config, production.settings
        if names_image and production.bills and not given.image:
            from sentiment.image import published_image  # noqa: PLC0415

            image = published_image(production.account, production.account_id)
            settings = replace(settings, image=image.uri)
            production = replace(production, settings=settings)
    if config.runner == "docker" and config.docker.debug != "off":
        port = config.docker.debug_port or "the port that the log names"
        reporter.say(f"debugger: attach to 127.0.0.1:{port} while a container runs")
    with open_backend(config) as backend:
        pipeline = Pipeline(backend, settings, reporter, fresh=fresh)
        yield Session(backend, pipeline, config, settings, reporter, production, image)


def docker_settings(*, print_command: bool, debug: DebugName | None) -> dict[str, Any]:
    """The flags of one command about its containers, as settings."""
    return ({"prints_command": True} if print_command else {}) | ({"debug": debug.value} if debug else {})


def configured(given: Globals, docker: dict[str, Any] | None = None) -> "BackendConfig":
    """The settings in force, with the application's own image among those of the process runner."""
    from backends.config import load_config  # noqa: PLC0415
    from sentiment.bundle import CONTAINER  # noqa: PLC0415
    from sentiment.settings import IMAGE  # noqa: PLC0415

    config = load_config(
        given.config, backend=given.backend, runner=given.runner, endpoint_url=given.endpoint_url, docker=docker or None
    )
    if docker and (config.backend, config.runner) != ("local", "docker"):
        raise typer.BadParameter("--print-command and --debug are about containers: sentiment --runner docker …")
    return config.model_copy(update={"images": {IMAGE: CONTAINER, **config.images}})


def _pairs(parameters: list[str]) -> dict[str, str]:
    pairs = {}
    for parameter in parameters:
        name, found, value = parameter.partition("=")
        if not found or not name:
            raise typer.BadParameter(f"{parameter!r} is not name=value")
        pairs[name] = value
    return pairs
