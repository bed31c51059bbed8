"""Where the container, the Lambda handler and the page lie: in a checkout beside the packages, in a wheel within."""

from pathlib import Path

_PACKAGE = Path(__file__).parent
_INSTALLED = _PACKAGE / "_bundle"
ROOT = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent

CONTAINER = ROOT / "containers" / "sentiment"
HANDLER = ROOT / "lambda" / "predict"
WEB = ROOT / "web"
