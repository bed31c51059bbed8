"""Script mode: a user's code, which SageMaker's training toolkit fetches from S3 before it runs it.

No S3 server need stand behind the store, and none could be reached from a container, so the code is put where the
toolkit unpacks it: what it finds there it does not fetch (sagemaker-training 5.1, ``files.download_and_extract``).
"""

import json
from pathlib import Path
from typing import Any

from backends.base import ObjectStore

_SUBMIT_DIRECTORY = "sagemaker_submit_directory"


def place_code(store: ObjectStore, request: dict[str, Any], root: Path) -> None:
    """Unpack the tar that the hyperparameters of *request* name, if any, into ``code`` below *root*.

    Raises:
        NotFound: the store has no such object.
        archives.ArchiveRefused: it is not a tar.gz that may be unpacked.
    """
    uri = _text(request.get("HyperParameters", {}).get(_SUBMIT_DIRECTORY, ""))
    if not uri.startswith("s3://"):
        return
    from backends.engine import archives  # noqa: PLC0415  other jobs start sooner without

    folder = root / "code"
    folder.mkdir()
    with store.reader(uri) as stream:
        archives.extract(stream, folder)


def _text(value: str) -> str:
    """*value* as the SDK meant it, who writes each hyperparameter as JSON."""
    try:
        meant = json.loads(value)
    except ValueError:
        return value
    return meant if isinstance(meant, str) else value
