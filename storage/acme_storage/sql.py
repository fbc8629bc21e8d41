"""Values as rows of one table: the common part of SQLite and PostgreSQL.

Each change is one statement, which both databases run as a transaction of its own: there is nothing to roll back, and
no lock outlives a call. This module knows SQLAlchemy and SQL. It must not know what either database's errors mean, how
to connect, or the meaning of any key: ``sql_sqlite`` and ``sql_postgresql`` do.
"""

import logging
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import Insert as PostgresqlInsert
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert

from acme_storage.checks import MAX_VALUE, check_key, check_limit, check_prefix, check_value
from acme_storage.errors import StorageCorrupt, StorageError, StorageUnavailable
from acme_storage.url import StorageUrl

TABLE = "mitmproxy_acme"  # not acme_storage: Kong stores its own rows under that name

_TABLE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,49}")
_SWEEP_EVERY = 64  # expiring writes
_SWEEP_ROWS = 1000
_ATTEMPTS = 20  # if the database undoes a statement because of others: each time at least one of them succeeded

# SQLAlchemy logs every row at DEBUG, with private keys in it, and mitmproxy opens all loggers at DEBUG.
LOGGING_NAME = "acme_storage"
for _kind in ("engine.Engine", "pool.impl.QueuePool"):
    logging.getLogger(f"sqlalchemy.{_kind}.{LOGGING_NAME}").setLevel(logging.WARNING)

type Parameters = Mapping[str, str | bytes | float | None]


class ReplyLost(StorageUnavailable):
    """The connection broke after a statement was sent: it is unknown whether it was carried out."""


def table_name(parsed: StorageUrl) -> str:
    """Return the parameter ``table``, which becomes part of the SQL as it is."""
    name = parsed.text("table") or TABLE
    if not _TABLE_NAME.fullmatch(name):
        raise parsed.wrong("needs a table name of up to 50 lower-case letters, digits and _")
    return name


def table_of(name: str) -> sa.Table:
    """Return the table. ``expires`` is before ``value``, so that SQLite lists keys without reading long values."""
    return sa.Table(
        name,
        sa.MetaData(),
        sa.Column("key", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), primary_key=True),
        sa.Column("expires", sa.Double(), nullable=True),
        sa.Column("stamp", sa.LargeBinary(), nullable=True),
        sa.Column("value", sa.LargeBinary(), nullable=False),
    )


def index_of(table: sa.Table) -> sa.Index:
    """Return the index that finds expired rows, and only holds rows that can expire."""
    expires = table.c.expires
    some = expires.is_not(None)
    return sa.Index(f"{table.name}_expires", expires, sqlite_where=some, postgresql_where=some)


class Statements(NamedTuple):
    """All SQL statements, built once."""

    get: sa.Select[Any]
    keys: sa.Select[Any]
    put: sa.UpdateBase
    create: sa.UpdateBase
    replace: sa.UpdateBase
    remove: sa.UpdateBase
    delete: sa.UpdateBase
    stamp: sa.Select[Any]
    sweep: sa.UpdateBase


def statements(
    table: sa.Table, insert: type[SqliteInsert] | type[PostgresqlInsert], now: sa.ColumnElement[float]
) -> Statements:
    """Return the statements on ``table``; ``now`` is the time in seconds."""
    key, value, expires = table.c.key, table.c.value, table.c.expires
    here = key == sa.bindparam("this_key")
    alive = sa.or_(expires.is_(None), expires > now)
    same = value == sa.bindparam("old_value", type_=sa.LargeBinary())
    new = {
        "value": sa.bindparam("new_value", type_=sa.LargeBinary()),
        "expires": now + sa.bindparam("ttl", type_=sa.Double()),  # NULL without a ttl
        "stamp": sa.bindparam("new_stamp", type_=sa.LargeBinary()),
    }
    insertion = insert(table).values(key=sa.bindparam("this_key"), **new)
    put = insertion.on_conflict_do_update(index_elements=[key], set_=dict(insertion.excluded))
    # In PostgreSQL several may sweep at once: without SKIP LOCKED they could deadlock.
    old = sa.select(key).where(expires <= now).limit(_SWEEP_ROWS).with_for_update(skip_locked=True)
    return Statements(
        # A longer value was not written by this store, and is not even sent.
        get=sa.select(sa.case((sa.func.length(value) <= MAX_VALUE, value), else_=None)).where(here, alive),
        keys=sa.select(key)
        .where(key > sa.bindparam("lower"), key < sa.bindparam("upper"), alive)
        .order_by(key)
        .limit(sa.bindparam("page", type_=sa.BigInteger())),
        put=put,
        create=insertion.on_conflict_do_update(
            index_elements=[key], set_=dict(insertion.excluded), where=expires <= now
        ).returning(key),
        replace=sa.update(table).where(here, same, alive).values(**new).returning(key),
        remove=sa.delete(table).where(here, same, alive).returning(key),
        delete=sa.delete(table).where(here),
        stamp=sa.select(table.c.stamp).where(here),
        sweep=sa.delete(table).where(key.in_(old), expires <= now),
    )


