"""``postgresql:``: the table on a PostgreSQL server, shared by all its clients; the server's clock counts.

This module knows libpq's parameters, psycopg and PostgreSQL's error codes; ``sql`` knows the statements. It must not
know the meaning of any key.
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
from acme_storage.errors import StorageCorrupt, StorageError, StorageUnavailable
from acme_storage.url import StorageUrl, is_here, parse

_TIMEOUT = 2.0
_LOCK = 0x61636D65  # "acme", for pg_advisory_xact_lock
_OURS = ("table", "timeout")

_TLS = (
    "its TLS could not be verified; set ?sslrootcert=CA.pem, or ?sslmode=require to encrypt without verifying, "
    "or ?sslmode=disable for no TLS"
)
_REFUSED = {
    "FATAL": "the login is refused; check user, password, database and pg_hba.conf, and that the server is ready",
    "certificate": _TLS,
    "SSL": _TLS,
}
# By the longest matching prefix of the SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
_ADVICE = {
    "08": "the connection failed; check that the server runs and can be reached",
    "28": "the login is refused; check user, password and pg_hba.conf",
    "3D": "there is no such database; create it with createdb",
    "3F": "there is no such schema; create it, or set ?options=-csearch_path%3DNAME",
    "42501": "the user may not do this; grant CREATE on the schema, or SELECT, INSERT, UPDATE and DELETE on the table",
    "53100": "its disk is full; free some space",
    "53": "it is short of memory or connections; raise max_connections, or close others",
    "57": "it is starting or stopping, or cancelled the statement; wait until it is ready",
    "25006": "it is read-only, as a standby is; name all servers and set ?target_session_attrs=read-write",
    "55": "another session holds a lock on the table; end it",
    "40": "others keep changing the same rows; try again",
}
_CORRUPT = ("42703", "42804", "42P10", "42809")  # no such column, other type, no such key, not a table


class TimedOut(psycopg.OperationalError):
    """The server has not answered in time; the connection is closed."""


class Connection(psycopg.Connection[Any]):
    """A connection whose every wait for the server is limited: libpq itself only limits connecting."""

    limit = _TIMEOUT

    def wait[T](self, gen: Generator[Any, Any, T], interval: float = 0.1, timeout: float | None = None) -> T:
        more = {} if timeout is None else {"timeout": timeout}  # psycopg 3.2 does not have this parameter
        return super().wait(self._bounded(gen), min(interval, self.limit / 4), **more)

    def _bounded[T](self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        deadline = time.monotonic() + self.limit
        try:
            waiting = next(gen)
            while True:
                ready = yield waiting
                if not ready and time.monotonic() > deadline:
                    self.pgconn.finish()  # a late reply must not reach the next statement
                    raise TimedOut(f"no reply within {self.limit:g} s")
                waiting = gen.send(ready)
        except StopIteration as end:
            value: T = end.value
            return value


def open_url(url: str, default_folder: Path) -> "Postgresql":
    """Return the store of ``postgresql://user:password@host:port/database``, with libpq's parameters, all optional.

    libpq's environment variables (``PGHOST``, ``PGPASSWORD``, ``PGSSLMODE``, …) provide what is missing.
    """
    conninfo, timeout, table = _reach(url)
    return Postgresql(conninfo, timeout=timeout, table=table)


def plain_text(url: str) -> str:
    """Return what to write instead of a URL that reaches another machine in plain text; empty for any other URL."""
    options = psycopg.pq.Conninfo.get_defaults()
    found = {option.keyword.decode(): (option.val or b"").decode() for option in options} | _reach(url)[0]
    hosts = (found.get("hostaddr") or found["host"]).split(",")
    weak = found["sslmode"] in ("disable", "allow", "prefer") and not found.get("service")
    return "sslmode=verify-full" if weak and not all(map(is_here, hosts)) else ""


def _reach(url: str) -> tuple[dict[str, str], float, str]:
    """Return libpq's parameters, the timeout for an answer (seconds), and the table."""
    options = psycopg.pq.Conninfo.get_defaults()  # with the environment's values
    defaults = {option.keyword.decode(): (option.val or b"").decode() for option in options}
    from_environment = {
        option.keyword.decode() for option in options if option.envvar and option.envvar.decode() in os.environ
    }
    parsed = parse(url, (*_OURS, *defaults))
    conninfo = _conninfo(parsed)
    table, timeout = sql.table_name(parsed), parsed.number("timeout", _TIMEOUT)
    own = {
        "connect_timeout": str(max(2, round(timeout))),  # libpq accepts whole seconds, at least 2
        "tcp_user_timeout": str(round(timeout * 1000)),
        "fallback_application_name": "mitmproxy-acme",
    }
    if not {"service", "sslmode"} & (conninfo.keys() | from_environment):
        own |= _verified(conninfo.get("hostaddr") or conninfo.get("host") or defaults["host"])
    missing = own.keys() - conninfo.keys() - from_environment
    return {**conninfo, **{name: own[name] for name in missing}}, timeout, table


