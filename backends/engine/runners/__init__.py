"""How a container image's program is run: as processes of this machine, or in real containers."""

from backends.engine.runners.base import ImageMissing, Program, Runner, Running
from backends.engine.settings import EngineSettings
from backends.errors import NotSupported

__all__ = ["ImageMissing", "Program", "Runner", "Running", "make_runner"]


def make_runner(settings: EngineSettings) -> Runner:
    """The runner that *settings* names."""
    if settings.runner == "process":
        from backends.engine.runners.process import ProcessRunner  # noqa: PLC0415  only what is used is loaded

        return ProcessRunner(settings.images)
    raise NotSupported(f"there is no {settings.runner!r} runner in this release; use the process runner.")
