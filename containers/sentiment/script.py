"""The application in script mode, on an image of SageMaker's that knows nothing of it.

Run as a program it trains; imported by an inference toolkit it serves. What it needs lies beside it, and goes with the
model, in the folder ``code``, so that the model is served from its own archive.

Source: SageMaker Python SDK, "Using Scikit-learn with the SageMaker Python SDK"; toolkits: sagemaker-training 5.1,
sagemaker-inference 1.10, and sagemaker-containers 2.8, which the prebuilt scikit-learn image serves with.
"""

import os
import runpy
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentiment.model import SentimentModel

_BASE = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
# Some toolkits install this file alone as a module elsewhere; the folder that they took it from stays where it was.
sys.path[:0] = [str(folder) for folder in (Path(__file__).parent, _BASE / "code", _BASE / "model" / "code")]


def train() -> int:
    """Train as the application's own image does, and leave the code with the model; the exit status."""
    status: int = runpy.run_path(str(Path(__file__).with_name("train")))["main"]()
    if status == 0:
        code = _BASE / "model" / "code"
        shutil.copytree(Path(__file__).parent, code, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    return status


def model_fn(model_dir: str) -> "SentimentModel":
    """The model in *model_dir*."""
    from sentiment.model import load  # noqa: PLC0415 - not needed to train

    return load(model_dir)


def transform_fn(model: "SentimentModel", data: str | bytes, content_type: str, accept: str) -> tuple[bytes, str]:
    """What the application's own image answers, and its type. What that refuses, a toolkit answers with status 500."""
    from codec import accepted, answer, reader  # noqa: PLC0415 - not needed to train

    read = reader(content_type)
    media_type = accepted(accept, content_type)
    return answer(model, read(data.encode() if isinstance(data, str) else data), media_type), media_type


if __name__ == "__main__":
    sys.exit(train())
