"""Models and endpoint configurations as documents (contract B.3, B.4); also how any resource is found and recorded."""

from backends.engine.documents import check_absent, check_choice, check_range, page, refuse, required, required_name
from backends.engine.runners import ImageMissing
from backends.engine.site import ENDPOINT_CONFIG, MODEL, Site
from backends.engine.state import Document, Resource, Taken
from backends.engine.tags import check_tags
from backends.errors import BackendError

_LONGEST_TIMEOUT_SECONDS = 3600
_SHORTEST_TIMEOUT_SECONDS = 60
_MEMORY_SIZES_MB = range(1024, 6145, 1024)
_MOST_AT_ONCE = 200


def create_model(site: Site, request: Document) -> Document:
    """CreateModel: record it; nothing is started. Image and model data must be there (contract 0.3)."""
    name = required_name(request, "ModelName")
    check_absent(request, f"Model '{name}'", ["Containers", "InferenceExecutionConfig"])
    image = required(request, "PrimaryContainer.Image")
    container = request["PrimaryContainer"]
    check_absent(container, f"Model '{name}'", ["AdditionalModelDataSources", "MultiModelConfig"])
    if container.get("Mode", "SingleModel") != "SingleModel":
        raise refuse(f"Model '{name}': this engine serves one model per container for now (Mode SingleModel).")
    try:
        site.runner.check(image)
    except ImageMissing as exc:
        raise refuse(f"Requested image {image} not found. {exc}") from exc
    _check_model_data(site, container)
    record(site, MODEL, name, request)
    return {"ModelArn": site.arn(MODEL, name)}


def describe_model(site: Site, request: Document) -> Document:
    """DescribeModel."""
    model = find(site, MODEL, required_name(request, "ModelName"))
    document = _untagged(model.request) | {"ModelArn": site.arn(MODEL, model.name), "CreationTime": model.created}
    document["PrimaryContainer"] = {"Mode": "SingleModel", **model.request["PrimaryContainer"]}
    document.setdefault("EnableNetworkIsolation", False)
    return document


def delete_model(site: Site, request: Document) -> Document:
    """DeleteModel: only the record goes; endpoints that use it go on."""
    site.state.remove(find(site, MODEL, required_name(request, "ModelName")))
    return {}


def list_models(site: Site, request: Document) -> Document:
    """ListModels."""
    return page(
        site.state.every(MODEL),
        request,
        summary=lambda model: {
            "ModelName": model.name,
            "ModelArn": site.arn(MODEL, model.name),
            "CreationTime": model.created,
        },
        result="Models",
    )


def create_config(site: Site, request: Document) -> Document:
    """CreateEndpointConfig: its models must exist."""
    name = required_name(request, "EndpointConfigName")
    check_absent(
        request,
        f"Endpoint configuration '{name}'",
        ["ShadowProductionVariants", "AsyncInferenceConfig", "DataCaptureConfig", "ExplainerConfig"],
    )
    variants = required(request, "ProductionVariants")
    for variant in variants:
        _check_variant(site, variant)
    if not variants or len({variant["VariantName"].lower() for variant in variants}) < len(variants):
        raise refuse("CreateEndpointConfig needs production variants, each with a name of its own.")
    if any("ServerlessConfig" in variant for variant in variants):
        _check_serverless_only(request)
    record(site, ENDPOINT_CONFIG, name, request)
    return {"EndpointConfigArn": site.arn(ENDPOINT_CONFIG, name)}


def describe_config(site: Site, request: Document) -> Document:
    """DescribeEndpointConfig: the request, with the weight of 1.0 that AWS fills in."""
    config = find(site, ENDPOINT_CONFIG, required_name(request, "EndpointConfigName"))
    document = _untagged(config.request) | {
        "EndpointConfigArn": site.arn(ENDPOINT_CONFIG, config.name),
        "CreationTime": config.created,
    }
    document["ProductionVariants"] = [
        {"InitialVariantWeight": 1.0, **variant} for variant in config.request["ProductionVariants"]
    ]
    document.setdefault("EnableNetworkIsolation", False)
    return document


def delete_config(site: Site, request: Document) -> Document:
    """DeleteEndpointConfig: allowed while in use."""
    site.state.remove(find(site, ENDPOINT_CONFIG, required_name(request, "EndpointConfigName")))
    return {}


def list_configs(site: Site, request: Document) -> Document:
    """ListEndpointConfigs."""
    return page(
        site.state.every(ENDPOINT_CONFIG),
        request,
        summary=lambda config: {
            "EndpointConfigName": config.name,
            "EndpointConfigArn": site.arn(ENDPOINT_CONFIG, config.name),
            "CreationTime": config.created,
        },
        result="EndpointConfigs",
    )


def find(site: Site, kind: str, name: str) -> Resource:
    """The model, configuration or endpoint, or AWS's error for a missing one."""
    resource = site.state.find(kind, name)
    if resource is None:
        raise refuse(f'Could not find {kind} "{site.arn(kind, name)}".')
    return resource


