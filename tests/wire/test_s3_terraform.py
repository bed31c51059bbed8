"""Terraform's AWS provider, unmodified, from a mirror on this machine: what it made it finds unchanged."""

import os
import subprocess
from pathlib import Path
from shutil import which

import pytest
import urllib3

from tests.requirements import require

# The default is one of those where Terraform itself looks.
MIRROR = Path(os.environ.get("GREENROOM_TERRAFORM_MIRROR", "/usr/local/share/terraform/plugins"))
SETTINGS = f"""
disable_checkpoint = true
provider_installation {{
  filesystem_mirror {{ path = "{MIRROR}" }}
  direct {{ exclude = ["*/*/*"] }}
}}
"""
PLAN = """
terraform {
  required_providers { aws = { source = "hashicorp/aws" } }
}
variable "endpoint" {}
variable "source_file" {}
provider "aws" {
  region                      = "us-east-1"
  access_key                  = "test"
  secret_key                  = "test"
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
  endpoints { s3 = var.endpoint }
}
resource "aws_s3_bucket" "data" {
  bucket        = "terraform-data"
  force_destroy = true
  tags          = { team = "tests" }
}
resource "aws_s3_bucket_public_access_block" "data" {
  bucket            = aws_s3_bucket.data.id
  block_public_acls = true
}
resource "aws_s3_bucket_ownership_controls" "data" {
  bucket = aws_s3_bucket.data.id
  rule { object_ownership = "BucketOwnerEnforced" }
}
resource "aws_s3_object" "file" {
  bucket = aws_s3_bucket.data.id
  key    = "train/é data.csv"
  source = var.source_file
  etag   = filemd5(var.source_file)
  tags   = { kind = "csv" }
}
resource "aws_s3_object" "text" {
  bucket       = aws_s3_bucket.data.id
  key          = "note"
  content      = "hello"
  content_type = "text/plain"
  metadata     = { a = "1" }
}
"""


def terraform(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it in *folder* against the server at *url*."""
    variables = {"TF_VAR_endpoint": url, "TF_VAR_source_file": str(folder / "data.csv"), "TF_IN_AUTOMATION": "1"}
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TF_CLI_CONFIG_FILE": str(folder / "settings.tfrc")}
    return subprocess.run(
        ["terraform", *arguments, "-no-color"],
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(600)
def test_the_second_plan_is_empty(s3_url: str, web: urllib3.PoolManager, tmp_path: Path) -> None:
    """Buckets, their settings and objects are read back as they were made, changed in place, and destroyed."""
    present = which("terraform") is not None and any(MIRROR.glob("*/hashicorp/aws"))
    require("terraform", lambda: present, "terraform and a mirror of its AWS provider are not on this machine")
    (tmp_path / "settings.tfrc").write_text(SETTINGS)
    (tmp_path / "main.tf").write_text(PLAN)
    (tmp_path / "data.csv").write_text("1,2\n")
    for step in (["init"], ["apply", "-auto-approve"], ["plan", "-detailed-exitcode"]):
        done = terraform(tmp_path, s3_url, *step)
        assert done.returncode == 0, done.stdout + done.stderr
    assert web.request("GET", f"{s3_url}/terraform-data/train/%C3%A9%20data.csv").data == b"1,2\n"
    (tmp_path / "data.csv").write_text("3,4\n")
    done = terraform(tmp_path, s3_url, "apply", "-auto-approve")
    assert "0 added, 1 changed, 0 destroyed" in done.stdout, done.stdout + done.stderr
    assert web.request("GET", f"{s3_url}/terraform-data/train/%C3%A9%20data.csv").data == b"3,4\n"
    done = terraform(tmp_path, s3_url, "destroy", "-auto-approve")
    assert done.returncode == 0, done.stdout + done.stderr
    assert web.request("HEAD", f"{s3_url}/terraform-data").status == 404
