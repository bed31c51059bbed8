"""What the options of ``sentiment deploy`` become."""

import pytest

from backends.specs import Canary, EndpointSpec, ModelSpec, Scaling, Serverless, Variant
from sentiment.hosting import Hosting

MODEL = ModelSpec(image="i")


def variant(spec: EndpointSpec) -> Variant:
    """The only one."""
    (only,) = spec.variants
    return only


def test_serverless_is_the_default() -> None:
    """It costs nothing while nobody asks."""
    spec = Hosting().spec("n", MODEL, tags={"a": "b"})
    assert (variant(spec).serverless, spec.canary, spec.tags) == (Serverless(), None, {"a": "b"})
    spec = Hosting(memory_mb=4096, concurrency=20, provisioned_concurrency=2).spec("n", MODEL, tags={})
    assert variant(spec).serverless == Serverless(memory_mb=4096, max_concurrency=20, provisioned_concurrency=2)


def test_real_time_is_instances() -> None:
    """One of the usual type, or as many as asked for; scaled ones begin with the fewest."""
    plain = variant(Hosting(real_time=True).spec("n", MODEL, tags={}))
    assert (plain.serverless, plain.instance_type, plain.instance_count, plain.scaling) == (
        None,
        "ml.m5.large",
        1,
        None,
    )
    hosting = Hosting(real_time=True, instance_type="ml.c5.large", autoscale="2:4", canary="10")
    spec = hosting.spec("n", MODEL, tags={})
    assert (variant(spec).instance_type, variant(spec).instance_count) == ("ml.c5.large", 2)
    assert variant(spec).scaling == Scaling(min_instances=2, max_instances=4)
    assert spec.canary == Canary(percent=10)
    assert Hosting(real_time=True, canary="5:60").spec("n", MODEL, tags={}).canary == Canary(percent=5, wait_seconds=60)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"instances": 2}, "--instances is for real-time endpoints.*--real-time, which bills"),
        ({"instance_type": "ml.m5.large"}, "--instance-type is for real-time"),
        ({"autoscale": "1:4"}, "--autoscale is for real-time"),
        ({"canary": "10"}, "--canary is for real-time"),
        ({"real_time": True, "memory_mb": 1024}, "--memory is for serverless endpoints.*--serverless"),
        ({"real_time": True, "concurrency": 5}, "--concurrency is for serverless"),
        ({"real_time": True, "provisioned_concurrency": 1}, "--provisioned-concurrency is for serverless"),
        ({"real_time": True, "autoscale": "4"}, "such as 1:4"),
        ({"real_time": True, "canary": "a tenth"}, "such as 10"),
        ({"real_time": True, "canary": "10:"}, "such as 10"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], said: str) -> None:
    """Nothing that bills is chosen by accident; the text says what to write."""
    with pytest.raises(ValueError, match=said):
        Hosting(**options)  # type: ignore[arg-type]