def _conninfo(parsed: StorageUrl) -> dict[str, str]:
    """Return the URL's settings as libpq's parameters."""
    found = {name: parsed.secret(name) or "" for name in parsed.parameters if name not in _OURS}
    parts = {"user": parsed.user, "password": parsed.password, "dbname": parsed.path.removeprefix("/")}
    if parsed.hosts:
        parts["host"] = ",".join(host for host, _ in parsed.hosts)
        if any(port for _, port in parsed.hosts):  # one per host, empty for the default; a single one is for all hosts
            parts["port"] = ",".join(str(port or "") for _, port in parsed.hosts)
    if "/" in parts["dbname"]:
        raise parsed.wrong("takes one database after the host: postgresql://host/name")
    return {**{name: value for name, value in parts.items() if value}, **found}


def _verified(hosts: str) -> dict[str, str]:
    """Return how to verify servers on other machines if no setting says so: libpq itself would not verify them."""
    if all(map(is_here, hosts.split(","))):
        return {}
    if Path("~/.postgresql/root.crt").expanduser().exists() or psycopg.pq.version() < 160_000:
        return {"sslmode": "verify-full"}  # with that file, libpq's own default
    return {"sslmode": "verify-full", "sslrootcert": "system"}


class Postgresql(sql.SqlStorage):
    """A ``Storage`` in the table ``table`` of the database of ``conninfo``; the first write creates the table.

    The server has ``timeout`` seconds for each answer. ``clock`` is for tests; by default the server's clock is used.
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
            use_native_hstore=False,  # it would ask the server about a type that we do not use
            hide_parameters=True,
            logging_name=sql.LOGGING_NAME,
            pool_logging_name=sql.LOGGING_NAME,
        )
        sa.event.listen(engine, "checkout", _check_out)
        # statement_timestamp, not clock_timestamp: only a stable function can use the index.
        server_now: sa.ColumnElement[float] = sa.cast(sa.extract("epoch", sa.func.statement_timestamp()), sa.Double())
        now: sa.ColumnElement[float] = sa.bindparam("now", type_=sa.Double()) if clock else server_now
        place = f"{conninfo.get('host') or 'the local server'}:{conninfo.get('port') or 5432}"
        super().__init__(f"storage postgresql {place}", engine, sql.statements(self._table, Insert, now), clock)

    def create(self) -> None:
        """Create the table and its index, under a lock: two concurrent CREATE TABLE IF NOT EXISTS fail."""
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
            self._engine.dispose()  # it has become a standby: the next call finds the new primary
        if state in _CORRUPT:
            return StorageCorrupt(
                f"{self.place}: the table {self._table.name} belongs to another program; set ?table=NAME"
            )
        fits = [advice for begin, advice in _ADVICE.items() if state.startswith(begin) and state]
        advice = max(fits, key=len) if fits else "check that the server runs and can be reached"
        # Not the server's whole message: its DETAIL may show the row, and so the value.
        primary = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
        text = " ".join((primary or str(cause)).split())[:300]
        if not state:  # libpq gives no code if the connection failed
            advice = next((advice for word, advice in _REFUSED.items() if word in text), advice)
        return StorageUnavailable(f"{self.place}: {text}: {advice}")

    def _connect(self) -> Connection:
        # No prepared statements: behind pgbouncer the next transaction may use another server connection.
        connection = Connection.connect(make_conninfo(**self._conninfo), autocommit=True, prepare_threshold=None)
        connection.limit = self._timeout
        return connection


def _check_out(connection: Any, _record: object, _proxy: object) -> None:
    # An idle server sends nothing. If there is something to read, the server has stopped and said goodbye. Found here,
    # it costs a new connection; found after a swap was sent, it would cost the knowledge of whether that was made.
    if connection.closed:
        raise sa.exc.DisconnectionError
    with selectors.DefaultSelector() as selector:  # select() fails if the proxy has more than 1,024 open files
        selector.register(connection.fileno(), selectors.EVENT_READ)
        if selector.select(0):
            raise sa.exc.DisconnectionError


def _cause(error: Exception) -> BaseException:
    return getattr(error, "orig", None) or error
