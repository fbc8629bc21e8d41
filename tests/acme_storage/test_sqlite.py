"""SQLite: the contract, the file, its processes, its errors."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import settings

from acme_storage import Storage, StorageCorrupt, StorageError, StorageUnavailable, open_storage
from acme_storage.sql_sqlite import Sqlite
from tests.acme_storage.contract import ManualClock, StorageContract, together
from tests.acme_storage.foreign import exceptions_in
from tests.acme_storage.state_machine import StorageMachine

FOREIGN = [
    error
    for error in (OSError(), *exceptions_in(sqlite3, sa.exc))
    if not isinstance(error, getattr(sa.exc, "EmulatedDBAPIException", ()))  # of SQLAlchemy 2.1's asyncio drivers
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "with space?%.db"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(path: Path, clock: ManualClock) -> Iterator[Sqlite]:
    sqlite = Sqlite(str(path), clock, wait=0.2)
    yield sqlite
    sqlite.close()


class TestSqlite(StorageContract):
    """The contract."""

    @pytest.fixture
    def storage(self, tmp_path: Path, clock: ManualClock) -> Iterator[Storage]:
        sqlite = Sqlite(str(tmp_path / "acme.db"), clock)
        yield sqlite
        sqlite.close()


def rows(path: Path) -> int:
    """How many are in the file, whether they have expired or not."""
    with closing(sqlite3.connect(path)) as connection:
        found: int = connection.execute("SELECT count(*) FROM mitmproxy_acme").fetchone()[0]
    return found


class SqliteMachine(StorageMachine):
    """The machine on a new file each time."""

    def open(self, clock: ManualClock) -> Storage:
        self.folder = Path(tempfile.mkdtemp(prefix="acme-machine-"))
        return Sqlite(str(self.folder / "acme.db"), clock)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


SqliteMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=40)
TestMachine = SqliteMachine.TestCase


class TestFile:
    """The file."""

    def test_no_io(self, path: Path, store: Sqlite) -> None:
        """Reads, deletes and swaps of nothing make no file."""
        assert store.get("a") is None
        assert store.keys("") == []
        assert not store.swap("a", b"x", b"y")
        assert store.swap("a", None, None)
        store.delete("a")
        assert os.listdir(path.parent) == []

    def test_private(self, path: Path, store: Sqlite) -> None:
        """The file and what SQLite puts beside it can be read by the owner only, whatever the umask."""
        umask = os.umask(0)
        try:
            store.put("a", b"x")
        finally:
            os.umask(umask)
        files = list(path.parent.iterdir())
        assert len(files) == 3
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}

    def test_survives(self, path: Path, store: Sqlite) -> None:
        """Values are there for who opens it later, by another way of writing the URL too."""
        store.put("a", b"x")
        store.close()
        quoted = str(path).replace("%", "%25").replace("?", "%3F")
        for url in (f"sqlite:{quoted}", f"sqlite://{quoted}", f"SQLITE:///{quoted}?timeout=3"):
            again = open_storage(url, default_folder=Path("/none"))
            assert again.get("a") == b"x"
            again.close()

    def test_tables(self, path: Path, store: Sqlite) -> None:
        """Two tables in one file are two stores."""
        other = Sqlite(str(path), table="other")
        store.put("a", b"x")
        assert other.get("a") is None
        assert other.swap("a", None, b"y")
        assert store.get("a") == b"x"
        other.close()

    def test_created_at_once(self, path: Path) -> None:
        """Many who write first at the same time all succeed, and the file is in WAL mode."""
        stores = [Sqlite(str(path)) for _ in range(8)]
        assert together(lambda number: stores[number].swap("a", None, b"%d" % number), 8).count(True) == 1
        together(lambda number: stores[number].put(f"b/{number}", b"x"), 8)
        assert len(stores[0].keys("b/")) == 8
        for store in stores:
            store.close()
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()

    def test_processes_that_meet_in_making_the_file(self, path: Path) -> None:
        """Four of them, many times: none sees a file that is being made, and nothing is left beside it."""
        code = (
            "import sys\n"
            "from concurrent.futures import ThreadPoolExecutor\n"
            "from acme_storage.sql_sqlite import Sqlite\n"
            "def use(number):\n"
            "    store.get('a'); store.swap(f'b/{number}', None, b'x', ttl=9)\n"
            "    store.keys('c/'); store.put(f'c/{number}', b'x')\n"
            "for line in sys.stdin:\n"
            "    store = Sqlite(line.strip())\n"
            "    with ThreadPoolExecutor(6) as pool: list(pool.map(use, range(6)))\n"
            "    store.close()\n"
            "    print('done', flush=True)\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path("storage").resolve())}

        def start() -> subprocess.Popen[str]:
            command, pipe = [sys.executable, "-c", code], subprocess.PIPE
            return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1, env=environment)

        with ExitStack() as stack:
            children = [stack.enter_context(start()) for _ in range(4)]
            for turn in range(8):
                for child in children:
                    assert child.stdin
                    child.stdin.write(f"{path.parent / str(turn)}.db\n")
                assert [child.stdout and child.stdout.readline() for child in children] == ["done\n"] * 4
            for child in children:
                assert child.stdin
                child.stdin.close()
        assert not list(path.parent.glob("*.new*"))

    def test_processes(self, path: Path, store: Sqlite) -> None:
        """Swaps of several processes: a counter loses nothing."""
        code = (
            "import sys; from acme_storage.sql_sqlite import Sqlite; store = Sqlite(sys.argv[1])\n"
            "for _ in range(100):\n"
            "    while not store.swap('n', old := store.get('n'), b'%d' % (int(old or b'0') + 1)): pass\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path("storage").resolve())}
        command = [sys.executable, "-c", code, str(path)]
        children = [subprocess.Popen(command, env=environment) for _ in range(3)]
        assert [child.wait(60) for child in children] == [0, 0, 0]
        assert store.get("n") == b"300"

    def test_replaced(self, path: Path, store: Sqlite) -> None:
        """If the file is moved away, the next write goes to a new one."""
        store.put("a", b"x")
        for file in list(path.parent.iterdir()):
            file.rename(path.parent.parent / f"moved-{file.name}")
        assert store.get("a") is None
        store.put("b", b"y")
        assert path.exists()
        assert store.keys("") == ["b"]

    def test_connection_that_cannot_be_set_up_is_closed(self, store: Sqlite, monkeypatch: pytest.MonkeyPatch) -> None:
        """Or each try would leave one open."""
        store.put("a", b"x")
        closed = list[bool]()

        class Broken:
            def execute(self, statement: str) -> None:
                raise sqlite3.OperationalError("disk I/O error")

            def close(self) -> None:
                closed.append(True)

        monkeypatch.setattr(sqlite3, "connect", lambda *_, **__: Broken())
        with pytest.raises(sqlite3.OperationalError):
            store._connect()
        assert closed == [True]

    def test_backup_that_is_put_in_its_place_is_read(self, path: Path, store: Sqlite) -> None:
        """By connections that are open, too: a file is known by its inode."""
        backup = Sqlite(str(path.parent / "backup.db"))
        store.put("a", b"now")
        backup.put("a", b"before")
        backup.close()
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink()
        os.replace(path.parent / "backup.db", path)
        assert store.get("a") == b"before"

    @pytest.mark.parametrize("swaps", [False, True])
    def test_expired_rows_go(self, path: Path, store: Sqlite, clock: ManualClock, swaps: bool) -> None:
        """Expired rows are removed from the file even if they are never read: by puts, and by swaps, as of leases."""
        for number in range(70):
            store.put(f"a/{number}", b"x", ttl=10)
        clock.advance(11)
        store.put("b", b"x")
        for _ in range(64):
            if swaps:
                assert store.swap("b", b"x", b"x", ttl=10)
            else:
                store.put("b", b"x", ttl=10)
        assert rows(path) == 1

    def test_sweep_is_bounded(self, path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
        """A visitor's handshake does not wait while a million rows are removed."""
        monkeypatch.setattr("acme_storage.sql._SWEEP_ROWS", 3)
        store = Sqlite(str(path), clock)
        for number in range(10):
            store.put(f"a/{number}", b"x", ttl=10)
        clock.advance(11)
        store._expiring = count()
        for left in (8, 5):
            store.put("b", b"x", ttl=10)
            assert rows(path) == left
            store._expiring = count()
        store.close()

    @pytest.mark.parametrize(("undone", "tries"), [(False, 2), (True, 20)])
    def test_dead_server_is_tried_twice(
        self, store: Sqlite, monkeypatch: pytest.MonkeyPatch, undone: bool, tries: int
    ) -> None:
        """Once more after a restart; only what the database itself undid is sent until it succeeds, within bounds."""
        sent = list[object]()

        def cut(*_: object) -> list[object]:
            sent.append(_)
            raise OSError("the connection is gone")

        monkeypatch.setattr(store, "_execute", cut)
        monkeypatch.setattr(store, "is_cut", lambda _: not undone)
        monkeypatch.setattr(store, "is_undone", lambda _: undone)
        monkeypatch.setattr(store, "is_new", lambda _: False)
        with pytest.raises(StorageUnavailable):
            store.get("a")
        assert len(sent) == tries

    def test_written_values_survive_a_power_cut(self, path: Path, store: Sqlite) -> None:
        """Each commit is synced, to a log that readers do not wait for; nothing else is left beside the file."""
        store.put("a", b"x")
        assert store._run(sa.text("PRAGMA synchronous"), {})[0][0] == 2
        assert store._run(sa.text("PRAGMA journal_mode"), {})[0][0] == "wal"
        assert {file.name.removeprefix(path.name) for file in path.parent.iterdir()} == {"", "-wal", "-shm"}

    def test_file_that_was_moved_away_is_made_anew(self, path: Path, store: Sqlite) -> None:
        """Open connections do not keep the old one alive."""
        store.put("a", b"x")
        for file in list(path.parent.iterdir()):
            file.unlink()
        assert store.get("a") is None
        store.put("a", b"y")
        assert path.exists()
        assert store.get("a") == b"y"

    def test_table_is_made_in_a_file_that_another_program_uses(self, path: Path, store: Sqlite) -> None:
        """As soon as that lets it; SQLite itself does not wait for a change of the journal mode."""
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("CREATE TABLE theirs (x)")
            other.execute("BEGIN EXCLUSIVE")
            timer = threading.Timer(0.05, other.execute, ["COMMIT"])
            timer.start()
            store.put("a", b"x")
            timer.join()
            assert store.get("a") == b"x"
        with closing(sqlite3.connect(path)) as fresh:
            assert fresh.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    def test_words_of_sqlite_are_told(self, store: Sqlite) -> None:
        """Whether SQLAlchemy has wrapped them or not."""
        bare = sqlite3.OperationalError("no good")
        for error in (bare, sa.exc.OperationalError("SELECT", {}, bare)):
            assert str(store.explain(error)).endswith(": no good")

    def test_file_that_another_program_does_not_let_go(self, path: Path, store: Sqlite) -> None:
        """The call ends, and says why."""
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("CREATE TABLE theirs (x)")
            other.execute("BEGIN EXCLUSIVE")
            started = time.monotonic()
            with pytest.raises(StorageUnavailable, match="another process holds its lock"):
                store.put("a", b"x")
            assert time.monotonic() - started < 5

    def test_writer_that_waits_too_long_is_told(self, store: Sqlite) -> None:
        """Writers of one process queue; the one whose turn does not come ends, and readers go on."""
        store.put("a", b"x")
        with store._writing:
            with pytest.raises(StorageUnavailable, match="too many calls are waiting; try again"):
                store.put("a", b"y")
            assert store.get("a") == b"x"
        store.put("a", b"y")

    def test_page_costs_a_page(self, path: Path, store: Sqlite) -> None:
        """Pages, single values and sweeps are found by an index, whatever the number of rows."""
        store.put("a", b"x", ttl=10)
        connection = sqlite3.connect(path)
        statements: list[sa.ClauseElement] = [
            store._statements.keys,
            store._statements.get,
            store._statements.replace,
            store._statements.sweep,
        ]
        for statement in statements:
            text = statement.compile(dialect=store._engine.dialect)
            plan = f"EXPLAIN QUERY PLAN {text}"
            steps = [row[3] for row in connection.execute(plan, [1] * plan.count("?"))]
            assert steps, plan
            assert not [step for step in steps if step.startswith("SCAN mitmproxy_acme") or "TEMP B-TREE" in step]
        connection.close()


