"""The web tier on AWS: one CloudFormation stack (``template.yaml``) in front of one endpoint, and the page.

    prepare ── change set ──> shown, agreed to ── apply ──> settled ── publish ──> page in the bucket, edges invalidated

The template gets page and function as files of the application's; it knows neither.
"""

import hashlib
import io
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from backends.aws.account import AwsAccount
from backends.base import ObjectStore
from backends.errors import BackendError, BackendUnavailable, Conflict, InvalidSpec, JobFailed, NotFound, NotSupported
from backends.naming import partition_of, split_uri
from backends.page import CACHE_CONTROL, content_type
from backends.waiting import wait_until

TEMPLATE = Path(__file__).with_name("template.yaml")

_POLL_SECONDS = 5.0
_NEAR_POLL_SECONDS = 0.25
_FILE_MODE = 0o644
_KEYS_PER_DELETION = 1000
_DIGEST_CHARS = 16
# What is left of a stack that could not be made or removed; nothing can be made of it.
_DEAD = frozenset(("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"))
# A stack of which no change set has been applied yet.
_UNBORN = "REVIEW_IN_PROGRESS"
# A resource that was given up because another failed.
_GIVEN_UP = "cancelled"
_NO_CHANGES = ("didn't contain changes", "No updates are to be performed")
# How servers other than AWS say that they do not know a service or an operation.
_UNKNOWN = frozenset(
    ("UnknownOperationException", "UnknownOperation", "InvalidAction", "InternalFailure", "501", "404")
)


@dataclass(frozen=True)
class Change:
    """One line of a change set.

    *action* is ``Add``, ``Modify`` or ``Remove``; *replacement* is ``True``, ``False``, ``Conditional`` or, where
    nothing is replaced, empty.
    """

    action: str
    resource: str
    kind: str
    replacement: str


@dataclass(frozen=True)
class ChangeSet:
    """What applying would do. Without an *arn* nothing would change."""

    arn: str = ""
    stack_arn: str = ""
    changes: tuple[Change, ...] = ()
    code: Mapping[str, bytes] = field(default_factory=dict, repr=False)


