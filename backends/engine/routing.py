"""Which variant of an endpoint answers (contract B.4): its share of the traffic is weight / sum of weights."""

import random
from collections.abc import Sequence

from backends.engine.state import Document
from backends.sagemaker.readings import ServiceError


def choose(variants: Sequence[Document], target: str | None, *, endpoint: str) -> Document:
    """The variant called *target*, else one at random by weight.

    Raises:
        ServiceError: ValidationError if there is no such variant, or none takes traffic.
    """
    if target is not None:
        for variant in variants:
            if variant["name"] == target:
                return variant
        known = ", ".join(variant["name"] for variant in variants)
        raise ServiceError("ValidationError", f"Variant {target} not found for endpoint {endpoint} (known: {known}).")
    if len(variants) == 1:
        return variants[0]
    weights = [variant["weight"] for variant in variants]
    if not any(weights):
        raise ServiceError("ValidationError", f"No variant of endpoint {endpoint} takes traffic: all weights are 0.")
    return random.choices(variants, weights)[0]  # noqa: S311  sharing traffic is no secret
