"""Which variant of an endpoint answers (contract B.4): its share of the traffic is weight / sum of weights."""

import random
from collections.abc import Sequence

from backends.engine.state import Document
from backends.sagemaker.readings import ServiceError


def fleet(facts: Document) -> Sequence[Document]:
    """The variants that may answer a request: while an update shifts the traffic, by its share those that are new."""
    shift = facts.get("shift")
    if shift and random.random() < shift["share"]:  # noqa: S311  sharing traffic is no secret
        return shift["variants"]  # type: ignore[no-any-return]
    return facts["variants"]  # type: ignore[no-any-return]


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
