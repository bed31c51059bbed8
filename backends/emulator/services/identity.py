"""STS and IAM as far as SageMaker's clients ask them: one account, in which every role exists and may do all."""

import json
from datetime import UTC, datetime
from urllib.parse import quote

from backends.emulator.protocol.models import Members
from backends.emulator.services import Service
from backends.engine.settings import ACCOUNT

CALLER_ROLE = "greenroom-local"
_CREATED = datetime(2020, 1, 1, tzinfo=UTC)
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


class Sts(Service):
    """Who calls: a session of a role, so that `sagemaker.get_execution_role()` finds one."""

    name = "sts"
    is_global = True

    def get_caller_identity(self, request: Members) -> Members:
        """GetCallerIdentity."""
        del request
        return {
            "UserId": "AROAGREENROOMLOCAL0000:local",
            "Account": ACCOUNT,
            "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{CALLER_ROLE}/local",
        }


class Iam(Service):
    """Roles: any name is one."""

    name = "iam"
    is_global = True

    def get_role(self, request: Members) -> Members:
        """GetRole."""
        name = request["RoleName"]
        return {
            "Role": {
                "Path": "/",
                "RoleName": name,
                "RoleId": "AROAGREENROOMLOCAL0000",
                "Arn": f"arn:aws:iam::{ACCOUNT}:role/{name}",
                "CreateDate": _CREATED,
                "AssumeRolePolicyDocument": quote(json.dumps(_TRUST)),
                "MaxSessionDuration": 3600,
            }
        }

    def simulate_principal_policy(self, request: Members) -> Members:
        """SimulatePrincipalPolicy: allowed, whatever is asked (SDK v3 asks before each upload)."""
        resources = request.get("ResourceArns") or ["*"]
        return {
            "EvaluationResults": [
                {"EvalActionName": action, "EvalResourceName": resource, "EvalDecision": "allowed"}
                for action in request["ActionNames"]
                for resource in resources
            ],
            "IsTruncated": False,
        }
