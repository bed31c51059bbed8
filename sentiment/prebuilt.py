"""AWS's own scikit-learn image, which runs the application in script mode: nothing is built and nothing is pushed."""

import gzip
import hashlib
import io
import sys
import tarfile
from contextlib import redirect_stdout

from backends.errors import BackendUnavailable, InvalidSpec
from sentiment.bundle import script_mode_files

PROGRAM = "script.py"
# Python 3.10, numpy 2.1 and scikit-learn 1.4; the ones before have a Python and a numpy that are too old.
_VERSION = "1.4-2"


def image_uri(region: str, instance_type: str) -> str:
    """The image's URI in *region*, as the SageMaker SDK knows it.

    Raises:
        BackendUnavailable: the SDK is not installed.
        InvalidSpec: it knows of none for that region or type.
    """
    try:
        with redirect_stdout(sys.stderr):  # The SDK logs to stdout, which is for results.
            from sagemaker import image_uris  # noqa: PLC0415  an extra, and slow to load

            return str(image_uris.retrieve("sklearn", region, version=_VERSION, instance_type=instance_type))
    except ModuleNotFoundError as exc:
        raise BackendUnavailable(
            "the URI of AWS's own image comes from the SageMaker SDK: pip install 'greenroom[prebuilt]'."
        ) from exc
    except ValueError as exc:
        raise InvalidSpec(f"there is no prebuilt scikit-learn image for {instance_type} in {region}: {exc}") from exc


def packed_code() -> tuple[str, bytes]:
    """A digest of the application's code, and the code as the toolkits want it, a tar.gz."""
    tape = io.BytesIO()
    with tarfile.open(fileobj=tape, mode="w") as archive:
        for name, path in sorted(script_mode_files().items()):
            data = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return hashlib.sha256(tape.getvalue()).hexdigest()[:16], gzip.compress(tape.getvalue(), mtime=0)
