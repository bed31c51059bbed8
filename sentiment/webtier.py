"""The page on AWS, and the hour at which its endpoint goes: the application's web stack."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from backends.aws.account import AwsAccount
from backends.aws.costs import by_use
from backends.aws.webstack import Change, ChangeSet, WebStack
from backends.base import ObjectStore
from backends.errors import InvalidSpec, NotSupported
from sentiment.bundle import HANDLER, WEB
from sentiment.reporter import Reporter
from sentiment.settings import EXPIRES_TAG, OWNER_TAG, PROJECT, SentimentSettings

STACK = f"{PROJECT}-web"
_TTL = re.compile(r"(\d{1,5})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_TIME = "%Y-%m-%dT%H:%M:%S"


@dataclass(frozen=True)
class Published:
    """Where the page is, and when its endpoint goes (ISO 8601, UTC; empty: it stays)."""

    url: str
    endpoint: str
    stack: str
    expires: str


class WebTier:
    """The application's stack in *account*, its code in *store*.

    *agree* is asked before anything is changed, and raises where the answer is no.
    """

    def __init__(
        self,
        account: AwsAccount,
        settings: SentimentSettings,
        store: ObjectStore,
        reporter: Reporter,
        agree: Callable[[str], None],
    ) -> None:
        self._account = account
        self._settings = settings
        self._reporter = reporter
        self._agree = agree
        self._stack = WebStack(account, store, STACK, say=reporter.say)

    def publish(self, endpoint: str, ttl: str | None = None) -> Published:
        """Put the page up in front of *endpoint*, or bring it up to date.

        Raises:
            NotSupported: the server in AWS's place cannot hold it.
        """
        try:
            expires = self._expiry(ttl)
            tags = self._tags(expires)
            change_set = self._stack.prepare(
                {"EndpointName": endpoint, "Expires": expires},
                tags=tags,
                function=HANDLER,
                code_uri=f"{self._settings.prefix}/functions",
            )
            self._carry_out(change_set)
            self._reporter.step("7", "Publish the page")
            for name in self._stack.publish(WEB):
                self._reporter.say(name)
            url = self._stack.url
        except NotSupported as exc:
            raise NotSupported(f"{exc} `sentiment web --here` serves the page on this machine.") from exc
        self.own(endpoint, _iso(expires))
        return Published(url, endpoint, STACK, _iso(expires))

    def expire(self, endpoint: str, ttl: str) -> str:
        """Have *endpoint*, which may be yet to come, deleted after *ttl*; returns when (ISO 8601, UTC)."""
        expires = self._expiry(ttl)
        bucket = {"CodeBucket": self._settings.bucket}
        wanted = bucket | self._stack.parameters | {"EndpointName": endpoint, "Expires": expires}
        self._carry_out(self._stack.prepare(wanted, tags=self._tags(expires)))
        return _iso(expires)

    def own(self, endpoint: str, expires: str | None = None) -> None:
        """Tag *endpoint* with whose it is and, unless None, when it goes; empty takes that away."""
        tags = {OWNER_TAG: self._account.owner} | ({EXPIRES_TAG: expires} if expires else {})
        self._stack.tag_endpoint(endpoint, tags, obsolete=[EXPIRES_TAG] if expires == "" else [])

    def remove(self) -> list[str]:
        """Take everything down; what it was."""
        try:
            return [f"stack {STACK}"] if self._stack.delete() else []
        except NotSupported:
            return []  # Where no stack can be, none is.

    def _carry_out(self, change_set: ChangeSet) -> None:
        if change_set.arn:
            self._reporter.say(change_table(change_set.changes))
            there = {change.resource: change.kind for change in change_set.changes if change.action != "Remove"}
            for item in by_use(there, self._account.region):
                self._reporter.say(f"billed by use: {item}")
            try:
                self._agree(f"Change stack {STACK} of account {self._account.id} in {self._account.region} so?")
            except BaseException:
                self._stack.discard(change_set)
                raise
        else:
            self._reporter.say(f"stack {STACK} is as it should be")
        self._stack.apply(change_set)

    def _expiry(self, ttl: str | None) -> str:
        """When the endpoint is to go: *ttl* from now, never for 0, for None when it was to go if that is ahead."""
        if ttl is None:
            stands = self._stack.parameters.get("Expires", "")
            return stands if stands > datetime.now(UTC).strftime(_TIME) else ""
        if ttl == "0":
            return ""
        return (datetime.now(UTC) + lifetime(ttl)).strftime(_TIME)

    def _tags(self, expires: str) -> dict[str, str]:
        tags = {**self._settings.tags, OWNER_TAG: self._account.owner}
        return tags | ({EXPIRES_TAG: _iso(expires)} if expires else {})


def lifetime(ttl: str) -> timedelta:
    """Read ``90m``, ``2h`` or ``3d``.

    Raises:
        InvalidSpec: it is nothing of the kind, or no time at all.
    """
    found = _TTL.fullmatch(ttl)
    if found is None or int(found[1]) == 0:
        raise InvalidSpec(f"--ttl {ttl!r} is no time to live: say 90m, 2h or 3d, or 0 for an endpoint that stays.")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def change_table(changes: Sequence[Change]) -> str:
    """*changes* as text, one line each."""
    if not changes:
        return "no resource changes, only what the stack says of them"
    rows = [(change.action, change.resource, change.kind) for change in changes]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    replacements = {"True": "  replaced", "Conditional": "  perhaps replaced"}
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        + replacements.get(change.replacement, "")
        for row, change in zip(rows, changes, strict=True)
    ]
    return "\n".join(line.rstrip() for line in lines)


def _iso(expires: str) -> str:
    return f"{expires}Z" if expires else ""
