"""``sqlite:``: the table in a file of one machine, shared by its processes.

This module knows SQLite's files, settings and errors; ``sql`` knows the statements. It must not know the meaning of any
key.
"""

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import Insert

from acme_storage import sql
from acme_storage.errors import StorageCorrupt, StorageError, StorageUnavailable
from acme_storage.url import parse

_WAIT = 5.0  # seconds that another process may hold the file's lock

_ADVICE = {
    sqlite3.SQLITE_BUSY: "another process holds its lock; end the one that reads or copies it, or set ?timeout=SECONDS",
    sqlite3.SQLITE_LOCKED: "another connection holds its lock; try again",
    sqlite3.SQLITE_READONLY: "it cannot be written; run as the owner of the file and its folder",
    sqlite3.SQLITE_PERM: "it may not be opened; run as the owner of the file",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; create the folder, and run as its owner",
    sqlite3.SQLITE_IOERR: "the disk failed, or its filesystem cannot share memory (NFS); choose a local disk",
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_NOLFS: "the filesystem does not support files of this size; choose another",
}
_CORRUPT = {
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it, or move it away together with its -wal and -shm",
    sqlite3.SQLITE_NOTADB: "the file is not a SQLite database; choose another path",
}


def open_url(url: str, default_folder: Path) -> "Sqlite":
    """Return the store of ``sqlite:/absolute/path.db``, with ``?timeout=`` and ``?table=``."""
    parsed = parse(url, ("table", "timeout"))
    if parsed.hosts:
        raise ValueError("the storage URL sqlite:// has a host; write sqlite:/its/path.db for a file of this machine")
    if not parsed.path.startswith("/") or parsed.path.endswith("/") or "\0" in parsed.path:
        raise ValueError("the storage URL sqlite: needs an absolute path, such as sqlite:/var/lib/acme.db")
    wait = parsed.number("timeout", _WAIT)
    return Sqlite("/" + parsed.path.lstrip("/"), wait=wait, table=sql.table_name(parsed))


