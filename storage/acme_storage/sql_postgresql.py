"""``postgresql:``: the table on a PostgreSQL server, shared by all who reach it; its clock is the one that counts.

This module knows libpq's parameters, psycopg and PostgreSQL's error codes; ``sql`` knows the statements. It must not
know any key's meaning.
"""

import os
import selectors
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import errors as pg
from psycopg.conninfo import make_conninfo
from sqlalchemy.dialects.postgresql import Insert

from acme_storage import sql
from acme_storage.address import Address, is_here, parse
from acme_storage.errors import StorageCorrupt, StorageError, StorageUnavailable

_TIMEOUT = 2.0
_LOCK = 0x61636D65  # "acme", for pg_advisory_xact_lock
_OURS = ("table", "timeout")

_TLS = (
    "its TLS could not be verified: set ?sslrootcert=CA.pem, or ?sslmode=require to encrypt without verifying, "
    "or ?sslmode=disable for none"
)
_REFUSED = {
    "FATAL": "it refuses the login: check user, password, database and pg_hba.conf, and that it is ready",
    "certificate": _TLS,
    "SSL": _TLS,
}
# By the beginning of the SQLSTATE, the longest that fits: https://www.postgresql.org/docs/current/errcodes-appendix.html
_ADVICE = {
    "08": "the connection failed: see that the server runs and can be reached",
    "28": "it refuses the login: check user, password and pg_hba.conf",
    "3D": "it has no such database: createdb",
    "3F": "it has no such schema: create it, or set ?options=-csearch_path%3DNAME",
    "42501": "the user may not do this: grant CREATE on the schema, or SELECT, INSERT, UPDATE and DELETE on the table",
    "53100": "its disk is full: free some space",
    "53": "it is short of memory or connections: raise max_connections, or close others",
    "57": "it is starting, stopping or was told to cancel: wait until it is ready",
    "25006": "it is read-only, as a standby is: name all servers and set ?target_session_attrs=read-write",
    "55": "something holds a lock on the table: end it",
    "40": "others changed the same rows again and again: try again",
}
_CORRUPT = ("42703", "42804", "42P10", "42809")  # no such column, other type, no such key, no table


class TimedOut(psycopg.OperationalError):
    """The server has said nothing for too long; the connection is closed."""


