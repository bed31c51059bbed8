"""The tagging API: what there is, by its tags."""

from collections.abc import Iterator

from backends.emulator.protocol.models import Members
from backends.emulator.services import Service
from backends.emulator.services.s3.buckets import read_token, token_behind
from backends.engine import Engine, tags
from backends.naming import partition_of
from backends.stores.files import FileStore

_PAGE = 50
Tags = dict[str, str]


class Tagging(Service):
    """Resources of the engine and buckets, as far as they have tags."""

    name = "resourcegroupstaggingapi"

    def __init__(self, engine: Engine) -> None:
        self._site = engine.site

    def get_resources(self, request: Members) -> Members:
        """GetResources by tags, in the order of their ARNs, a page at a time. Types are not told apart."""
        wanted = request.get("TagFilters", [])
        behind = read_token(request.get("PaginationToken"))
        found = sorted((arn, tags) for arn, tags in self._every() if arn > behind and _matches(tags, wanted))
        size = request.get("ResourcesPerPage", _PAGE)
        answer: Members = {
            "ResourceTagMappingList": [
                {"ResourceARN": arn, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
                for arn, tags in found[:size]
            ],
            "PaginationToken": token_behind(found[size - 1][0]) if len(found) > size else "",
        }
        return answer

    def _every(self) -> Iterator[tuple[str, Tags]]:
        yield from tags.every(self._site)
        if isinstance(self._site.store, FileStore):
            buckets, partition = self._site.store.buckets, partition_of(self._site.settings.region).name
            for name, _ in buckets.names():
                if tagging := buckets.setting(name, "BucketTagging"):
                    yield f"arn:{partition}:s3:::{name}", {tag["Key"]: tag["Value"] for tag in tagging["TagSet"]}


def _matches(tags: Tags, wanted: list[Members]) -> bool:
    return all(one["Key"] in tags and (not one.get("Values") or tags[one["Key"]] in one["Values"]) for one in wanted)
