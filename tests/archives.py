"""Model archives, made and read by Python's own library rather than by ours."""

import io
import tarfile
from collections.abc import Mapping


def archive(files: Mapping[str, bytes]) -> bytes:
    """A model.tar.gz that holds *files*."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def unarchived(data: bytes) -> dict[str, bytes]:
    """The files in a tar.gz."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        files = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        return {name: file.read() for name, file in files.items() if file}
