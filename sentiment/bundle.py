"""Where the container, the Lambda handler and the page lie: in a checkout beside the packages, in a wheel within."""

from pathlib import Path

from backends.errors import NotFound

_PACKAGE = Path(__file__).parent
_INSTALLED = _PACKAGE / "_bundle"
ROOT = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent

CONTAINER = ROOT / "containers" / "sentiment"
HANDLER = ROOT / "lambda" / "predict"
WEB = ROOT / "web"

DOCKERFILE = "containers/sentiment/Dockerfile"
# The pure modules alone; the pipeline and its backends stay outside of the image.
MODULES = ("__init__.py", "text.py", "table.py", "model.py", "training.py")


def build_context() -> dict[str, Path]:
    """What the image is built from: each file by its path in the build context, which is that of a checkout's root.

    Raises:
        NotFound: this installation came without the container's folder.
    """
    if not (CONTAINER / "Dockerfile").is_file():
        raise NotFound(
            f"the image's build context is not here: no Dockerfile in {CONTAINER}. It lies in a checkout of the "
            "project and in its wheel; install one of them, or build elsewhere and name the image with --image.",
            kind="folder",
            name=str(CONTAINER),
        )
    container = {f"containers/sentiment/{path.name}": path for path in sorted(CONTAINER.iterdir()) if path.is_file()}
    return container | {f"sentiment/{name}": _PACKAGE / name for name in MODULES}


def script_mode_files() -> dict[str, Path]:
    """What runs the application on an image of SageMaker's: each file by its path beside the script."""
    container = {name: CONTAINER / name for name in ("script.py", "train", "contract.py", "codec.py")}
    return container | {f"sentiment/{name}": _PACKAGE / name for name in MODULES}
