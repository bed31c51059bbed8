"""What the engine knows, in one SQLite file that any number of processes share.

A *resource* is a training job, model, endpoint … of one name. Its ``request`` is the document that made it and
never changes; its ``facts`` are what the platform adds (status, times, reasons) and change in transactions.
Write-ahead logging lets readers go on while somebody writes; ``synchronous=FULL`` means that what was
acknowledged survives a power cut (case S25).
"""

import json
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from backends.errors import BackendUnavailable

Document = dict[str, Any]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS resource (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    created REAL NOT NULL,
    request TEXT NOT NULL,
    facts TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS resource_by_time ON resource (kind, created);
CREATE INDEX IF NOT EXISTS resource_by_arn ON resource (kind, lower(name));
"""
_VERSION = 1
_MOST_KNOWN = 1000
# A name can be used again; together with the time of creation it is one life of one resource.
_THIS = "WHERE kind = ? AND name = ? AND created = ?"
_ANY_CASE = "WHERE kind = ? AND lower(name) = lower(?)"
_NEXT_OLDER = """
SELECT * FROM resource WHERE kind = ? AND (created, name) < (?, ?) ORDER BY created DESC, name DESC LIMIT 20
"""


class Taken(Exception):
    """A resource of that kind and name exists."""


@dataclass(frozen=True)
class Resource:
    """One resource as it was when it was read; *created* is in seconds since the epoch.

    Its documents are shared by all who read the same text, and must not be altered but in :meth:`State.edit`.
    """

    kind: str
    name: str
    created: float
    request_text: str
    facts_text: str

    @property
    def request(self) -> Document:
        """The document that made it."""
        return _read(self.request_text)

    @property
    def facts(self) -> Document:
        """What the platform has added."""
        return _read(self.facts_text)


class State:
    """The open state file; safe to use from several threads.

    Raises:
        BackendUnavailable: it cannot be opened, or a newer Greenroom wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        try:
            self._prepare()
        except sqlite3.Error as exc:
            raise BackendUnavailable(
                f"the state file {path} cannot be opened: {exc}. Check its folder's permissions and free space, or "
                "choose another GREENROOM_HOME."
            ) from exc

    def _prepare(self) -> None:
        with self._transaction() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version not in {0, _VERSION}:
                raise BackendUnavailable(
                    f"{self._path} was written by a newer Greenroom (format {version}; this one knows {_VERSION}). "
                    "Update Greenroom, or choose another GREENROOM_HOME."
                )
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_VERSION}")

    def insert(self, kind: str, name: str, request: Document, facts: Document) -> Resource:
        """Record a new resource.

        Raises:
            Taken: there is one of that kind and name; names differ by more than case, as ARNs do.
        """
        created = time.time()
        with self._transaction() as db:
            if db.execute(f"SELECT 1 FROM resource {_ANY_CASE}", (kind, name)).fetchone():  # noqa: S608  a constant
                raise Taken(f"{kind} {name}")
            row = (kind, name, created, json.dumps(request), json.dumps(facts))
            db.execute("INSERT INTO resource VALUES (?, ?, ?, ?, ?)", row)
        return Resource(*row)

    def find(self, kind: str, name: str) -> Resource | None:
        """Return the resource, or None."""
        known = self._known()
        if (found := known.get((kind, name))) is None:
            row = self._db().execute("SELECT * FROM resource WHERE kind = ? AND name = ?", (kind, name)).fetchone()
            if row is not None:
                found = known[kind, name] = Resource(*row)
        return found

    def find_any_case(self, kind: str, name: str) -> Resource | None:
        """Return the resource whose name differs from *name* by case at most, or None."""
        row = self._db().execute(f"SELECT * FROM resource {_ANY_CASE}", (kind, name)).fetchone()  # noqa: S608
        return None if row is None else Resource(*row)

    def again(self, resource: Resource) -> Resource | None:
        """Return the resource as it is now; None if it is gone, even if another one has its name by now."""
        found = self.find(resource.kind, resource.name)
        return found if found is not None and found.created == resource.created else None

    def every(self, kind: str) -> Iterator[Resource]:
        """Yield the resources of one kind, newest first, read a few at a time."""
        last = (math.inf, "")
        while rows := self._db().execute(_NEXT_OLDER, (kind, *last)).fetchall():
            for row in rows:
                yield Resource(*row)
            last = (rows[-1][2], rows[-1][1])

    def edit(self, resource: Resource, change: Callable[[Document], bool | None]) -> Document | None:
        """Let *change* alter the facts inside a transaction; return them as they now are.

        Nothing is written if *change* returns False. None if the resource is gone, even if another one has its
        name by now.
        """
        with self._transaction() as db:
            row = db.execute(f"SELECT facts FROM resource {_THIS}", _key(resource)).fetchone()  # noqa: S608  a constant
            if row is None:
                return None
            facts: Document = json.loads(row[0])
            if change(facts) is not False:
                db.execute(f"UPDATE resource SET facts = ? {_THIS}", (json.dumps(facts), *_key(resource)))  # noqa: S608
            return facts

    def update(self, resource: Resource, **facts: object) -> None:
        """Set single facts."""
        self.edit(resource, lambda known: known.update(facts))

    def remove(self, resource: Resource) -> None:
        """Forget the resource; quiet if it is gone."""
        with self._transaction() as db:
            db.execute(f"DELETE FROM resource {_THIS}", _key(resource))  # noqa: S608

    def close(self) -> None:
        """Close this thread's connection; those of other threads close with them."""
        db = getattr(self._local, "db", None)
        if db is not None:
            db.close()
            self._local.db = None

    def _db(self) -> sqlite3.Connection:
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = sqlite3.connect(self._path, timeout=30, isolation_level=None)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            self._local.db, self._local.version, self._local.known = db, None, {}
        return db

    def _known(self) -> dict[tuple[str, str], Resource]:
        """What this thread has found since the file was last changed, by whomever.

        SQLite counts the changes of all other connections (its "PRAGMA data_version"), at a third of what it takes
        to find a row; those of this one are noticed by :meth:`_transaction`.
        """
        (version,) = self._db().execute("PRAGMA data_version").fetchone()
        if version != self._local.version or len(self._local.known) >= _MOST_KNOWN:
            self._local.version, self._local.known = version, {}
        known: dict[tuple[str, str], Resource] = self._local.known
        return known

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._db()
        db.execute("BEGIN IMMEDIATE")
        self._local.known = {}
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        else:
            db.execute("COMMIT")
        finally:
            self._local.known = {}


@lru_cache(maxsize=512)
def _read(text: str) -> Document:
    """What *text* says: a resource that is asked for is mostly as it was the last time."""
    document: Document = json.loads(text)
    return document


def _key(resource: Resource) -> tuple[str, str, float]:
    return resource.kind, resource.name, resource.created