def record(site: Site, kind: str, name: str, request: Document, facts: Document | None = None) -> None:
    """Insert the model, configuration or endpoint, or raise AWS's error for tags or a name that cannot be."""
    check_tags(request)
    try:
        site.state.insert(kind, name, request, facts or {})
    except Taken as exc:
        raise refuse(f'Cannot create already existing {kind} "{site.arn(kind, name)}".') from exc


def _check_variant(site: Site, variant: Document) -> None:
    name = required_name(variant, "VariantName")
    check_absent(variant, f"Variant '{name}'", ["CoreDumpConfig"])
    model = find(site, MODEL, required_name(variant, "ModelName"))
    if "ServerlessConfig" in variant:
        _check_serverless(variant, model.request)
    check_range(variant.get("InitialInstanceCount"), "InitialInstanceCount", 1)
    check_range(variant.get("InitialVariantWeight"), "InitialVariantWeight", 0)
    for member in ("ContainerStartupHealthCheckTimeoutInSeconds", "ModelDataDownloadTimeoutInSeconds"):
        check_range(variant.get(member), member, _SHORTEST_TIMEOUT_SECONDS, _LONGEST_TIMEOUT_SECONDS)


def check_concurrency(serverless: Document) -> None:
    """Refuse a concurrency that a serverless variant cannot have."""
    most = serverless.get("MaxConcurrency")
    warm = serverless.get("ProvisionedConcurrency")
    check_range(most, "ServerlessConfig.MaxConcurrency", 1, _MOST_AT_ONCE)
    check_range(warm, "ServerlessConfig.ProvisionedConcurrency", 1, _MOST_AT_ONCE)
    if most is not None and warm is not None and warm > most:
        raise refuse(f"ProvisionedConcurrency {warm} is more than MaxConcurrency {most}.")


def _check_serverless(variant: Document, model: Document) -> None:
    """What serverless inference cannot do (contract B.4)."""
    what = f"Variant '{variant['VariantName']}' has a ServerlessConfig"
    serverless = variant["ServerlessConfig"]
    memory = required(serverless, "MemorySizeInMB")
    required(serverless, "MaxConcurrency")
    check_concurrency(serverless)
    if memory not in _MEMORY_SIZES_MB:
        raise refuse(f"{what}: MemorySizeInMB is one of {', '.join(map(str, _MEMORY_SIZES_MB))}, not {memory}.")
    for member in ("InstanceType", "InitialInstanceCount", "AcceleratorType", "InstancePools"):
        if variant.get(member):
            raise refuse(f"{what}; it cannot have {member}.")
    for member in ("VpcConfig", "EnableNetworkIsolation"):
        if model.get(member):
            raise refuse(f"{what}; its model cannot have {member}.")
    if "ModelDataSource" in model["PrimaryContainer"]:
        raise refuse(f"{what}; its model needs a ModelDataUrl, not ModelDataSource.")


def _check_serverless_only(request: Document) -> None:
    if len(request["ProductionVariants"]) > 1:
        raise refuse("A variant with a ServerlessConfig is the only one of its endpoint configuration.")
    for member in ("VpcConfig", "EnableNetworkIsolation"):
        if request.get(member):
            raise refuse(f"An endpoint configuration with a ServerlessConfig cannot have {member}.")


def _check_model_data(site: Site, container: Document) -> None:
    uri = container.get("ModelDataUrl")
    is_prefix = False
    if "ModelDataSource" in container:
        if uri is not None:
            raise refuse("ModelDataUrl and ModelDataSource exclude one another; give one of them.")
        path = "PrimaryContainer.ModelDataSource.S3DataSource"
        source = required({"PrimaryContainer": container}, path)
        check_absent(source, "ModelDataSource", ["ManifestS3Uri", "HubAccessConfig"])
        uri = required(source, "S3Uri")
        check_choice(required(source, "S3DataType"), f"{path}.S3DataType", ("S3Prefix", "S3Object"))
        check_choice(required(source, "CompressionType"), f"{path}.CompressionType", ("None", "Gzip"))
        is_prefix = source["S3DataType"] == "S3Prefix"
        if is_prefix and (source["CompressionType"] == "Gzip" or not uri.endswith("/")):
            raise refuse(f"ModelDataSource {uri}: an S3Prefix ends with / and goes with CompressionType None.")
    if uri is not None and not _is_stored(site, uri, is_prefix=is_prefix):
        raise refuse(f"Could not find model data at {uri}. Train the model first, or correct the URL.")


def _is_stored(site: Site, uri: str, *, is_prefix: bool) -> bool:
    try:
        return any(True for _ in site.store.list_objects(uri)) if is_prefix else site.store.exists(uri)
    except BackendError:
        return False


def _untagged(request: Document) -> Document:
    return {key: value for key, value in request.items() if key != "Tags"}