class Sqlite(sql.SqlStorage):
    """A ``Storage`` in the file ``path``, which the first write creates with mode 0600.

    ``now`` gives the time in seconds; all users of the file must share it. If another process holds a lock for more
    than ``wait`` seconds, calls raise ``StorageUnavailable``.
    """

    foreign = (*sql.SqlStorage.foreign, sqlite3.Error, sqlite3.Warning)

    def __init__(
        self, path: str, now: Callable[[], float] = time.time, *, wait: float = _WAIT, table: str = sql.TABLE
    ) -> None:
        self._path = path
        self._wait = wait
        self._writing = threading.Lock()
        self._table = sql.table_of(table)
        engine = _engine(
            self._connect,
            poolclass=sa.QueuePool,
            pool_size=8,
            max_overflow=0,  # opening a connection costs more than waiting for one
            pool_timeout=wait,
            hide_parameters=True,
            pool_logging_name=sql.LOGGING_NAME,
        )
        sa.event.listen(engine, "checkout", self._check_out)
        statements = sql.statements(self._table, Insert, sa.bindparam("now", type_=sa.Double()))
        super().__init__(f"storage sqlite:{path}", engine, statements, now)

    def create(self) -> None:
        """Create the file and the table.

        A new file is created under another name and linked into place when it is complete: if several processes meet
        while one switches the journal mode, they get SQLITE_READONLY and SQLITE_IOERR (observed with four). BEGIN
        IMMEDIATE is not needed, here or elsewhere: each statement is a transaction of its own, and SQLite takes the
        write lock before such a statement reads anything. (Only reading first and then writing fails.)
        """
        if os.path.exists(self._path):  # another program's file, or one that a person created
            with self._engine.connect() as connection:
                self._create_table(connection)
            return
        new = f"{self._path}.{secrets.token_hex(8)}.new"
        try:
            os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))  # -wal and -shm get its mode
            with _engine(lambda: sqlite3.connect(new), poolclass=sa.NullPool).connect() as connection:
                self._create_table(connection)
            with suppress(FileExistsError):  # another process was faster
                os.link(new, self._path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(new)

    def _create_table(self, connection: sa.Connection) -> None:
        deadline = time.monotonic() + self._wait
        # SQLite does not wait for the lock when it changes the journal mode, so wait here.
        while not self._switched_to_wal(connection):
            if time.monotonic() > deadline:
                break  # still correct, and the next process that creates the table switches it
            time.sleep(0.01)
        connection.execute(sa.schema.CreateTable(self._table, if_not_exists=True))
        connection.execute(sa.schema.CreateIndex(sql.index_of(self._table), if_not_exists=True))

    def _switched_to_wal(self, connection: sa.Connection) -> bool:
        try:
            return connection.exec_driver_sql("PRAGMA journal_mode=WAL").scalar() == "wal"
        except sa.exc.OperationalError as error:
            if _code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            return False

    def _execute(self, statement: sa.Executable, values: sql.Parameters) -> list[sa.Row[Any]]:
        if not isinstance(statement, sa.UpdateBase):
            return super()._execute(statement, values)
        # SQLite waits by sleeping, so some of many writers would starve. So this process's writers queue here.
        if not self._writing.acquire(timeout=self._wait):
            raise sa.exc.TimeoutError
        try:
            return super()._execute(statement, values)
        finally:
            self._writing.release()

    def is_new(self, error: Exception) -> bool:
        if _is_missing(error):
            return not os.path.exists(self._path)
        return "no such table" in str(error)  # SQLite has no code for this

    def is_undone(self, error: Exception) -> bool:
        # It could not be opened and yet exists: another thread or process has created it in between.
        return _is_missing(error) and os.path.isfile(self._path)

    def explain(self, error: Exception) -> StorageError:
        if isinstance(error, OSError):
            return StorageUnavailable(
                f"{self.place}: {error.strerror or error}; create the folder, and run as its owner"
            )
        code = _code(error)
        if code in _CORRUPT:
            return StorageCorrupt(f"{self.place}: {_CORRUPT[code]}")
        if isinstance(error, sa.exc.TimeoutError):
            return StorageUnavailable(f"{self.place}: too many calls are waiting; try again")
        cause = getattr(error, "orig", None) or error
        if "no such column" in str(cause) or "has no column" in str(cause):
            return StorageCorrupt(
                f"{self.place}: the table {self._table.name} belongs to another program; set ?table=NAME"
            )
        return StorageUnavailable(f"{self.place}: {_ADVICE.get(code) or cause}")

    def _connect(self) -> sqlite3.Connection:
        # SQLite tries to open for writing, then for reading: a file that appears in between could only be read.
        os.stat(self._path)
        connection = sqlite3.connect(
            f"file:{quote(self._path)}?mode=rw",  # reading does not create the file
            uri=True,
            timeout=self._wait,
            check_same_thread=False,  # the pool lends a connection to one thread at a time
        )
        try:
            connection.execute("PRAGMA synchronous=FULL")  # written values survive a power cut
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _check_out(self, connection: Any, record: Any, _: object) -> None:
        # Otherwise a file that was moved away or replaced (a restored backup) would live on in the open connections.
        try:
            status = os.stat(self._path)
        except OSError:
            raise sa.exc.DisconnectionError from None
        inode = (status.st_dev, status.st_ino)
        if record.info.setdefault("inode", inode) != inode:
            raise sa.exc.DisconnectionError


def _engine(connect: Callable[[], sqlite3.Connection], **arguments: Any) -> sa.Engine:
    """Return an engine whose statements are each a transaction of its own, with these connections."""
    return sa.create_engine(
        "sqlite://", creator=connect, isolation_level="AUTOCOMMIT", logging_name=sql.LOGGING_NAME, **arguments
    )


def _is_missing(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError) or _code(error) == sqlite3.SQLITE_CANTOPEN


def _code(error: Exception) -> int:
    """Return SQLite's primary result code, or 0."""
    cause = getattr(error, "orig", None) or error
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF
