"""What an instance type offers, as far as its name tells: ``ml.m5.xlarge`` is 4 processors with 4 GiB each.

Source: the families' pages of AWS's EC2 documentation. Types outside this table are not emulated.
"""

import re
from typing import NamedTuple

_TYPE = re.compile(r"ml\.(?P<family>[a-z]+\d+[a-z]*)\.(?P<size>medium|large|(?P<times>\d*)xlarge)")
_GIB_PER_VCPU = {
    family: gib
    for gib, families in {
        2: ("c5", "c5d", "c5n", "c6i", "c6id", "c6in", "c7i"),
        4: ("m4", "m5", "m5d", "m5n", "m6i", "m6id", "m7i", "g4dn", "g5", "g6"),
        8: ("r5", "r5d", "r5n", "r6i", "r6id", "r7i"),
    }.items()
    for family in families
}
# The burstable types follow no formula: processors, GiB.
_BURSTABLE = {"medium": (2, 4), "large": (2, 8), "xlarge": (4, 16), "2xlarge": (8, 32)}
_GPU = re.compile(r"ml\.(p|g)\d")


class Instance(NamedTuple):
    """The size of an instance type: virtual processors and memory in GiB."""

    vcpus: int
    gib: int


def size_of(instance_type: str) -> Instance | None:
    """The size of *instance_type*; None where it is not known."""
    found = _TYPE.fullmatch(instance_type)
    if found is None:
        return None
    if found["family"] in {"t2", "t3"}:
        known = _BURSTABLE.get(found["size"])
        return Instance(*known) if known else None
    gib = _GIB_PER_VCPU.get(found["family"])
    if gib is None or found["size"] == "medium":
        return None
    vcpus = 2 if found["size"] == "large" else 4 * int(found["times"] or 1)
    return Instance(vcpus, vcpus * gib)


def has_gpu(instance_type: str) -> bool:
    """Whether the type's family is one with NVIDIA's GPUs."""
    return _GPU.match(instance_type) is not None
