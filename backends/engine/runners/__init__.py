"""How a container image's program is run: as processes of this machine, or in real containers."""

from backends.engine.runners.base import Address, ImageMissing, Program, Runner, RunnerFailed, Running, end_all
from backends.engine.settings import EngineSettings
from backends.errors import NotSupported

__all__ = ["Address", "ImageMissing", "Program", "Runner", "RunnerFailed", "Running", "end_all", "make_runner"]


def make_runner(settings: EngineSettings) -> Runner:
    """The runner that *settings* names."""
    if settings.runner == "process":
        from backends.engine.runners.process import ProcessRunner  # noqa: PLC0415  only what is used is loaded

        return ProcessRunner(settings.images, settings.aws_endpoint_url)
    try:
        from backends.engine.runners.docker import DockerRunner  # noqa: PLC0415  docker is an extra
    except ImportError as exc:
        raise NotSupported(
            f"the docker runner needs a package that is not installed ({exc.name}): pip install 'greenroom[docker]'; "
            "or use the process runner."
        ) from exc
    return DockerRunner(settings.docker)
