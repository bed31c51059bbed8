"""Endpoints on AWS: SageMaker's, and beside them what scales their instances and what watches their changes.

Sources: developer guide, "Automatic scaling of SageMaker AI models" and "Auto-Rollback Configuration and Monitoring".
"""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any

from backends.errors import BackendError, NotFound
from backends.sagemaker.readings import ServiceError
from backends.sagemaker.rooms import SageMakerEndpoints
from backends.specs import Canary, EndpointSpec, Plan, Request, Scaling, Variant

# Operations of other services than SageMaker's two.
SERVICES = {
    "RegisterScalableTarget": "application-autoscaling",
    "PutScalingPolicy": "application-autoscaling",
    "DescribeScalableTargets": "application-autoscaling",
    "DeregisterScalableTarget": "application-autoscaling",
    "PutMetricAlarm": "cloudwatch",
    "DeleteAlarms": "cloudwatch",
}
_INSTANCES = {"ServiceNamespace": "sagemaker", "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}
_POLICY = "greenroom"
# More instances come sooner than they go.
_SCALE_OUT_SECONDS, _SCALE_IN_SECONDS = 60, 300


class AwsEndpoints(SageMakerEndpoints):
    """Endpoints whose instances follow the traffic, and whose changes alarms take back.

    A variant is deregistered before it is deleted or gets instances of another type, which AWS asks for. Alarms are
    there as long as the change that they watch.
    """

    def plan_update(self, spec: EndpointSpec) -> Plan:
        plan = super().plan_update(spec)
        if spec.canary is None:
            return plan
        alarms = [alarm for variant in spec.variants for alarm in _alarms(spec, variant, spec.canary)]
        *before, update = plan.requests
        document: dict[str, Any] = dict(update.document)
        names = [{"AlarmName": alarm.document["AlarmName"]} for alarm in alarms]
        document["DeploymentConfig"] = {**document["DeploymentConfig"], "AutoRollbackConfiguration": {"Alarms": names}}
        return replace(plan, requests=(*before, *alarms, Request(update.operation, document)))

    def plan_scaling(self, spec: EndpointSpec) -> Plan:
        requests = [
            request
            for variant in spec.variants
            if variant.scaling
            for request in _scaling(spec, variant, variant.scaling)
        ]
        return Plan("scaling", spec.name, tuple(requests))

    def submit(self, plan: Plan) -> None:
        documents: dict[str, list[dict[str, Any]]] = {}
        for request in plan.requests:
            documents.setdefault(request.operation, []).append(dict(request.document))
        if plan.kind == "scaling":
            wanted = [document["ResourceId"] for document in documents.get("RegisterScalableTarget", ())]
            self._deregister(plan.name, keep=wanted)
        elif "UpdateEndpoint" in documents:
            self._deregister(plan.name, keep=self._unchanged(plan.name, documents["CreateEndpointConfig"][0]))
        try:
            super().submit(plan)
        except BackendError:
            self._remove_alarms(plan.name, [alarm["AlarmName"] for alarm in documents.get("PutMetricAlarm", ())])
            raise

    def tidy(self, name: str) -> None:
        super().tidy(name)
        self._remove_alarms(name, self._alarms_of(name))

    def delete(self, name: str) -> None:
        with suppress(NotFound):
            if self.status(name).state.is_settled:
                self._deregister(name, keep=())
                self._remove_alarms(name, self._alarms_of(name))
        super().delete(name)

    def _unchanged(self, name: str, config: dict[str, Any]) -> list[str]:
        """The variants that an update to *config* leaves on instances of the same type."""
        current = self._send(name, "DescribeEndpointConfig", EndpointConfigName=self._config_in_use(name))
        types = {variant["VariantName"]: variant.get("InstanceType") for variant in current["ProductionVariants"]}
        return [
            _resource(name, variant["VariantName"])
            for variant in config["ProductionVariants"]
            if types.get(variant["VariantName"]) == variant.get("InstanceType")
        ]

    def _deregister(self, name: str, *, keep: Collection[str]) -> None:
        """Scale the endpoint's variants no more, but for *keep*. A place without that service has nothing to forget."""
        described = self._send(name, "DescribeEndpoint", EndpointName=name)
        variants = [each for each in described.get("ProductionVariants", ()) if "CurrentServerlessConfig" not in each]
        resources = [_resource(name, variant["VariantName"]) for variant in variants]
        if not set(resources) - set(keep):
            return
        try:
            found = self._call("DescribeScalableTargets", {**_INSTANCES, "ResourceIds": resources})["ScalableTargets"]
        except ServiceError as error:
            if error.code == "UnknownOperationException":
                return
            raise BackendError(f"endpoint {name!r} in {self._place}: {error}", kind=self.kind, name=name) from error
        for target in found:
            if target["ResourceId"] not in keep:
                self._send(name, "DeregisterScalableTarget", **_INSTANCES, ResourceId=target["ResourceId"])

    def _alarms_of(self, name: str) -> list[str]:
        """Those of ours that watched the endpoint's last change."""
        deployment = self._send(name, "DescribeEndpoint", EndpointName=name).get("LastDeploymentConfig", {})
        alarms = deployment.get("AutoRollbackConfiguration", {}).get("Alarms", ())
        return [alarm["AlarmName"] for alarm in alarms if alarm["AlarmName"].startswith(alarm_name(name))]

    def _remove_alarms(self, name: str, alarms: list[str]) -> None:
        for alarm in alarms:  # One by one: if one of several is missing, CloudWatch deletes none.
            with suppress(NotFound):
                self._send(name, "DeleteAlarms", AlarmNames=[alarm])


def alarm_name(endpoint: str, *parts: str) -> str:
    """What an alarm of ours is called. A slash is in no endpoint's name, so none begins like another's."""
    return "/".join(["greenroom", endpoint, *parts])


def _resource(endpoint: str, variant: str) -> str:
    return f"endpoint/{endpoint}/variant/{variant}"


def _scaling(spec: EndpointSpec, variant: Variant, scaling: Scaling) -> list[Request]:
    target = {**_INSTANCES, "ResourceId": _resource(spec.name, variant.name)}
    limits = {"MinCapacity": scaling.min_instances, "MaxCapacity": scaling.max_instances}
    tracking = {
        "TargetValue": scaling.invocations_per_minute,
        "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
        "ScaleOutCooldown": _SCALE_OUT_SECONDS,
        "ScaleInCooldown": _SCALE_IN_SECONDS,
    }
    policy = {
        "PolicyName": _POLICY,
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": tracking,
    }
    tags = {"Tags": dict(spec.tags)} if spec.tags else {}
    return [
        Request("RegisterScalableTarget", {**target, **limits, **tags}),
        Request("PutScalingPolicy", {**target, **policy}),
    ]


def _alarms(spec: EndpointSpec, variant: Variant, canary: Canary) -> list[Request]:
    common = {
        "Namespace": "AWS/SageMaker",
        "Dimensions": [
            {"Name": "EndpointName", "Value": spec.name},
            {"Name": "VariantName", "Value": variant.name},
        ],
        "Period": 60,
        "EvaluationPeriods": 1,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
    }
    if spec.tags:
        common["Tags"] = [{"Key": key, "Value": value} for key, value in sorted(spec.tags.items())]
    errors = {"MetricName": "Invocation5XXErrors", "Statistic": "Average", "Threshold": canary.error_share}
    # ModelLatency is in microseconds.
    latency = {"MetricName": "ModelLatency", "ExtendedStatistic": "p90", "Threshold": canary.latency_ms * 1000.0}
    return [
        Request("PutMetricAlarm", {"AlarmName": alarm_name(spec.name, variant.name, what), **common, **alarm})
        for what, alarm in (("errors", errors), ("latency", latency))
    ]