class WebStack:
    """The stack called *name*; *store* holds the function's code, *say* gets each event of the stack.

    Every method raises:
        NotSupported: the server in AWS's place knows no CloudFormation.
        BackendUnavailable: it is not reached.
        BackendError: AWS refuses, in its own words.
    """

    def __init__(self, account: AwsAccount, store: ObjectStore, name: str, *, say: Callable[[str], None]) -> None:
        self._account = account
        self._store = store
        self._name = name
        self._say = say
        self._poll_seconds = _NEAR_POLL_SECONDS if account.is_elsewhere else _POLL_SECONDS

    # --- what is there

    @property
    def url(self) -> str:
        """The page's address.

        Raises:
            NotFound: there is no page.
        """
        outputs = {output["OutputKey"]: output["OutputValue"] for output in self._existing().get("Outputs", [])}
        if "Url" not in outputs:
            raise NotFound(f"stack {self._name!r} has no page.", kind="stack", name=self._name)
        return str(outputs["Url"])

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters in force; none where there is no stack."""
        found = self._found()
        return {} if found is None or found["StackStatus"] in _DEAD else _parameters(found)

    # --- changing it

    def prepare(
        self,
        parameters: Mapping[str, str],
        *,
        tags: Mapping[str, str],
        function: Path | None = None,
        code_uri: str = "",
    ) -> ChangeSet:
        """Work out what *parameters* would change; those that are not given stay as they are. Nothing is changed yet.

        *function* is the folder that becomes the function, as a zip below *code_uri*. All resources bear *tags*. The
        remains of a stack that failed are removed first.

        Raises:
            InvalidSpec: CloudFormation cannot make a change set of it.
            Conflict: the stack is in a state that only deleting it ends.
            NotSupported: a page in a region whose CloudFront cannot serve it.
        """
        # GovCloud has no CloudFront, China's serves nothing without a domain that is registered there. Sources: AWS
        # solutions, "Deploy in AWS GovCloud (US) Regions"; Getting Started with AWS in China, "Amazon CloudFront".
        if function is not None and partition_of(self._account.region).name != "aws":
            raise NotSupported(f"CloudFront serves no page for {self._account.region} at an address of its own.")
        found = self._updatable()
        code, wanted = {}, _parameters(found) | dict(parameters)
        if function is not None:
            data = function_zip(function)
            key = f"{hashlib.sha256(data).hexdigest()[:_DIGEST_CHARS]}.zip"
            code[f"{code_uri}/{key}"] = data
            bucket, prefix = split_uri(code_uri)
            wanted |= {"CodeBucket": bucket, "CodeKey": f"{prefix}/{key}"}
        with self._asked("CreateChangeSet"):
            made = self._cloudformation.create_change_set(
                StackName=self._name,
                ChangeSetName=f"greenroom-{time.time_ns()}",
                ChangeSetType="UPDATE" if found else "CREATE",
                TemplateBody=TEMPLATE.read_text(encoding="utf-8"),
                Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in sorted(wanted.items())],
                Tags=_tag_list(tags),
                Capabilities=["CAPABILITY_IAM"],
            )
        change_set = ChangeSet(made["Id"], made["StackId"], code=code)
        status, reason = self._worked_out(change_set)
        if status == "FAILED":
            self.discard(change_set)
            if any(words in reason for words in _NO_CHANGES):
                return ChangeSet(stack_arn=made["StackId"], code=code)
            raise InvalidSpec(f"stack {self._name!r}: {reason}", kind="stack", name=self._name, reason=reason)
        return ChangeSet(made["Id"], made["StackId"], tuple(self._changes(change_set)), code)

    def discard(self, change_set: ChangeSet) -> None:
        """Forget *change_set*, with the empty stack that it was made for."""
        with self._asked("DeleteChangeSet"):
            self._cloudformation.delete_change_set(ChangeSetName=change_set.arn)
        found = self._found()
        if found is not None and found["StackStatus"] == _UNBORN:
            self._delete(found)

    def apply(self, change_set: ChangeSet) -> None:
        """Carry out *change_set* and wait until the stack has settled.

        Raises:
            JobFailed: it failed; ``reason`` is the first failed resource's.
        """
        for uri, data in change_set.code.items():
            if not self._store.exists(uri):
                self._store.put(uri, data, content_type="application/zip")
        if not change_set.arn:
            return
        known = self._newest_event(change_set.stack_arn)
        with self._asked("ExecuteChangeSet"):
            self._cloudformation.execute_change_set(ChangeSetName=change_set.arn)
        ended = self._settle(change_set.stack_arn, known)
        if ended.state not in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}:
            raise self._failure(ended)

    def publish(self, page: Path) -> list[str]:
        """Bring the bucket to what the folder *page* holds, and the edges if that changed it; what changed, by name.

        Hidden files stay here. Once this returns, nobody gets an older page.
        """
        bucket = self._resource("PageBucket")
        wanted = {
            path.relative_to(page).as_posix(): path
            for path in sorted(page.rglob("*"))
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(page).parts)
        }
        with self._asked("publishing the page"):
            listed = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
            there = {entry["Key"]: entry["ETag"].strip('"') for found in listed for entry in found.get("Contents", [])}
            changed = []
            for key, path in wanted.items():
                data = path.read_bytes()
                if there.get(key) == hashlib.md5(data, usedforsecurity=False).hexdigest():  # an object's ETag
                    continue
                self._s3.put_object(
                    Bucket=bucket,
                    Key=key,
                    Body=data,
                    ContentType=content_type(path.suffix),
                    CacheControl=CACHE_CONTROL,
                )
                changed.append(key)
            gone = [key for key in there if key not in wanted]
            for key in gone:
                self._s3.delete_object(Bucket=bucket, Key=key)
            if changed or gone:
                self._invalidate(self._resource("Distribution"))
        return sorted(changed + gone)

    def tag_endpoint(self, endpoint: str, tags: Mapping[str, str], *, obsolete: Sequence[str] = ()) -> None:
        """Give *endpoint*, which is not of the stack, *tags* beside its own, and take those called *obsolete* away."""
        sagemaker = self._account.client("sagemaker")
        with self._asked(f"tagging endpoint {endpoint}"):
            arn = sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointArn"]
            sagemaker.add_tags(ResourceArn=arn, Tags=_tag_list(tags))
            if obsolete:
                sagemaker.delete_tags(ResourceArn=arn, TagKeys=list(obsolete))

    def delete(self) -> bool:
        """Remove the stack with all that is in its bucket; False if there was none.

        Raises:
            JobFailed: something of it could not be removed.
        """
        found = self._settled()
        if found is None:
            return False
        self._delete(found)
        return True

    # --- inside

    @cached_property
    def _cloudformation(self) -> Any:
        return self._account.client("cloudformation")

    @cached_property
    def _s3(self) -> Any:
        return self._account.client("s3")

    def _found(self) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError  # noqa: PLC0415

        try:
            with self._asked("DescribeStacks"):
                (found,) = self._cloudformation.describe_stacks(StackName=self._name)["Stacks"]
        except BackendError as exc:
            if isinstance(exc.__cause__, ClientError) and "does not exist" in str(exc.__cause__):
                return None
            raise
        return None if found["StackStatus"] == "DELETE_COMPLETE" else found

    def _existing(self) -> dict[str, Any]:
        found = self._found()
        if found is None:
            raise NotFound(f"there is no stack {self._name!r}.", kind="stack", name=self._name)
        return found

    def _settled(self) -> dict[str, Any] | None:
        """The stack once nobody is at work on it, which may be an earlier call of ours that was interrupted."""
        found = self._found()
        if found is None or not _is_moving(found["StackStatus"]):
            return found
        self._say(f"stack {self._name} is {found['StackStatus']}: waiting")
        return wait_until(
            self._found,
            lambda seen: seen is None or not _is_moving(seen["StackStatus"]),
            what=f"stack {self._name}",
            longest_pause_seconds=self._poll_seconds,
        )

    def _updatable(self) -> dict[str, Any] | None:
        """The stack if it can be updated, else None: it can be made. Waits for others and clears away what failed."""
        found = self._settled()
        if found is not None and found["StackStatus"] in _DEAD:
            self._say(f"stack {self._name} is {found['StackStatus']}: removing what is left of it")
            self._delete(found)
            return None
        if found is None or found["StackStatus"] == _UNBORN:
            return None
        if found["StackStatus"] == "UPDATE_ROLLBACK_FAILED":
            raise Conflict(
                f"stack {self._name!r} is UPDATE_ROLLBACK_FAILED: AWS could not take its last change back "
                f"({found.get('StackStatusReason', 'no reason given')}). Delete it and publish again.",
                kind="stack",
                name=self._name,
            )
        return found

    def _worked_out(self, change_set: ChangeSet) -> tuple[str, str]:
        def look() -> tuple[str, str]:
            with self._asked("DescribeChangeSet"):
                found = self._cloudformation.describe_change_set(ChangeSetName=change_set.arn)
            return found["Status"], found.get("StatusReason", "")

        return wait_until(
            look,
            lambda seen: seen[0] in {"CREATE_COMPLETE", "FAILED"},
            what=f"the change set of stack {self._name}",
            longest_pause_seconds=self._poll_seconds,
        )

    def _changes(self, change_set: ChangeSet) -> Iterator[Change]:
        with self._asked("DescribeChangeSet"):
            pages = self._cloudformation.get_paginator("describe_change_set").paginate(ChangeSetName=change_set.arn)
            for found in pages:
                for entry in found["Changes"]:
                    change = entry["ResourceChange"]
                    yield Change(
                        change["Action"],
                        change["LogicalResourceId"],
                        change["ResourceType"],
                        change.get("Replacement", ""),
                    )

    def _delete(self, found: dict[str, Any]) -> None:
        arn = found["StackId"]
        for resource in self._resources(arn):
            if resource["ResourceType"] == "AWS::S3::Bucket" and resource["ResourceStatus"] != "DELETE_COMPLETE":
                self._empty(resource["PhysicalResourceId"])
        known = self._newest_event(arn)
        with self._asked("DeleteStack"):
            self._cloudformation.delete_stack(StackName=arn)
        ended = self._settle(arn, known)
        if ended.state != "DELETE_COMPLETE":
            raise self._failure(ended)

    def _empty(self, bucket: str) -> None:
        """Delete every object of *bucket* in every version."""
        with self._asked(f"emptying bucket {bucket}"):
            for page in self._s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
                entries = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
                keys = [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in entries]
                for start in range(0, len(keys), _KEYS_PER_DELETION):
                    some = keys[start : start + _KEYS_PER_DELETION]
                    left = self._s3.delete_objects(Bucket=bucket, Delete={"Objects": some, "Quiet": True})
                    for error in left.get("Errors", []):
                        raise BackendError(f"bucket {bucket}: {error['Key']} stays: {error['Message']}")

    def _invalidate(self, distribution: str) -> None:
        cloudfront = self._account.client("cloudfront")
        batch = {"Paths": {"Quantity": 1, "Items": ["/*"]}, "CallerReference": str(time.time_ns())}
        made = cloudfront.create_invalidation(DistributionId=distribution, InvalidationBatch=batch)["Invalidation"]
        self._say(f"invalidating the edges of {distribution}")
        cloudfront.get_waiter("invalidation_completed").wait(
            DistributionId=distribution, Id=made["Id"], WaiterConfig={"Delay": self._poll_seconds, "MaxAttempts": 240}
        )

    def _resource(self, logical_name: str) -> str:
        """What the resource is called in its own service."""
        for resource in self._resources(self._name):
            if resource["LogicalResourceId"] == logical_name:
                return str(resource["PhysicalResourceId"])
        raise NotFound(f"stack {self._name!r} has no {logical_name}.", kind="stack", name=self._name)

    def _resources(self, stack: str) -> list[dict[str, Any]]:
        with self._asked("ListStackResources"):
            pages = self._cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
            return [resource for page in pages for resource in page["StackResourceSummaries"]]

    # --- events

    def _newest_event(self, stack_arn: str) -> str:
        return next((event["EventId"] for event in self._events(stack_arn)), "")

    def _events(self, stack_arn: str) -> Iterator[dict[str, Any]]:
        """Newest first."""
        with self._asked("DescribeStackEvents"):
            for page in self._cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack_arn):
                yield from page["StackEvents"]

    def _settle(self, stack_arn: str, known: str) -> "_Ended":
        """Say each event after *known* until the stack itself has settled."""
        watch = _Ended(stack_arn)

        def look() -> str:
            nonlocal known
            fresh = []
            for event in self._events(stack_arn):
                if event["EventId"] == known:
                    break
                fresh.append(event)
            for event in reversed(fresh):
                watch.see(event)
                self._say(_sentence(event))
            known = fresh[0]["EventId"] if fresh else known
            return watch.state

        wait_until(
            look,
            lambda state: bool(state) and not _is_moving(state),
            what=f"stack {self._name}",
            longest_pause_seconds=self._poll_seconds,
        )
        return watch

    def _failure(self, ended: "_Ended") -> JobFailed:
        return JobFailed(
            f"stack {self._name!r} ended in {ended.state}: {ended.reason}",
            kind="stack",
            name=self._name,
            reason=ended.reason,
        )

    @contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        """Restate botocore's errors inside the block as ours."""
        from botocore.exceptions import BotoCoreError, ClientError, WaiterError  # noqa: PLC0415

        try:
            yield
        except ClientError as exc:
            error = exc.response["Error"]
            if self._account.is_elsewhere and error["Code"] in _UNKNOWN:
                raise NotSupported(f"the server at hand does not carry out {what}: {error['Message']}") from exc
            raise BackendError(f"stack {self._name!r}: {what}: {error['Code']}: {error['Message']}") from exc
        except WaiterError as exc:
            raise BackendError(f"stack {self._name!r}: {what}: {exc}") from exc
        except BotoCoreError as exc:
            raise BackendUnavailable(f"{what} did not reach AWS: {exc}") from exc


