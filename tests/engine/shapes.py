"""SageMaker's own service model as the judge of requests and responses."""

import re
from datetime import datetime
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "long": int,
    "boolean": bool,
    "float": (int, float),
    "double": (int, float),
    "timestamp": (int, float, datetime),
    "blob": bytes,
}


@cache
def service(name: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(name, "service-2"), name)


def _operation(name: str) -> Any:
    return service("sagemaker-runtime" if name == "InvokeEndpoint" else "sagemaker").operation_model(name)


def request_problems(operation: str, document: Any) -> list[str]:
    """What boto3 and the service would not take of *document*."""
    shape = _operation(operation).input_shape
    report = ParamValidator().validate(document, shape)
    return [*report.generate_report().splitlines(), *_problems(document, shape, operation)]


def response_problems(operation: str, document: Any) -> list[str]:
    """Where *document* is not what the service model says that *operation* answers."""
    shape = _operation(operation).output_shape
    if shape is None:
        return [] if document == {} else [f"{operation}: an empty answer was due, not {document}"]
    return _problems(document, shape, operation)


def _problems(value: Any, shape: Any, path: str) -> list[str]:
    if shape.type_name == "structure":
        return _structure_problems(value, shape, path)
    if shape.type_name == "list":
        return [line for item in value for line in _problems(item, shape.member, f"{path}[]")]
    if shape.type_name == "map":
        return [line for item in value.values() for line in _problems(item, shape.value, f"{path}{{}}")]
    if not isinstance(value, _TYPES[shape.type_name]) or (isinstance(value, bool) and shape.type_name != "boolean"):
        return [f"{path}: {value!r} is no {shape.type_name}"]
    return _scalar_problems(value, shape, path)


def _structure_problems(value: Any, shape: Any, path: str) -> list[str]:
    found = [f"{path}.{name} is missing" for name in shape.required_members if name not in value]
    for name, item in value.items():
        if name not in shape.members:
            found.append(f"{path}.{name} is not in the model")
        else:
            found += _problems(item, shape.members[name], f"{path}.{name}")
    return found


def _scalar_problems(value: Any, shape: Any, path: str) -> list[str]:
    found = []
    if getattr(shape, "enum", None) and value not in shape.enum:
        found.append(f"{path}: {value!r} is none of {shape.enum}")
    limits = shape.metadata
    if shape.type_name == "string":
        if not limits.get("min", 0) <= len(value) <= limits.get("max", 10**9):
            found.append(f"{path}: {len(value)} characters")
        pattern = limits.get("pattern")
        # botocore's patterns are Java's; those with Unicode classes are beyond Python's re.
        if pattern and "\\p" not in pattern and not re.fullmatch(pattern, value, re.DOTALL):
            found.append(f"{path}: {value!r} does not match {pattern}")
    return found