class TestErrors:
    """Error messages for the operator."""

    def test_locked(self, path: Path, store: Sqlite) -> None:
        """A lock that is held too long makes writes unavailable, while reads work; afterwards all works."""
        store.put("a", b"x")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailable, match="another process holds its lock"):
            store.swap("a", b"x", b"y")
        assert store.get("a") == b"x"
        other.execute("ROLLBACK")
        other.close()
        assert store.swap("a", b"x", b"y")

    def test_no_folder(self, tmp_path: Path) -> None:
        """A folder that isn't there is named."""
        store = Sqlite(str(tmp_path / "none" / "acme.db"))
        assert store.get("a") is None
        with pytest.raises(StorageUnavailable, match=r"none/acme\.db: No such file or directory; create the folder"):
            store.put("a", b"x")

    def test_folder_in_place(self, tmp_path: Path) -> None:
        """A folder is no database."""
        store = Sqlite(str(tmp_path))
        calls: list[Callable[[], object]] = [lambda: store.get("a"), lambda: store.put("a", b"x")]
        for call in calls:
            with pytest.raises(StorageUnavailable, match="cannot be opened"):
                call()

    def test_no_database(self, path: Path, store: Sqlite) -> None:
        """A file of another kind is corrupt, and is left as it is."""
        path.write_text("this is a text, and not a database\n" * 100)
        calls: list[Callable[[], object]] = [
            lambda: store.get("a"),
            lambda: store.put("a", b"x"),
            lambda: store.keys(""),
        ]
        for call in calls:
            with pytest.raises(StorageCorrupt, match="not a SQLite database"):
                call()
        assert path.read_text().startswith("this is a text")

    def test_value_that_is_too_long_is_corrupt(self, path: Path, store: Sqlite) -> None:
        """No adapter wrote it, and it is not even read."""
        store.put("a", b"x")
        connection = sqlite3.connect(path)
        connection.execute("UPDATE mitmproxy_acme SET value = zeroblob(10000000)")
        connection.commit()
        connection.close()
        with pytest.raises(StorageCorrupt, match="was not written by this store"):
            store.get("a")
        store.delete("a")
        assert store.get("a") is None

    def test_foreign_table(self, path: Path, store: Sqlite) -> None:
        """A table of the same name that isn't ours is left alone."""
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE mitmproxy_acme (id INTEGER)")
        connection.close()
        calls: list[Callable[[], object]] = [
            lambda: store.get("a"),
            lambda: store.put("a", b"x"),
            lambda: store.keys(""),
        ]
        for call in calls:
            with pytest.raises(StorageCorrupt, match="belongs to another program; set \\?table="):
                call()

    def test_foreign_row(self, path: Path, store: Sqlite) -> None:
        """A value that isn't bytes is corrupt to get, equals no old value, is listed, and can be deleted."""
        store.put("b", b"x")
        connection = sqlite3.connect(path)
        connection.execute("INSERT INTO mitmproxy_acme (key, value) VALUES ('a', 'text')")
        connection.commit()
        connection.close()
        with pytest.raises(StorageCorrupt, match="row of a was not written"):
            store.get("a")
        assert not store.swap("a", b"text", b"y")
        assert not store.swap("a", None, b"y")
        assert store.keys("") == ["a", "b"]
        store.delete("a")
        assert store.get("a") is None

    def test_mapped(self, store: Sqlite, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever the libraries raise comes out as an error of ours, at creation too."""
        for error in FOREIGN:
            raises(error, store, monkeypatch)
            with pytest.raises(StorageError, match=r"^storage sqlite:"):
                store.put("a", b"x")
            with pytest.raises(StorageError, match=r"^storage sqlite:"):
                store._make_table()


def raises(error: Exception, store: Sqlite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all that the store does with SQLite raise this."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(store, "_execute", fail)
    monkeypatch.setattr(store, "create", fail)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("sqlite:", "absolute path"),
        ("sqlite:acme.db", "absolute path"),
        ("sqlite:/", "absolute path"),
        ("sqlite://hunter2@host/x.db", "has a host"),
        ("sqlite:/x.db?mode=hunter2", "unknown parameter 'mode'; known are table, timeout"),
        ("sqlite:/x.db?timeout=hunter2", "timeout must be a number above zero"),
        ("sqlite:/x.db?timeout=0", "timeout must be a number above zero"),
        ("sqlite:/x.db?table=hunter2;drop", "needs a table"),
        ("sqlite:/x.db?table=a&table=b", "twice"),
        ("sqlite:/x.db#a", "must not contain a #"),
    ],
)
def test_wrong(url: str, sentence: str) -> None:
    """A wrong URL is refused in one sentence that says what would be right."""
    with pytest.raises(ValueError, match=sentence) as caught:
        open_storage(url, default_folder=Path("/default"))
    assert "hunter2" not in str(caught.value)
