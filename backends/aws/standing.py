"""What of an application is up in an account, in any region, and what it costs; and the logs that it left.

AWS lists resources by their tags, some of them minutes late and some that are gone: each of a kind known here is
asked for itself. Roles and what SageMaker logged have no tags of ours and are found by their names.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from backends.aws.account import AwsAccount, refused_as, translated
from backends.aws.costs import GB_MONTH, HOUR, Item, Prices, instances, load_prices, stored, variants
from backends.aws.roles import roles
from backends.errors import BackendError
from backends.sagemaker.readings import JOB_STATES, ServiceError, says_missing

GLOBAL = "global"  # Where a thing is that belongs to no region.
_REGIONS_AT_ONCE = 8
_JOB_GROUPS = ("/aws/sagemaker/TrainingJobs", "/aws/sagemaker/TransformJobs")
_ENDPOINT_GROUPS = "/aws/sagemaker/Endpoints/"


@dataclass(frozen=True)
class Survey:
    """What is up, and the regions that could not be asked, each with the reason."""

    items: list[Item]
    unseen: dict[str, str]


@dataclass(frozen=True)
class Application:
    """Resources that carry the tag *key* = *value*, or whose name begins with *value* and a hyphen."""

    account: AwsAccount
    key: str
    value: str

    def survey(self) -> Survey:
        """Everything that is up, in every region that the account may use. A server elsewhere stands for one region.

        Raises:
            BackendError: AWS refuses to say which regions there are.
        """
        regions = self._regions()
        items, unseen = self._roles(), dict[str, str]()
        with ThreadPoolExecutor(_REGIONS_AT_ONCE) as pool:
            for region, found in zip(regions, pool.map(self._seen, regions), strict=True):
                if isinstance(found, BackendError):
                    unseen[region] = str(found)
                else:
                    items += found
        return Survey(items, unseen)

    def remove_logs(self) -> list[str]:
        """Remove what jobs and endpoints logged in the account's own region; return what it was."""
        logs = self.account.client("logs")
        gone = []
        with translated("logs"):
            for group, stream in self._streams(logs):
                logs.delete_log_stream(logGroupName=group, logStreamName=stream)
                gone.append(f"log stream {group} {stream}")
            for group, _ in self._groups(logs):
                with refused_as("ResourceNotFoundException"):
                    logs.delete_log_group(logGroupName=group)
                gone.append(f"log group {group}")
        return gone

    def _regions(self) -> list[str]:
        if self.account.is_elsewhere:
            return [self.account.region]
        with translated("regions"):
            return sorted(region["RegionName"] for region in self.account.client("ec2").describe_regions()["Regions"])

    def _seen(self, region: str) -> list[Item] | BackendError:
        try:
            return [*self._tagged(region), *self._logs(region)]
        except BackendError as exc:
            return exc

    def _tagged(self, region: str) -> Iterator[Item]:
        tagging = self.account.client("resourcegroupstaggingapi", region=region)
        with translated(f"resources in {region}"):
            pages = tagging.get_paginator("get_resources").paginate(
                TagFilters=[{"Key": self.key, "Values": [self.value]}]
            )
            arns = [found["ResourceARN"] for page in pages for found in page["ResourceTagMappingList"]]
        for arn in arns:
            _, _, service, _, _, rest = arn.split(":", 5)
            *kind, name = re.split("[:/]", rest.removeprefix("/"), maxsplit=1)
            with translated(arn):
                item = _look(_Tagged(self.account, region, " ".join([service, *kind]), name))
            if item is not None:
                yield item

    def _roles(self) -> list[Item]:
        with translated("roles"):
            found = list(roles(self.account.client("iam"), self.value))
        return [Item(kind="role", name=role["RoleName"], region=GLOBAL) for role in found]

    def _logs(self, region: str) -> Iterator[Item]:
        logs = self.account.client("logs", region=region)
        with translated(f"logs in {region}"):
            for group, size in self._groups(logs):
                prices = stored("CloudWatch Logs", size, region)
                yield Item(kind="log group", name=group, region=region, detail=_shown(size), prices=prices)
            streams = list(self._streams(logs))
        for group in _JOB_GROUPS:
            if count := sum(found == group for found, _ in streams):
                # Of a stream CloudWatch does not say how much it holds.
                unknown = {GB_MONTH: load_prices().price(region, "CloudWatch Logs", GB_MONTH)}
                yield Item(kind="log streams", name=group, region=region, detail=f"{count} of ours", prices=unknown)

    def _groups(self, logs: Any) -> list[tuple[str, int]]:
        """Endpoints' log groups, each with its size in bytes; the application's own name is an endpoint's, too."""
        name = f"{_ENDPOINT_GROUPS}{self.value}"
        pages = logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=name)
        found = [(group["logGroupName"], group["storedBytes"]) for page in pages for group in page["logGroups"]]
        return [(group, size) for group, size in found if group == name or group.startswith(f"{name}-")]

    def _streams(self, logs: Any) -> Iterator[tuple[str, str]]:
        """Jobs' log streams, which lie in groups that all jobs of the account share."""
        for group in _JOB_GROUPS:
            with refused_as("ResourceNotFoundException"):
                pages = logs.get_paginator("describe_log_streams").paginate(
                    logGroupName=group, logStreamNamePrefix=f"{self.value}-"
                )
                for stream in [stream for page in pages for stream in page["logStreams"]]:
                    yield group, stream["logStreamName"]


