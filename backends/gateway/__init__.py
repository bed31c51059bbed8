"""The gateway on this machine: HTTP in front of a Lambda handler, as API Gateway would be.

    app = create_app(GatewaySettings(FunctionSettings(bundle, environment={...}), web_folder=Path("web")))
    http_server.serve(app, port=8000, on_ready=print)

Importing this package imports no web framework; the names below do, when they are first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends.gateway.app import GatewaySettings, create_app
    from backends.gateway.cors import CorsRule
    from backends.gateway.events import Api
    from backends.gateway.functions import FunctionSettings

__all__ = ["Api", "CorsRule", "FunctionSettings", "GatewaySettings", "create_app"]

_HOME = {
    "Api": "events",
    "CorsRule": "cors",
    "FunctionSettings": "functions",
    "GatewaySettings": "app",
    "create_app": "app",
}


def __getattr__(name: str) -> Any:
    """Import a public name from the module that holds it."""
    import importlib  # noqa: PLC0415 - only when asked

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