def function_zip(folder: Path) -> bytes:
    """The Python files of *folder* as Lambda takes them: the same bytes for the same files, whenever it is made."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for path in sorted(folder.rglob("*.py")):
            member = zipfile.ZipInfo(path.relative_to(folder).as_posix())  # dated 1980
            member.create_system = 3  # Unix, on whatever system it is made
            member.external_attr = _FILE_MODE << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            bundle.writestr(member, path.read_bytes())
    return buffer.getvalue()


@dataclass
class _Ended:
    """What the events of one operation have shown so far."""

    stack_arn: str
    state: str = ""
    reason: str = ""

    def see(self, event: dict[str, Any]) -> None:
        status, reason = event.get("ResourceStatus", ""), event.get("ResourceStatusReason", "")
        if event.get("PhysicalResourceId") == self.stack_arn:
            self.state = status
            self.reason = self.reason or (reason if _says_failure(status) else "")
        elif _says_failure(status) and _GIVEN_UP not in reason and not self.reason:
            self.reason = f"{event['LogicalResourceId']} ({event['ResourceType']}): {reason}"


def _parameters(stack: dict[str, Any] | None) -> dict[str, str]:
    found = stack.get("Parameters", []) if stack else []
    return {given["ParameterKey"]: given["ParameterValue"] for given in found}


def _tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def _says_failure(status: str) -> bool:
    return status.endswith("_FAILED")


def _is_moving(status: str) -> bool:
    return status.endswith("_IN_PROGRESS") and status != _UNBORN


def _sentence(event: dict[str, Any]) -> str:
    said = f"{event['ResourceStatus']:<24} {event['LogicalResourceId']} ({event['ResourceType']})"
    reason = event.get("ResourceStatusReason", "")
    return f"{said}: {reason}" if reason else said
