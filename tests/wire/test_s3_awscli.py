"""AWS's own command line, unmodified: whole folders to buckets and back."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

AWS = Path(sys.executable).with_name("aws")
MIB = 1024**2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Names and sizes as they come: folders, spaces, other scripts, an empty file, one that goes in parts."""
    files = {"a.txt": b"a", "empty": b"", "deep/er/ü n&+%41.txt": b"x" * 1000, "large": os.urandom(18 * MIB)}
    for name, data in files.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "folder"


def aws(url: str, *arguments: str | Path) -> str:
    """What `aws` prints; it must succeed."""
    ours = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
    environment = ours | {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    done = subprocess.run([AWS, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_folders_are_synchronized(s3_url: str, bucket: str, folder: Path, tmp_path: Path) -> None:
    """There and back they are the same; a second time nothing is sent; what is gone here is deleted there."""
    aws(s3_url, "s3", "sync", folder, f"s3://{bucket}/in", "--no-progress")
    aws(s3_url, "s3", "sync", f"s3://{bucket}/in", tmp_path / "back", "--no-progress")
    assert contents(tmp_path / "back") == contents(folder)
    assert aws(s3_url, "s3", "sync", folder, f"s3://{bucket}/in", "--no-progress") == ""
    (folder / "a.txt").unlink()
    said = aws(s3_url, "s3", "sync", folder, f"s3://{bucket}/in", "--no-progress", "--delete")
    assert said.split() == ["delete:", f"s3://{bucket}/in/a.txt"]


def test_what_is_there_is_listed_copied_and_removed(s3_url: str, bucket: str, folder: Path) -> None:
    """ls, cp within and between, mv, rm; a bucket with all that is in it."""
    aws(s3_url, "s3", "cp", folder, f"s3://{bucket}/in", "--recursive", "--no-progress")
    listed = [line.split(maxsplit=3)[2:] for line in aws(s3_url, "s3", "ls", f"s3://{bucket}/in/").splitlines()[1:]]
    assert listed == [["1", "a.txt"], ["0", "empty"], [str(18 * MIB), "large"]]
    assert "PRE deep/" in aws(s3_url, "s3", "ls", f"s3://{bucket}/in/")
    assert "Total Objects: 4" in aws(s3_url, "s3", "ls", f"s3://{bucket}", "--recursive", "--summarize")
    aws(s3_url, "s3", "cp", f"s3://{bucket}/in/large", f"s3://{bucket}/copy", "--no-progress")
    aws(s3_url, "s3", "mv", f"s3://{bucket}/in/a.txt", f"s3://{bucket}/moved", "--no-progress")
    assert aws(s3_url, "s3", "cp", f"s3://{bucket}/moved", "-") == "a"
    head = json.loads(aws(s3_url, "s3api", "head-object", "--bucket", bucket, "--key", "copy"))
    assert head["ContentLength"] == 18 * MIB
    aws(s3_url, "s3", "rm", f"s3://{bucket}/in", "--recursive")
    assert len(aws(s3_url, "s3", "ls", f"s3://{bucket}", "--recursive").splitlines()) == 2
    aws(s3_url, "s3", "rb", f"s3://{bucket}", "--force")
    assert bucket not in aws(s3_url, "s3", "ls")
