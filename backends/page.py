"""How a page's files are sent, wherever it is published: by the gateway on this machine, by CloudFront on AWS."""

from types import MappingProxyType

CACHE_CONTROL = "no-cache"
# A table of our own: the system's differs from one machine to the next, and nosniff makes a wrong type fatal.
CONTENT_TYPES = MappingProxyType(
    {
        ".css": "text/css; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".ico": "image/x-icon",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".png": "image/png",
        ".svg": "image/svg+xml",
        ".txt": "text/plain; charset=utf-8",
        ".webmanifest": "application/manifest+json",
        ".webp": "image/webp",
        ".woff2": "font/woff2",
    }
)
# backends/aws/template.yaml has CloudFront send the same.
SECURITY_HEADERS = (
    (
        "content-security-policy",
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
)


def content_type(suffix: str) -> str:
    """The Content-Type of a file whose name ends in *suffix*, such as ``.html``."""
    return CONTENT_TYPES.get(suffix.lower(), "application/octet-stream")
