"""Tags of every resource, by its ARN: AddTags, ListTags, DeleteTags (contract 0.2, 0.5).

A resource has at most 50 tags and a page of ListTags at least as many, so there is never a second page.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

from backends.engine.documents import check_range, refuse, required, violation
from backends.engine.site import KINDS, TRAINING, TRANSFORM, Site
from backends.engine.state import Document, Resource
from backends.sagemaker.readings import ServiceError

_MOST_TAGS = 50
_LONGEST_KEY_CHARS = 128
_LONGEST_VALUE_CHARS = 256
_PATTERN = r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)"
_PUNCTUATION = frozenset("_.:/=+-@")
_ARN_PATTERN = "arn:aws[a-z-]*:sagemaker:[a-z0-9-]*:[0-9]{12}:.+"


def add(site: Site, request: Document) -> Document:
    """AddTags: a key that is there gets the new value. Answers with all tags that the resource has by then."""
    resource = _find(site, request)
    new = _read(required(request, "Tags"))

    def change(facts: Document) -> None:
        facts["tags"] = _tags(resource.request, facts) | new
        if len(facts["tags"]) > _MOST_TAGS:
            raise ServiceError(
                "ResourceLimitExceeded",
                f"A resource can have {_MOST_TAGS} tags; {request['ResourceArn']} would have {len(facts['tags'])}.",
            )

    return {"Tags": _listed(site.state.edit(resource, change) or {"tags": {}})}


def listing(site: Site, request: Document) -> Document:
    """ListTags."""
    check_range(request.get("MaxResults"), "MaxResults", _MOST_TAGS)
    if request.get("NextToken"):
        raise refuse("The NextToken is not valid for this request; start again without one.")
    resource = _find(site, request)
    return {"Tags": _listed({"tags": _tags(resource.request, resource.facts)})}


def delete(site: Site, request: Document) -> Document:
    """DeleteTags; quiet where there is no such tag."""
    resource, keys = _find(site, request), set(required(request, "TagKeys"))

    def change(facts: Document) -> None:
        facts["tags"] = {key: value for key, value in _tags(resource.request, facts).items() if key not in keys}

    site.state.edit(resource, change)
    return {}


def every(site: Site) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the ARN and the tags of each resource that has any."""
    for kind in KINDS:
        for resource in site.state.every(kind):
            if tags := _tags(resource.request, resource.facts):
                yield site.arn(kind, resource.name), tags


def check_tags(request: Document) -> None:
    """Refuse a Create request whose tags could not be given."""
    tags = request.get("Tags", [])
    if len(tags) > _MOST_TAGS:
        raise violation(tags, "Tags", f"Member must have length less than or equal to {_MOST_TAGS}")
    _read(tags)


def _find(site: Site, request: Document) -> Resource:
    arn = required(request, "ResourceArn")
    if not re.fullmatch(_ARN_PATTERN, arn):
        raise violation(arn, "ResourceArn", f"Member must satisfy regular expression pattern: {_ARN_PATTERN}")
    kind, name = site.named_by(arn)
    resource = site.state.find_any_case(kind, name)
    if resource is not None:
        return resource
    if kind in {"", TRAINING}:
        raise refuse("Requested resource not found.")
    if kind == TRANSFORM:
        raise refuse(f"Could not find requested job with name: {name}")
    raise refuse(f'Could not find {kind} "{arn}".')


def _tags(request: Document, facts: Document) -> dict[str, str]:
    """The tags of a resource: those that it was made with, until they are changed."""
    known: dict[str, str] | None = facts.get("tags")
    return {tag["Key"]: tag["Value"] for tag in request.get("Tags", [])} if known is None else known


def _listed(facts: Document) -> list[Document]:
    return [{"Key": key, "Value": value} for key, value in facts["tags"].items()]


def _read(tags: Iterable[Document]) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, tag in enumerate(tags, 1):
        key, value = required(tag, "Key"), required(tag, "Value")
        _check_text(key, f"Tags.{number}.member.Key", 1, _LONGEST_KEY_CHARS)
        _check_text(value, f"Tags.{number}.member.Value", 0, _LONGEST_VALUE_CHARS)
        if key.lower().startswith("aws:"):
            raise refuse(f"The tag key {key!r} is not allowed: keys that begin with aws: are AWS's own.")
        if key in found:
            raise refuse(f"The tag key {key!r} is given twice; give each key once.")
        found[key] = value
    return found


def _check_text(text: str, member: str, shortest: int, longest: int) -> None:
    if len(text) < shortest:
        raise violation(text, member, f"Member must have length greater than or equal to {shortest}")
    if len(text) > longest:
        raise violation(text, member, f"Member must have length less than or equal to {longest}")
    if not all(character in _PUNCTUATION or unicodedata.category(character)[0] in "LZN" for character in text):
        raise violation(text, member, f"Member must satisfy regular expression pattern: {_PATTERN}")
