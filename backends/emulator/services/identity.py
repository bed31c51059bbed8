"""STS and IAM as far as SageMaker's clients ask them: one account, in which every role exists and may do all.

Roles that are made are kept until the server ends, with what they were made of; nothing asks their policies.
"""

import json
from datetime import UTC, datetime
from urllib.parse import quote

from backends.emulator.protocol.models import Members
from backends.emulator.services import Operation, Service
from backends.engine.settings import ACCOUNT
from backends.naming import partition_of
from backends.sagemaker.readings import ServiceError

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

    def __init__(self, region: str) -> None:
        self._partition = partition_of(region).name

    def get_caller_identity(self, request: Members) -> Members:
        """GetCallerIdentity."""
        del request
        return {
            "UserId": "AROAGREENROOMLOCAL0000:local",
            "Account": ACCOUNT,
            "Arn": f"arn:{self._partition}:sts::{ACCOUNT}:assumed-role/{CALLER_ROLE}/local",
        }


class Iam(Service):
    """Roles: any name is one; those that were made are told as they were made.

    Without *makes_roles* they are another server's to make, whose functions assume them.
    """

    name = "iam"
    is_global = True

    def __init__(self, region: str, *, makes_roles: bool = True) -> None:
        self._partition = partition_of(region).name
        self._makes_roles = makes_roles
        self._made: dict[str, Members] = {}
        self._policies: dict[tuple[str, str], str] = {}

    def operation(self, name: str) -> Operation | None:
        is_ours = self._makes_roles or name in {"GetRole", "SimulatePrincipalPolicy"}
        return super().operation(name) if is_ours else None

    def create_role(self, request: Members) -> Members:
        """CreateRole."""
        name = request["RoleName"]
        if name in self._made:
            raise ServiceError("EntityAlreadyExists", f"Role with name {name} already exists.", status=409)
        trust = quote(request["AssumeRolePolicyDocument"])
        kept = {key: request[key] for key in ("Description", "Tags", "MaxSessionDuration") if key in request}
        self._made[name] = self._role(name, request.get("Path", "/"), datetime.now(UTC), trust) | kept
        return {"Role": self._made[name]}

    def get_role(self, request: Members) -> Members:
        """GetRole."""
        name = request["RoleName"]
        return {"Role": self._made.get(name) or self._role(name, "/", _CREATED, quote(json.dumps(_TRUST)))}

    def list_roles(self, request: Members) -> Members:
        """ListRoles: those that were made."""
        prefix = request.get("PathPrefix", "/")
        found = [role for _, role in sorted(self._made.items()) if role["Path"].startswith(prefix)]
        listed = [{key: value for key, value in role.items() if key != "Tags"} for role in found]
        return {"Roles": listed, "IsTruncated": False}

    def update_assume_role_policy(self, request: Members) -> Members:
        """UpdateAssumeRolePolicy."""
        self._find(request)["AssumeRolePolicyDocument"] = quote(request["PolicyDocument"])
        return {}

    def put_role_policy(self, request: Members) -> Members:
        """PutRolePolicy."""
        self._find(request)
        self._policies[request["RoleName"], request["PolicyName"]] = quote(request["PolicyDocument"])
        return {}

    def get_role_policy(self, request: Members) -> Members:
        """GetRolePolicy."""
        name, policy = request["RoleName"], request["PolicyName"]
        return {"RoleName": name, "PolicyName": policy, "PolicyDocument": self._policy(name, policy)}

    def delete_role_policy(self, request: Members) -> Members:
        """DeleteRolePolicy."""
        name, policy = request["RoleName"], request["PolicyName"]
        self._policy(name, policy)
        del self._policies[name, policy]
        return {}

    def delete_role(self, request: Members) -> Members:
        """DeleteRole."""
        name = self._find(request)["RoleName"]
        if any(role == name for role, _ in self._policies):
            raise ServiceError("DeleteConflict", "Cannot delete entity, must delete policies first.", status=409)
        del self._made[name]
        return {}

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

    def _find(self, request: Members) -> Members:
        name = request["RoleName"]
        if name not in self._made:
            raise ServiceError("NoSuchEntity", f"The role with name {name} cannot be found.", status=404)
        return self._made[name]

    def _policy(self, role: str, policy: str) -> str:
        if (role, policy) not in self._policies:
            raise ServiceError("NoSuchEntity", f"The role policy with name {policy} cannot be found.", status=404)
        return self._policies[role, policy]

    def _role(self, name: str, path: str, created: datetime, trust: str) -> Members:
        return {
            "Path": path,
            "RoleName": name,
            "RoleId": "AROAGREENROOMLOCAL0000",
            "Arn": f"arn:{self._partition}:iam::{ACCOUNT}:role{path}{name}",
            "CreateDate": created,
            "AssumeRolePolicyDocument": trust,
            "MaxSessionDuration": 3600,
        }
