"""What can go wrong, as one small tree.

Every error carries the *kind* of thing and its *name*; its text says what was tried, on what, what was found
and what to do next. Branches are also the builtin a caller would expect.
"""


class BackendError(Exception):
    """Root of everything a backend raises on purpose."""

    def __init__(self, message: str, *, kind: str = "", name: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.name = name
        self.reason = reason


class NotFound(BackendError, LookupError):
    """Nothing of that name exists where it was looked for."""


class AlreadyExists(BackendError):
    """The name is taken by another thing of the same kind."""


class Conflict(BackendError):
    """The thing exists but its present state forbids the request."""


class InvalidSpec(BackendError, ValueError):
    """The request can never be carried out as written."""


class JobFailed(BackendError):
    """A job or an endpoint ended in failure; ``reason`` is the platform's FailureReason."""


class ModelError(BackendError):
    """The model's container refused or failed an invocation.

    ``status`` is the container's HTTP status, 0 when it never answered.
    """

    def __init__(self, message: str, *, name: str, status: int, reason: str) -> None:
        super().__init__(message, kind="endpoint", name=name, reason=reason)
        self.status = status


class Throttled(BackendError):
    """More at once than the thing takes; the same request may succeed a little later."""


class WaitTimeout(BackendError, TimeoutError):
    """The wait ended before the thing did; it is still running."""


class NotSupported(BackendError):
    """This backend cannot do that; the text names one that can, or another way."""


class BackendUnavailable(BackendError, ConnectionError):
    """The place itself (a server, a disk, an account) could not be reached."""
