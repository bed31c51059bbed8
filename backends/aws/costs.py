"""What AWS asks for what a plan would make, by the dated table ``prices.toml``."""

import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from backends.specs import Request

Document = Mapping[str, Any]
Prices = Mapping[str, Decimal | None]
"""USD by what is counted, such as "hour" or "GB-month"; None: not known. Empty: it costs nothing."""

HOUR, REQUESTS, GB_MONTH = "hour", "1,000 requests", "GB-month"
AT_MOST, REQUESTS_AT_MOST = f"{HOUR} at most", f"{REQUESTS} at most"
GB = "GB"
_SHORT_REQUESTS = f"{REQUESTS} of 100 ms"
_HOURS_OF_A_MONTH = 730
_SECONDS_OF_AN_HOUR = 3600
# Stands in the table for every region.
_ANYWHERE = "any"
_ALARM_MONTH, _GB_SECOND = "alarm-month", "GB-second"
_LEAST = Decimal("0.000001")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing in an account, planned or up: *detail* says how much of it there is."""

    kind: str
    name: str
    region: str
    detail: str = ""
    prices: Prices = field(default_factory=dict)

    def __str__(self) -> str:
        asked = "; ".join(f"{shown(usd)} per {per}" for per, usd in self.prices.items()) or "free"
        return f"{self.kind} {self.name}" + (f" ({self.detail})" if self.detail else "") + f": {asked}"


@dataclass(frozen=True)
class PriceTable:
    """The prices that are known, by region, what is priced, and what is counted, each with the day it was read."""

    known: Mapping[tuple[str, str, str], tuple[Decimal, date]]

    def price(self, region: str, what: str, per: str) -> Decimal | None:
        """USD, or None: not known."""
        found = self.known.get((region, what, per)) or self.known.get((_ANYWHERE, what, per))
        return found[0] if found else None

    def read(self, regions: Collection[str]) -> str:
        """From when to when the prices of *regions* were read."""
        days = [day for (region, _, _), (_, day) in self.known.items() if region in {*regions, _ANYWHERE}]
        return f"{min(days)} to {max(days)}"


@cache
def load_prices() -> PriceTable:
    """The table that comes with the project."""
    rows = tomllib.loads(Path(__file__).with_name("prices.toml").read_text(encoding="utf-8"))["price"]
    return PriceTable({(row["region"], row["what"], row["per"]): (Decimal(row["usd"]), row["date"]) for row in rows})


def planned(requests: Iterable[Request], region: str) -> list[Item]:
    """What *requests* would make in *region*, in their order."""
    items, types = list[Item](), dict[str, str]()
    for request in requests:
        if request.operation == "CreateEndpointConfig":
            types |= _instance_types(request.document)
        if request.operation == "RegisterScalableTarget":
            items.append(_scaling(request.document, region, types))
        elif request.operation in _MAKERS:
            items.append(_MAKERS[request.operation](request.document, region))
    return items


def by_use(resources: Mapping[str, str], region: str) -> list[Item]:
    """Those of *resources*, CloudFormation's types by name, that bill by what they are used."""
    items = []
    for name, resource in resources.items():
        if resource in _BY_USE:
            kind, asked = _BY_USE[resource]
            prices = {per: load_prices().price(region, what, per) for what, per in asked}
            items.append(Item(kind=kind, name=name, region=region, prices=prices))
    return items


def instances(what: str, type_name: str, count: int, region: str) -> Prices:
    """What *count* instances cost that do *what*: "training", "transform" or "hosting"."""
    return {HOUR: _times(load_prices().price(region, f"{what} {type_name}", HOUR), count)}


def stored(what: str, size_bytes: int, region: str) -> Prices:
    """What it costs by the hour to keep *size_bytes* in *what*, such as "S3 Standard"."""
    share = Decimal(size_bytes) / 10**9 / _HOURS_OF_A_MONTH
    return {HOUR: _times(load_prices().price(region, what, GB_MONTH), share) if size_bytes else Decimal(0)}


def variants(config: Document, region: str) -> tuple[str, Prices]:
    """Of an endpoint configuration: how much there is behind the endpoint, and what it costs."""
    details, prices = [], dict[str, Decimal | None]()
    for variant in config["ProductionVariants"]:
        asked: Prices
        if serverless := variant.get("ServerlessConfig"):
            detail, asked = _serverless(serverless, region)
            details.append(detail)
        else:
            count = variant["InitialInstanceCount"]
            details.append(f"{count} {variant['InstanceType']}")
            asked = instances("hosting", variant["InstanceType"], count, region)
        for per, usd in asked.items():
            before = prices.get(per, Decimal(0))
            prices[per] = None if before is None or usd is None else before + usd
    return ", ".join(details), prices


def total(items: Iterable[Item]) -> Decimal:
    """USD by the hour for all of *items*, as far as their prices are known."""
    return sum((item.prices.get(HOUR) or Decimal(0) for item in items), Decimal(0))


def shown(usd: Decimal | None) -> str:
    """A price as people read it, to a millionth."""
    if usd is None:
        return "unknown"
    if 0 < usd < _LEAST:
        return f"less than {_LEAST:f} USD"
    return f"{usd.quantize(_LEAST).normalize():f} USD"


# --- inside