class SqlStorage(ABC):
    """A ``Storage`` in one table, without what differs between the databases.

    ``place`` names the store in messages; ``clock`` gives the time in seconds, None means the database's own.
    """

    def __init__(self, place: str, engine: sa.Engine, sql: Statements, clock: Callable[[], float] | None) -> None:
        self.place = place
        self._engine = engine
        self._statements = sql
        self._clock = clock
        self._expiring = count()

    def get(self, key: str) -> bytes | None:
        check_key(key)
        rows = self._run(self._statements.get, {"this_key": key})
        if not rows:
            return None
        value = rows[0][0]
        if not isinstance(value, bytes):  # SQLite's columns take any type
            raise StorageCorrupt(f"{self.place}: the row of {key} was not written by this store; delete it")
        return value

    def put(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        check_key(key)
        check_value(value, ttl)
        self._run(
            self._statements.put, {"this_key": key, "new_value": value, "ttl": ttl, "new_stamp": None}, create=True
        )
        self._sweep(ttl)

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        check_key(key)
        check_value(new or b"", ttl)
        if old is None and new is None:
            return not self._run(self._statements.get, {"this_key": key})
        stamp = secrets.token_bytes(16)
        statement = (
            self._statements.create
            if old is None
            else self._statements.remove
            if new is None
            else self._statements.replace
        )
        values: Parameters = {"this_key": key, "old_value": old, "new_value": new, "ttl": ttl, "new_stamp": stamp}
        try:
            swapped = bool(self._run(statement, values, create=old is None, repeat=False))
        except ReplyLost as error:
            return self._settle(key, stamp, error)
        if swapped and new is not None:
            self._sweep(ttl)
        return swapped

    def delete(self, key: str) -> None:
        check_key(key)
        self._run(self._statements.delete, {"this_key": key})

    def keys(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[str]:
        check_prefix(prefix)
        check_limit(limit)
        # The keys under "a/" sort between "a/" and "a0", because "0" follows the slash.
        upper = prefix[:-1] + "0" if prefix else "\x7f"
        page = 2**62 if limit is None else limit
        return [
            row[0]
            for row in self._run(self._statements.keys, {"lower": max(prefix, after), "upper": upper, "page": page})
        ]

    def close(self) -> None:
        self._engine.dispose()

    # What differs between the databases

    foreign: tuple[type[Exception], ...] = (sa.exc.SQLAlchemyError, OSError)
    """All exceptions that a call can raise besides our own."""

    @abstractmethod
    def create(self) -> None:
        """Create the table unless it exists. Others may do so at the same moment."""

    @abstractmethod
    def is_new(self, error: Exception) -> bool:
        """Say whether the table does not exist yet."""

    @abstractmethod
    def explain(self, error: Exception) -> StorageError:
        """Return what to raise for a foreign error; this store's only translation of errors."""

    def is_undone(self, error: Exception) -> bool:
        """Say whether the database itself undid the statement and expects it again."""
        return False

    def is_cut(self, error: Exception) -> bool:
        """Say whether the connection broke by itself, as at a restart, so that a new one may help."""
        return False

    # Running a statement

    def _run(
        self, statement: sa.Executable, values: Parameters, *, create: bool = False, repeat: bool = True
    ) -> list[sa.Row[Any]]:
        """Return its rows. If there is no table, create it with ``create``; else there are no rows.

        ``repeat`` says that running it twice does no harm.
        """
        for attempt in range(_ATTEMPTS):
            try:
                return self._execute(statement, values)
            except self.foreign as error:
                problem = error
            if self.is_new(problem):
                if not create:
                    return []
                self._make_table()
            elif self.is_cut(problem) and not repeat:
                raise ReplyLost(str(self.explain(problem))) from problem
            elif not (self.is_undone(problem) or (self.is_cut(problem) and attempt == 0)):
                break
        raise self.explain(problem) from problem

    def _execute(self, statement: sa.Executable, values: Parameters) -> list[sa.Row[Any]]:
        clock = {"now": self._clock()} if self._clock else {}
        with self._engine.connect() as connection:
            result = connection.execute(statement, {**values, **clock})
            return list(result) if result.returns_rows else []

    def _make_table(self) -> None:
        try:
            self.create()
        except self.foreign as error:
            raise self.explain(error) from error

    def _settle(self, key: str, stamp: bytes, lost: ReplyLost) -> bool:
        # Stamps are unique: if ours is there, the swap was made. If not, it may have been made and overwritten, or the
        # statement may still be on its way: the outcome is unknown, and the caller must know that.
        rows = self._run(self._statements.stamp, {"this_key": key})
        if rows and rows[0][0] == stamp:
            return True
        raise lost

    def _sweep(self, ttl: float | None) -> None:
        # Each sweep removes more rows than were written since the last one, so expired rows cannot pile up.
        if ttl is not None and next(self._expiring) % _SWEEP_EVERY == 0:
            with suppress(StorageError):  # the value is written: tidying up must not fail the call
                self._run(self._statements.sweep, {})
