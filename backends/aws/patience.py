"""What a caller of AWS bears: a place that is not reached for a while, an answer that got lost, a role that is new."""

import logging
from typing import Any

from backends.aws.account import Busy
from backends.errors import BackendUnavailable
from backends.sagemaker.readings import ServiceError, says, says_taken, says_under_way
from backends.sagemaker.rooms import Call
from backends.waiting import SYSTEM_CLOCK, Clock, persistent

# How long a role that was just made may be unknown somewhere, and what SageMaker says meanwhile (contract 0.5).
_SETTLING_SECONDS, _SETTLING_PAUSE_SECONDS = 90.0, 5.0
_UNSETTLED = ("Could not assume role", "Could not access model data", "No S3 objects found", "proper pull permissions")

_log = logging.getLogger("greenroom.aws")


def persevering(call: Call, *, patience_seconds: float, pause_seconds: float, clock: Clock = SYSTEM_CLOCK) -> Call:
    """*call*, but if the place has ever been reached, a loss of it is borne for *patience_seconds*.

    What was sent again because its answer got lost may be refused as it had been carried out: a Create counts as
    carried out where what exists says all that was asked for, an endpoint's update or deletion where it is under way.
    Invocations are not repeated.
    """
    reached = False

    def asked(operation: str, document: dict[str, Any]) -> dict[str, Any]:
        nonlocal reached
        if operation == "InvokeEndpoint":
            return call(operation, document)
        sent_again = False

        def attempt() -> dict[str, Any]:
            nonlocal sent_again
            try:
                return call(operation, document)
            except BackendUnavailable:
                sent_again = True
                raise
            except ServiceError as error:
                if (sent_again or error.sent_again) and _is_carried_out(call, operation, document, error):
                    return {}
                raise

        try:
            answer = attempt()
        except BackendUnavailable as lost:
            if not reached and not isinstance(lost, Busy):
                raise
            answer = persistent(attempt, patience_seconds=patience_seconds, pause_seconds=pause_seconds, clock=clock)
        reached = True
        return answer

    return asked


def _is_carried_out(call: Call, operation: str, document: dict[str, Any], refusal: ServiceError) -> bool:
    """Whether *refusal* of what was sent again only says that it has been carried out."""
    if operation.startswith("Create") and says_taken(refusal):
        resource = operation.removeprefix("Create")
        described = call(f"Describe{resource}", {f"{resource}Name": document[f"{resource}Name"]})
        return says(described, {member: value for member, value in document.items() if member != "Tags"})
    if operation not in {"DeleteEndpoint", "UpdateEndpoint"} or not says_under_way(refusal):
        return False
    described = call("DescribeEndpoint", {"EndpointName": document["EndpointName"]})
    if operation == "DeleteEndpoint":
        return bool(described["EndpointStatus"] == "Deleting")
    return says(described.get("PendingDeploymentSummary"), {"EndpointConfigName": document["EndpointConfigName"]})


def settling(call: Call, clock: Clock = SYSTEM_CLOCK) -> Call:
    """*call*, but for 90 s what IAM has not made known everywhere yet is asked for again, which is said in the log."""

    def asked(operation: str, document: dict[str, Any]) -> dict[str, Any]:
        deadline = clock.now() + _SETTLING_SECONDS
        while True:
            try:
                return call(operation, document)
            except ServiceError as error:
                if clock.now() >= deadline or not any(text in error.message for text in _UNSETTLED):
                    raise
                _log.warning(
                    "%s: %s. The role may be new; trying again for %.0f s", operation, error, deadline - clock.now()
                )
            clock.sleep(_SETTLING_PAUSE_SECONDS)

    return asked
