"""Terraform's AWS provider, unmodified: an endpoint made, found unchanged, changed, ended."""

from pathlib import Path
from shutil import which
from typing import Any

import pytest

from backends import Backend
from tests.requirements import require
from tests.wire.test_s3_terraform import MIRROR, SETTINGS, terraform

PLAN = """
terraform {
  required_providers { aws = { source = "hashicorp/aws" } }
}
variable "endpoint" {}
variable "source_file" {}
variable "instances" { default = 1 }
provider "aws" {
  region                  = "us-east-1"
  access_key              = "test"
  secret_key              = "test"
  skip_metadata_api_check = true
  endpoints {
    iam       = var.endpoint
    sagemaker = var.endpoint
    sts       = var.endpoint
  }
}
data "aws_caller_identity" "me" {}
resource "aws_sagemaker_model" "probe" {
  name               = "Terraform-probe"
  execution_role_arn = "arn:aws:iam::${data.aws_caller_identity.me.account_id}:role/probe"
  primary_container {
    image          = "probe"
    model_data_url = "s3://wire/model.tar.gz"
    environment    = { A = "b" }
  }
  tags = { team = "tests" }
}
resource "aws_sagemaker_endpoint_configuration" "probe" {
  name_prefix = "terraform-probe-"
  production_variants {
    variant_name           = "all"
    model_name             = aws_sagemaker_model.probe.name
    initial_instance_count = var.instances
    instance_type          = "ml.m5.large"
  }
  lifecycle { create_before_destroy = true }
}
resource "aws_sagemaker_endpoint" "probe" {
  name                 = "terraform-probe"
  endpoint_config_name = aws_sagemaker_endpoint_configuration.probe.name
  tags                 = { team = "tests" }
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project of Terraform's."""
    present = which("terraform") is not None and any(MIRROR.glob("*/hashicorp/aws"))
    require("terraform", lambda: present, "terraform and a mirror of its AWS provider are not on this machine")
    (tmp_path / "settings.tfrc").write_text(SETTINGS)
    (tmp_path / "main.tf").write_text(PLAN)
    return tmp_path


@pytest.mark.timeout(600)
def test_an_endpoint_of_terraforms(url: str, backend: Backend, sagemaker: Any, runtime: Any, folder: Path) -> None:
    """Only what was changed is changed, the endpoint in place; the plan after it is empty; nothing is left."""
    assert backend.store.exists("s3://wire/model.tar.gz")

    def run(*arguments: str) -> str:
        done = terraform(folder, url, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask() -> Any:
        return runtime.invoke_endpoint(EndpointName="terraform-probe", Body=b"hello")["Body"].read()

    run("init")
    assert "3 added, 0 changed, 0 destroyed" in run("apply", "-auto-approve")
    assert ask() == b"HELLO"
    changed = ("-var", "instances=2")
    (folder / "main.tf").write_text(PLAN.replace('team = "tests"', 'team = "others"'))
    assert "1 added, 2 changed, 1 destroyed" in run("apply", "-auto-approve", *changed)
    run("plan", "-detailed-exitcode", *changed)
    told = sagemaker.describe_endpoint(EndpointName="terraform-probe")
    assert (told["EndpointStatus"], told["ProductionVariants"][0]["CurrentInstanceCount"]) == ("InService", 2)
    assert sagemaker.list_tags(ResourceArn=told["EndpointArn"])["Tags"] == [{"Key": "team", "Value": "others"}]
    assert ask() == b"HELLO"
    assert "3 destroyed" in run("destroy", "-auto-approve", *changed)
    assert sagemaker.list_models(NameContains="erraform")["Models"] == []
    assert sagemaker.list_endpoint_configs(NameContains="terraform")["EndpointConfigs"] == []