# --- one kind each: what is said of it, or None where it can never bill again; the refusals of what is gone pass


@dataclass(frozen=True)
class _Tagged:
    """What one ARN names: *kind* is the service and the type as ARNs spell them."""

    account: AwsAccount
    region: str
    kind: str
    name: str

    def client(self, service: str) -> Any:
        return self.account.client(service, region=self.region)

    def item(self, kind: str, detail: str = "", prices: Prices | None = None) -> Item:
        return Item(kind=kind, name=self.name, region=self.region, detail=detail, prices=prices or {})


def _endpoint(found: _Tagged) -> Item:
    sagemaker = found.client("sagemaker")
    endpoint = sagemaker.describe_endpoint(EndpointName=found.name)
    config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    return found.item("endpoint", *variants(config, found.region))


def _endpoint_config(found: _Tagged) -> Item:
    found.client("sagemaker").describe_endpoint_config(EndpointConfigName=found.name)
    return found.item("endpoint configuration")


def _model(found: _Tagged) -> Item:
    found.client("sagemaker").describe_model(ModelName=found.name)
    return found.item("model")


def _training_job(found: _Tagged) -> Item | None:
    job = found.client("sagemaker").describe_training_job(TrainingJobName=found.name)
    return _job(found, "training", job["TrainingJobStatus"], job["ResourceConfig"])


def _transform_job(found: _Tagged) -> Item | None:
    job = found.client("sagemaker").describe_transform_job(TransformJobName=found.name)
    return _job(found, "transform", job["TransformJobStatus"], job["TransformResources"])


def _job(found: _Tagged, what: str, status: str, resources: dict[str, Any]) -> Item | None:
    if JOB_STATES[status].is_terminal:
        return None  # The record of it may stay for ever.
    count, type_name = resources["InstanceCount"], resources["InstanceType"]
    prices = instances(what, type_name, count, found.region)
    return found.item(f"{what} job", f"{count} {type_name}", prices)


def _bucket(found: _Tagged) -> Item | None:
    s3 = found.client("s3")
    if s3.head_bucket(Bucket=found.name).get("BucketRegion", found.region) != found.region:
        return None  # It is asked for there.
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=found.name)
    size = sum(entry["Size"] for page in pages for entry in page.get("Contents", ()))
    return found.item("bucket", _shown(size), stored("S3 Standard", size, found.region))


# What is not here is taken for true, at an unknown price.
_LOOKS: dict[str, Callable[[_Tagged], Item | None]] = {
    "sagemaker endpoint": _endpoint,
    "sagemaker endpoint-config": _endpoint_config,
    "sagemaker model": _model,
    "sagemaker training-job": _training_job,
    "sagemaker transform-job": _transform_job,
    "s3": _bucket,
}


def _look(found: _Tagged) -> Item | None:
    from botocore.exceptions import ClientError  # noqa: PLC0415

    look = _LOOKS.get(found.kind)
    if look is None:
        return found.item(found.kind, prices={HOUR: None})
    try:
        return look(found)
    except ClientError as exc:
        code, message = exc.response["Error"]["Code"], exc.response["Error"]["Message"]
        if (
            code == "404"
            or code.startswith("NoSuch")
            or "NotFound" in code
            or says_missing(ServiceError(code, message))
        ):
            return None
        raise


def _shown(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