def _bucket(document: Document, region: str) -> Item:
    prices = {GB_MONTH: load_prices().price(region, "S3 Standard", GB_MONTH)}
    return Item(kind="bucket", name=document["Bucket"], region=region, prices=prices)


def _repository(document: Document, region: str) -> Item:
    prices = {GB_MONTH: load_prices().price(region, "ECR", GB_MONTH)}
    return Item(kind="image repository", name=document["repositoryName"], region=region, prices=prices)


def _role(document: Document, region: str) -> Item:
    return Item(kind="role", name=f"{document['Path']}{document['RoleName']}", region=region)


def _model(document: Document, region: str) -> Item:
    return Item(kind="model", name=document["ModelName"], region=region)


def _training_job(document: Document, region: str) -> Item:
    resources = document["ResourceConfig"]
    count, type_name = resources["InstanceCount"], resources["InstanceType"]
    hours = document["StoppingCondition"]["MaxRuntimeInSeconds"] / 3600
    return Item(
        kind="training job",
        name=document["TrainingJobName"],
        region=region,
        detail=f"{count} {type_name}, at most {hours:g} h",
        prices=instances("training", type_name, count, region),
    )


def _transform_job(document: Document, region: str) -> Item:
    resources = document["TransformResources"]
    count, type_name = resources["InstanceCount"], resources["InstanceType"]
    return Item(
        kind="transform job",
        name=document["TransformJobName"],
        region=region,
        detail=f"{count} {type_name}, until it is done",
        prices=instances("transform", type_name, count, region),
    )


def _endpoint(document: Document, region: str) -> Item:
    detail, prices = variants(document, region)
    return Item(kind="endpoint", name=document["EndpointConfigName"], region=region, detail=detail, prices=prices)


def _serverless(capacity: Document, region: str) -> tuple[str, Prices]:
    """What is provisioned is paid for as long as it is there, and requests to it at a price of their own."""
    memory_mb, warm = capacity["MemorySizeInMB"], capacity.get("ProvisionedConcurrency", 0)
    what = "hosting serverless" + (" provisioned" if warm else "")
    request_second = load_prices().price(region, what, _GB_SECOND)
    hour: Decimal | None = Decimal(0)
    if warm:
        up_second = load_prices().price(region, "hosting serverless provisioned", f"{_GB_SECOND} up")
        hour = _times(up_second, Decimal(warm * memory_mb * _SECONDS_OF_AN_HOUR) / 1024)
    detail = f"serverless, {memory_mb} MB" + (f", {warm} always up" if warm else "")
    return detail, {HOUR: hour, _SHORT_REQUESTS: _times(request_second, Decimal(memory_mb * 100) / 1024)}


def _instance_types(config: Document) -> dict[str, str]:
    """By variant."""
    return {
        each["VariantName"]: each["InstanceType"] for each in config["ProductionVariants"] if "InstanceType" in each
    }


def _scaling(document: Document, region: str, types: Mapping[str, str]) -> Item:
    """*types*: of the instances of each variant in the plan."""
    _, endpoint, _, variant = document["ResourceId"].split("/")
    type_name, most = types.get(variant, ""), document["MaxCapacity"]
    return Item(
        kind="scaling",
        name=endpoint,
        region=region,
        detail=f"{document['MinCapacity']} to {most} {type_name}".rstrip(),
        prices={AT_MOST: instances("hosting", type_name, most, region)[HOUR]},
    )


def _scaling_policy(document: Document, region: str) -> Item:
    return _watching("scaling policy", document["PolicyName"], "its alarms are made by AWS", region)


def _alarm(document: Document, region: str) -> Item:
    return _watching("alarm", document["AlarmName"], "until the change is made", region)


def _watching(kind: str, name: str, detail: str, region: str) -> Item:
    prices = {_ALARM_MONTH: load_prices().price(region, "CloudWatch alarm", _ALARM_MONTH)}
    return Item(kind=kind, name=name, region=region, detail=detail, prices=prices)


# What a request makes that is worth a line in the plan; an endpoint's costs stand in its configuration.
_MAKERS: dict[str, Callable[[Document, str], Item]] = {
    "CreateBucket": _bucket,
    "CreateRepository": _repository,
    "CreateRole": _role,
    "CreateTrainingJob": _training_job,
    "CreateModel": _model,
    "CreateTransformJob": _transform_job,
    "CreateEndpointConfig": _endpoint,
    "PutScalingPolicy": _scaling_policy,
    "PutMetricAlarm": _alarm,
}
# CloudFront's go by where who asks is: at most, as the page's edges are in North America and Europe alone.
_BY_USE: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "AWS::ApiGatewayV2::Api": ("HTTP API", [("HTTP API", REQUESTS)]),
    "AWS::CloudFront::Distribution": ("CloudFront", [("CloudFront", REQUESTS_AT_MOST), ("CloudFront", GB)]),
    "AWS::Lambda::Function": ("Lambda", [("Lambda requests", REQUESTS), ("Lambda", _GB_SECOND)]),
    "AWS::Logs::LogGroup": ("log", [("CloudWatch Logs", f"{GB} written"), ("CloudWatch Logs", GB_MONTH)]),
}


def _times(price: Decimal | None, factor: float | Decimal) -> Decimal | None:
    return None if price is None else price * Decimal(factor)