class Connection(psycopg.Connection[Any]):
    """One whose every wait for the server ends: libpq itself bounds only the connecting."""

    limit = _TIMEOUT

    def wait[T](self, gen: Generator[Any, Any, T], interval: float = 0.1, timeout: float | None = None) -> T:
        more = {} if timeout is None else {"timeout": timeout}  # which psycopg 3.2 doesn't know
        return super().wait(self._bounded(gen), min(interval, self.limit / 4), **more)

    def _bounded[T](self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        deadline = time.monotonic() + self.limit
        try:
            waiting = next(gen)
            while True:
                ready = yield waiting
                if not ready and time.monotonic() > deadline:
                    self.pgconn.finish()  # a late reply must not meet the next statement
                    raise TimedOut(f"no reply within {self.limit:g} s")
                waiting = gen.send(ready)
        except StopIteration as end:
            value: T = end.value
            return value


def open_url(url: str, default_folder: Path) -> "Postgresql":
    """Return the store of ``postgresql://user:password@host:port/database``, with libpq's parameters, all optional.

    Where the URL is silent, libpq's environment speaks (``PGHOST``, ``PGPASSWORD``, ``PGSSLMODE``, …).
    """
    conninfo, timeout, table = _reach(url)
    return Postgresql(conninfo, timeout=timeout, table=table)


def plain_text(url: str) -> str:
    """Return what to write instead of a URL that reaches another machine in plain text; nothing for any other."""
    options = psycopg.pq.Conninfo.get_defaults()
    found = {option.keyword.decode(): (option.val or b"").decode() for option in options} | _reach(url)[0]
    hosts = (found.get("hostaddr") or found["host"]).split(",")
    weak = found["sslmode"] in ("disable", "allow", "prefer") and not found.get("service")
    return "sslmode=verify-full" if weak and not all(map(is_here, hosts)) else ""


def _reach(url: str) -> tuple[dict[str, str], float, str]:
    """Return libpq's parameters, how long to wait for an answer (seconds), and the table."""
    options = psycopg.pq.Conninfo.get_defaults()  # with what the environment says
    defaults = {option.keyword.decode(): (option.val or b"").decode() for option in options}
    said_elsewhere = {
        option.keyword.decode() for option in options if option.envvar and option.envvar.decode() in os.environ
    }
    address = parse(url, (*_OURS, *defaults))
    conninfo = _conninfo(address)
    table, timeout = sql.table_name(address), address.number("timeout", _TIMEOUT)
    own = {
        "connect_timeout": str(max(2, round(timeout))),  # libpq takes whole seconds, from 2
        "tcp_user_timeout": str(round(timeout * 1000)),
        "fallback_application_name": "mitmproxy-acme",
    }
    if not {"service", "sslmode"} & (conninfo.keys() | said_elsewhere):
        own |= _verified(conninfo.get("hostaddr") or conninfo.get("host") or defaults["host"])
    silent = own.keys() - conninfo.keys() - said_elsewhere
    return {**conninfo, **{name: own[name] for name in silent}}, timeout, table


def _conninfo(address: Address) -> dict[str, str]:
    """Return what the URL says, in libpq's words."""
    found = {name: address.secret(name) or "" for name in address.parameters if name not in _OURS}
    said = {"user": address.user, "password": address.password, "dbname": address.path.removeprefix("/")}
    if address.hosts:
        said["host"] = ",".join(host for host, _ in address.hosts)
        if any(port for _, port in address.hosts):  # one for each host, empty for the default: a single one is for all
            said["port"] = ",".join(str(port or "") for _, port in address.hosts)
    if "/" in said["dbname"]:
        raise address.wrong("takes one database after the host: postgresql://host/name")
    return {**{name: value for name, value in said.items() if value}, **found}


def _verified(hosts: str) -> dict[str, str]:
    """Return how to meet servers on other machines where nobody says: libpq would take whoever says he is the one."""
    if all(map(is_here, hosts.split(","))):
        return {}
    if Path("~/.postgresql/root.crt").expanduser().exists() or psycopg.pq.version() < 160_000:
        return {"sslmode": "verify-full"}  # against that file, libpq's own default
    return {"sslmode": "verify-full", "sslrootcert": "system"}


class Postgresql(sql.SqlStorage):
    """A ``Storage`` in the table ``table`` of the database that ``conninfo`` names, made at the first write.

    The server is given ``timeout`` seconds for each answer. ``clock`` is for tests; the server's own is the default.
    """

    foreign = (*sql.SqlStorage.foreign, psycopg.Error, psycopg.Warning)

    def __init__(
        self,
        conninfo: Mapping[str, str],
        clock: Callable[[], float] | None = None,
        *,
        timeout: float = _TIMEOUT,
        table: str = sql.TABLE,
    ) -> None:
        self._conninfo = dict(conninfo)
        self._timeout = timeout
        self._table = sql.table_of(table)
        engine = sa.create_engine(
            "postgresql+psycopg://",
            creator=self._connect,
            pool_size=4,
            max_overflow=4,
            pool_timeout=2 * timeout,
            isolation_level="AUTOCOMMIT",
            use_native_hstore=False,  # would ask the server about a type that we don't use
            hide_parameters=True,
            logging_name=sql.LOGGING_NAME,
            pool_logging_name=sql.LOGGING_NAME,
        )
        sa.event.listen(engine, "checkout", _check_out)
        # statement_timestamp and not clock_timestamp: only a stable function can use the index.
        server_now: sa.ColumnElement[float] = sa.cast(sa.extract("epoch", sa.func.statement_timestamp()), sa.Double())
        now: sa.ColumnElement[float] = sa.bindparam("now", type_=sa.Double()) if clock else server_now
        place = f"{conninfo.get('host') or 'the local server'}:{conninfo.get('port') or 5432}"
        super().__init__(f"storage postgresql {place}", engine, sql.statements(self._table, Insert, now), clock)

    def create(self) -> None:
        """Make the table and its index, under a lock: two CREATE TABLE IF NOT EXISTS at once fail."""
        with self._engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            connection.execute(sa.schema.CreateTable(self._table, if_not_exists=True))
            connection.execute(sa.schema.CreateIndex(sql.index_of(self._table), if_not_exists=True))
            connection.commit()

    def is_new(self, error: Exception) -> bool:
        return isinstance(_cause(error), pg.UndefinedTable)

    def is_undone(self, error: Exception) -> bool:
        return isinstance(_cause(error), pg.SerializationFailure | pg.DeadlockDetected)

    def is_cut(self, error: Exception) -> bool:
        cut = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
        return cut and not isinstance(_cause(error), TimedOut)

    def explain(self, error: Exception) -> StorageError:
        cause = _cause(error)
        state = getattr(cause, "sqlstate", None) or ""
        if state.startswith("25006"):
            self._engine.dispose()  # it has become a standby: the next call looks for the new primary
        if state in _CORRUPT:
            return StorageCorrupt(f"{self.place}: the table {self._table.name} is another program's: set ?table=NAME")
        fits = [advice for begin, advice in _ADVICE.items() if state.startswith(begin) and state]
        advice = max(fits, key=len) if fits else "see that the server runs and can be reached"
        # Not the whole of a server's message: its DETAIL may show the row, and so the value.
        primary = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
        text = " ".join((primary or str(cause)).split())[:300]
        if not state:  # libpq gives no code for a connection that did not come about
            advice = next((advice for word, advice in _REFUSED.items() if word in text), advice)
        return StorageUnavailable(f"{self.place}: {text}: {advice}")

    def _connect(self) -> Connection:
        # No prepared statements: behind pgbouncer the next transaction may meet another server connection.
        connection = Connection.connect(make_conninfo(**self._conninfo), autocommit=True, prepare_threshold=None)
        connection.limit = self._timeout
        return connection


def _check_out(connection: Any, _record: object, _proxy: object) -> None:
    # An idle server says nothing. If there is something to read, it is the goodbye of one that stopped: found here, it
    # costs a new connection; found after a swap was sent, it would cost the answer to whether that was made.
    if connection.closed:
        raise sa.exc.DisconnectionError
    with selectors.DefaultSelector() as selector:  # select() fails for a proxy with more than 1,024 open files
        selector.register(connection.fileno(), selectors.EVENT_READ)
        if selector.select(0):
            raise sa.exc.DisconnectionError


def _cause(error: Exception) -> BaseException:
    return getattr(error, "orig", None) or error
