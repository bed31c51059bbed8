"""The caller's AWS account in one region: the one place where boto3's clients are made."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from backends.config import BackendConfig
from backends.errors import BackendError, BackendUnavailable, InvalidSpec

# What a service says that has too much to do, beside every status from 500 on.
_BUSY = frozenset({"ThrottlingException", "Throttling", "RequestLimitExceeded", "TooManyRequestsException"})
_SERVER_ERROR = 500
# What the value of a tag may not hold, and how long it may be.
_NO_TAG = re.compile(r"[^\w .:/=+@-]")
_LONGEST_TAG = 256


class Busy(BackendUnavailable):
    """AWS has answered, but carries nothing out for now."""


def is_passing(error: Any) -> bool:
    """True when a ClientError of boto3's says that the same request may be carried out a while later."""
    status: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return error.response["Error"]["Code"] in _BUSY or status >= _SERVER_ERROR


class AwsAccount:
    """Clients for the account that boto3's own chain of credentials leads to.

    ``config.endpoint_url`` sends every service elsewhere. Every client retries adaptively: it slows down when it
    is throttled (botocore's retry mode ``adaptive``).

    Raises:
        BackendUnavailable: boto3 is not installed.
    """

    def __init__(self, config: BackendConfig) -> None:
        try:
            import boto3  # noqa: PLC0415  an extra
        except ModuleNotFoundError as exc:
            raise BackendUnavailable("the AWS backend needs boto3: pip install 'greenroom[aws]'.") from exc
        self.region = config.region
        self._endpoint_url = config.endpoint_url
        self._expected = config.expected_account
        self._making_clients = threading.Lock()  # A session may not be used by several threads; a client may.
        self._session: Any = boto3.session.Session(region_name=config.region)

    @property
    def is_elsewhere(self) -> bool:
        """True when another server than AWS's stands for it: near, and free."""
        return bool(self._endpoint_url)

    def client(self, service: str, *, region: str | None = None, attempts: int = 5) -> Any:
        """A boto3 client of *service*; *attempts* counts the first one."""
        from botocore.config import Config  # noqa: PLC0415

        with self._making_clients:
            return self._session.client(
                service,
                region_name=region or self.region,
                endpoint_url=self._endpoint_url or None,
                config=Config(retries={"mode": "adaptive", "total_max_attempts": attempts}),
            )

    @property
    def id(self) -> str:
        """The account's twelve digits; raises as :attr:`caller` does."""
        return str(self.caller["Account"])

    @property
    def owner(self) -> str:
        """Whose the credentials are, as a tag may say it; raises as :attr:`caller` does."""
        name = str(self.caller["Arn"]).rpartition(":")[2].partition("/")[2] or "root"
        return _NO_TAG.sub("-", name)[:_LONGEST_TAG]

    @cached_property
    def caller(self) -> dict[str, Any]:
        """Account, ARN and id of whom the credentials belong to, asked of STS once.

        Raises:
            InvalidSpec: it is not ``expected_account``; nothing was sent to it but this question.
            BackendUnavailable: STS is not reached, or the credentials are refused.
        """
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            found: dict[str, Any] = self.client("sts").get_caller_identity()
        except (BotoCoreError, ClientError) as exc:
            raise BackendUnavailable(
                f"STS does not say whose account this is: {exc}. Is it reached, and are there credentials where "
                "every AWS tool finds them (`aws configure sso`, AWS_PROFILE, AWS_ACCESS_KEY_ID and its secret)?"
            ) from exc
        if self._expected and found["Account"] != self._expected:
            raise InvalidSpec(
                f"the credentials lead to account {found['Account']}, but expected_account is {self._expected}. "
                "Nothing was done; choose other credentials (AWS_PROFILE) or correct expected_account."
            )
        return found


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Restate what botocore raises inside the block as ours; *what* names the thing that was asked for."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        yield
    except ClientError as exc:
        error = exc.response["Error"]
        text = f"{what}: {exc.operation_name} was refused, {error['Code']}: {error['Message']}"
        raise BackendError(text, name=what, reason=error["Code"]) from exc
    except BotoCoreError as exc:
        raise BackendUnavailable(f"{what}: AWS is not reached: {exc}") from exc


@contextmanager
def refused_as(*codes: str) -> Iterator[None]:
    """Leave the block quietly where AWS refuses with one of *codes*."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    try:
        yield
    except ClientError as exc:
        if exc.response["Error"]["Code"] not in codes:
            raise
