"""PostgreSQL: the contract, the clock, TLS, failures, errors; against a real server."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import psycopg.errors
import pytest
import sqlalchemy as sa
from hypothesis import settings

from acme_storage import Storage, StorageCorrupt, StorageError, StorageUnavailable, open_storage
from acme_storage.sql_postgresql import Postgresql, TimedOut
from tests.acme_storage.contract import ManualClock, StorageContract, together
from tests.acme_storage.foreign import exceptions_in
from tests.acme_storage.server_contract import ServerContract
from tests.acme_storage.state_machine import StorageMachine
from tests.servers import postgresql
from tests.servers.base import free_port
from tests.servers.binaries import need

NOWHERE = Path("/none")
# for callers of psycopg; of SQLAlchemy 2.1's asyncio drivers
NEVER = (psycopg.Rollback, getattr(sa.exc, "EmulatedDBAPIException", psycopg.Rollback))
tables = (f"t{number}" for number in count())


def url(port: int, more: str = "", *, password: str = postgresql.PASSWORD, user: str = "postgres") -> str:
    """A URL of the test server, with a new table unless ``more`` names one."""
    if "table=" not in more:
        more = f"table={next(tables)}&{more}"
    return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{port}/postgres?{more.rstrip('&')}"


def store_at(port: int, more: str = "") -> Postgresql:
    """The store of such a URL."""
    store = open_storage(url(port, more), default_folder=NOWHERE)
    assert isinstance(store, Postgresql)
    return store


def with_clock(store: Postgresql, clock: Callable[[], float]) -> Postgresql:
    """The same store on another clock."""
    return Postgresql(store._conninfo, clock, table=store._table.name)


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Postgresql]:
    need("postgres", "initdb")
    with postgresql.Postgresql(tls=True) as postgres:
        yield postgres


@pytest.fixture
def store(server: postgresql.Postgresql) -> Iterator[Postgresql]:
    postgres = store_at(server.port)
    yield postgres
    postgres.close()


@pytest.fixture
def admin(server: postgresql.Postgresql) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the database's owner."""
    with psycopg.connect(url(server.port).partition("?")[0], autocommit=True) as connection:
        yield connection


class TestPostgresql(StorageContract):
    """The contract."""

    @pytest.fixture
    def storage(self, server: postgresql.Postgresql, clock: ManualClock) -> Iterator[Storage]:
        store = with_clock(store_at(server.port), clock)
        yield store
        store.close()


@pytest.mark.usefixtures("server")
class TestMachine:
    """The state machine."""

    def test_machine(self, server: postgresql.Postgresql) -> None:
        """It answers as the model does, whatever is called in whatever order."""

        class PostgresqlMachine(StorageMachine):
            def open(self, clock: ManualClock) -> Storage:
                return with_clock(store_at(server.port), clock)

        case = PostgresqlMachine.TestCase
        case.settings = settings(max_examples=8, stateful_step_count=40)
        case("runTest").debug()


class TestFailures(ServerContract):
    """The server fails."""

    password = postgresql.PASSWORD

    @pytest.fixture
    def port(self, server: postgresql.Postgresql) -> int:
        return server.port

    @pytest.fixture
    def open_at(self, server: postgresql.Postgresql) -> Callable[[int], Storage]:
        table = next(tables)
        return lambda port: store_at(port, f"table={table}&sslmode=disable")

    def test_lost_reply(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        """After a lost reply the stamp shows whether the swap was made; without it the outcome is unknown."""
        assert isinstance(storage, Postgresql)
        execute = storage._execute

        def swap_and_lose_reply(*arguments: Any) -> bool:
            def lose(statement: Any, values: Any) -> Any:
                monkeypatch.setattr(storage, "_execute", execute)
                execute(statement, values)
                raise sa.exc.OperationalError("", {}, psycopg.OperationalError(), connection_invalidated=True)

            monkeypatch.setattr(storage, "_execute", lose)
            return storage.swap(*arguments)

        assert swap_and_lose_reply("a", b"kept", b"next")
        assert storage.get("a") == b"next"
        with pytest.raises(StorageUnavailable):
            swap_and_lose_reply("a", b"next", None)
        assert storage.get("a") is None
        with pytest.raises(StorageUnavailable):
            swap_and_lose_reply("a", b"not there", b"x")

    def test_failover(self, server: postgresql.Postgresql, port: int) -> None:
        """If the URL has several servers, the running one is used."""
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{port}"
        address = url(port).replace(f"127.0.0.1:{port}", hosts)
        store = open_storage(address, default_folder=NOWHERE)
        assert store.swap("a", None, b"x")
        store.close()

    def test_many_files(self, store: Postgresql) -> None:
        """It works in a process with more than 1,024 open files, as a proxy has."""
        files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
        try:
            assert store.swap("a", None, b"x")
            assert store.get("a") == b"x"
        finally:
            for file in files:
                os.close(file)


class TestServer:
    """What is special about PostgreSQL."""

    def test_its_own_clock(self, store: Postgresql) -> None:
        """Time is the server's, so that nodes whose clocks differ agree."""
        store.put("a", b"x", ttl=60)
        assert store.get("a") == b"x"
        store.put("a", b"x", ttl=0.05)
        store._run(sa.text("SELECT pg_sleep(0.1)"), {})
        assert store.get("a") is None
        assert store.swap("a", None, b"y", ttl=60)

    def test_reads_make_nothing(self, store: Postgresql, admin: psycopg.Connection[Any]) -> None:
        """Reads, deletes and swaps of nothing make no table."""
        assert store.get("a") is None
        assert store.keys("") == []
        assert not store.swap("a", b"x", b"y")
        assert store.swap("a", None, None)
        store.delete("a")
        found = admin.execute("SELECT to_regclass(%s)", [store._table.name]).fetchone()
        assert found == (None,)

    def test_created_at_once(self, server: postgresql.Postgresql) -> None:
        """Many who write first at the same time all succeed."""
        for _ in range(5):
            table = f"table={next(tables)}"
            stores = [store_at(server.port, table) for _ in range(8)]
            together(lambda number: stores[number].put(f"b/{number}", b"x"), 8)  # noqa: B023 - awaited at once
            assert len(stores[0].keys("b/")) == 8
            for store in stores:
                store.close()

    def test_serializable(self, server: postgresql.Postgresql) -> None:
        """A server that isolates more than usual undoes statements; they are made again."""
        store = store_at(server.port, "options=" + quote("-c default_transaction_isolation=serializable"))
        store.put("a", b"0")

        def work(_: int) -> None:
            for _ in range(15):
                while not store.swap("a", old := store.get("a"), b"%d" % (int(old or b"0") + 1)):
                    pass

        together(work, 4)
        assert store.get("a") == b"60"
        store.close()

    def test_sweep(self, store: Postgresql, admin: psycopg.Connection[Any]) -> None:
        """Expired rows are removed even if they are never read, also when several clients sweep at once."""
        clock = ManualClock()
        store = with_clock(store, clock)
        for number in range(200):
            store.put(f"a/{number}", b"x", ttl=10)
        clock.advance(11)

        def work(number: int) -> None:
            for turn in range(40):
                store.put(f"b/{number}/{turn}", b"x", ttl=10)

        together(work, 4)
        query = sa.text(f"SELECT count(*) FROM {store._table.name}")
        assert store._run(query, {})[0][0] == 160
        store.close()

    def test_sweep_waits_for_nobody(self, store: Postgresql, admin: psycopg.Connection[Any]) -> None:
        """Several nodes may sweep at once: what another one has locked is left to it, or they could deadlock."""
        clock = ManualClock()
        store, table = with_clock(store, clock), store._table.name
        for key in ("a/1", "a/2", "a/3"):
            store.put(key, b"x", ttl=10)
        clock.advance(11)
        store._expiring = count()
        with admin.transaction():
            admin.execute(f"SELECT key FROM {table} WHERE key = 'a/1' FOR UPDATE")
            started = time.monotonic()
            store.put("b", b"x", ttl=60)
            assert time.monotonic() - started < 1
            assert admin.execute(f"SELECT key FROM {table} ORDER BY key").fetchall() == [("a/1",), ("b",)]
        store.close()

    def test_page_costs_a_page(self, store: Postgresql) -> None:
        """A page of 100,000 keys reads only a page: the plan walks the index from the start of the page."""
        store.put("x", b"x")
        table = store._table.name
        fill = f"INSERT INTO {table} (key, value) SELECT 'names/' || md5(n::text), 'x' FROM generate_series"
        for n in range(0, 100_000, 10_000):  # each statement has two seconds, also on a busy machine
            store._run(sa.text(f"{fill}({n}, {n + 9_999}) n"), {})
        store._run(sa.text(f"ANALYZE {table}"), {})
        first = store.keys("names/", limit=100)
        assert len(first) == 100
        values = {"lower": first[50], "upper": "names0", "page": 100}
        compiled = store._statements.keys.params(values).compile(store._engine, compile_kwargs={"literal_binds": True})
        plan = store._run(sa.text(f"EXPLAIN (ANALYZE, BUFFERS OFF) {compiled}".replace(":", r"\:")), {})
        text = "\n".join(row[0] for row in plan)
        assert "Index Scan" in text, text
        assert "Seq Scan" not in text, text
        assert "Sort" not in text, text

    def test_parallel_pages(self, store: Postgresql) -> None:
        """More threads than connections wait for one, and none fails."""
        store.put("a", b"x")
        with ThreadPoolExecutor(32) as pool:
            assert set(pool.map(lambda _: store.get("a"), range(500))) == {b"x"}


class TestTLS:
    """Who the server is."""

    def test_verified(self, server: postgresql.Postgresql) -> None:
        """With the CA named it is verified, by address as by name."""
        assert server.ca
        for host in ("127.0.0.1", "localhost"):
            address = url(server.port, f"sslmode=verify-full&sslrootcert={quote(str(server.ca.bundle))}")
            store = open_storage(address.replace("127.0.0.1", host), default_folder=NOWHERE)
            store.put("a", b"x")
            assert store.get("a") == b"x"
            store.close()

    @pytest.mark.parametrize("trust", ["sslmode=verify-full&sslrootcert=system", "sslmode=verify-full"])
    def test_not_trusted(self, server: postgresql.Postgresql, trust: str) -> None:
        """A server whose CA is unknown is refused, and the sentence says what to do."""
        store = store_at(server.port, trust)
        with pytest.raises(StorageUnavailable, match=r"TLS could not be verified; set \?sslrootcert="):
            store.get("a")
        store.close()

    def test_environment(self, server: postgresql.Postgresql, monkeypatch: pytest.MonkeyPatch) -> None:
        """libpq's environment speaks where the URL is silent."""
        for name, value in {
            "PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres", "PGDATABASE": "postgres",
            "PGPASSWORD": postgresql.PASSWORD, "PGSSLMODE": "require", "PGCONNECT_TIMEOUT": "7",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        store = open_storage(f"postgresql:?table={next(tables)}", default_folder=NOWHERE)
        assert isinstance(store, Postgresql)
        assert not {"sslmode", "connect_timeout", "host"} & store._conninfo.keys()
        store.put("a", b"x")
        assert store.get("a") == b"x"
        store.close()

    @pytest.mark.parametrize(
        ("address", "expected"),
        [
            ("postgresql://db.example.com/x", "verify-full"),
            ("postgresql://db.example.com/x?sslmode=require", "require"),
            ("postgresql://127.0.0.1,db.example.com/x", "verify-full"),
            ("postgresql://db.example.com/x?service=mine", None),
            ("postgresql://localhost/x", None),
            ("postgresql://[::1]:5433/x", None),
            ("postgresql:///x?host=/var/run/postgresql", None),
            ("postgres://%2Fvar%2Frun%2Fpostgresql/x", None),
        ],
    )
    def test_default(self, address: str, expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another machine's server is verified unless the URL says otherwise; this machine's is libpq's to decide."""
        for name in ("PGSSLMODE", "PGSERVICE", "PGHOST"):
            monkeypatch.delenv(name, raising=False)
        store = open_storage(address, default_folder=NOWHERE)
        assert isinstance(store, Postgresql)
        assert store._conninfo.get("sslmode") == expected


class TestErrors:
    """Error messages for the operator."""

    def test_wrong_password(self, server: postgresql.Postgresql) -> None:
        """A refused login says what to check, and not what was tried."""
        store = open_storage(url(server.port, password="hunter2"), default_folder=NOWHERE)
        with pytest.raises(StorageUnavailable, match="the login is refused; check user, password") as caught:
            store.get("a")
        assert "hunter2" not in str(caught.value)

    def test_password_by_name(self, server: postgresql.Postgresql, monkeypatch: pytest.MonkeyPatch) -> None:
        """A password may be named, encoded or plain, before the @ or as a parameter."""
        monkeypatch.setenv("ACME_TEST_PW", postgresql.PASSWORD)
        base = f"127.0.0.1:{server.port}/postgres?table={next(tables)}"
        for address in (
            f"postgresql://postgres:env:ACME_TEST_PW@{base}",
            f"postgresql://postgres:env%3AACME_TEST_PW@{base}",
            f"postgresql://postgres@{base}&password=env:ACME_TEST_PW",
        ):
            store = open_storage(address, default_folder=NOWHERE)
            store.put("a", b"x")
            store.close()

    def test_no_database(self, server: postgresql.Postgresql) -> None:
        """A database that isn't there is named."""
        store = open_storage(url(server.port).replace("/postgres?", "/nothing?"), default_folder=NOWHERE)
        with pytest.raises(StorageUnavailable, match=r'"nothing" does not exist.*check user, password, database'):
            store.get("a")

    def test_no_rights(self, server: postgresql.Postgresql, admin: psycopg.Connection[Any]) -> None:
        """A user who may not create the table is told what to grant; with an existing table no more is needed."""
        admin.execute("CREATE ROLE poor LOGIN PASSWORD 'poor'")
        table = next(tables)
        store = open_storage(url(server.port, f"table={table}", user="poor", password="poor"), default_folder=NOWHERE)
        with pytest.raises(StorageUnavailable, match=r"permission denied.*grant CREATE on the schema"):
            store.put("a", b"x")
        owner = store_at(server.port, f"table={table}")
        owner.put("b", b"x")
        admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO poor")
        store.put("a", b"x", ttl=60)
        assert store.swap("a", b"x", None)
        assert store.keys("") == ["b"]
        store.close()
        owner.close()

    def test_read_only(self, server: postgresql.Postgresql) -> None:
        """A standby, which is read-only, says which parameter finds the primary."""
        store = store_at(server.port, "options=" + quote("-c default_transaction_read_only=on"))
        with pytest.raises(StorageUnavailable, match="target_session_attrs=read-write"):
            store.put("a", b"x")
        store.close()

    def test_value_that_is_too_long_is_corrupt(self, store: Postgresql, admin: psycopg.Connection[Any]) -> None:
        """No adapter wrote it, and it is not even sent."""
        store.put("a", b"x")
        admin.execute(f"UPDATE {store._table.name} SET value = decode(repeat('00', 10000000), 'hex')")
        with pytest.raises(StorageCorrupt, match="was not written by this store"):
            store.get("a")
        store.delete("a")
        assert store.get("a") is None

    def test_foreign_table(self, store: Postgresql, admin: psycopg.Connection[Any]) -> None:
        """A table of the same name that isn't ours is left alone."""
        admin.execute(f"CREATE TABLE {store._table.name} (id integer)")
        calls: list[Callable[[], object]] = [
            lambda: store.get("a"),
            lambda: store.put("a", b"x"),
            lambda: store.keys(""),
        ]
        for call in calls:
            with pytest.raises(StorageCorrupt, match="belongs to another program; set \\?table="):
                call()

    def test_mapped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever the libraries raise comes out as an error of ours, at creation too."""
        store = store_at(1)
        for error in (TimedOut(), OSError(), *exceptions_in(psycopg, psycopg.errors, sa.exc)):
            if isinstance(error, NEVER):
                continue
            raises(error, store, monkeypatch)
            with pytest.raises(StorageError, match=r"^storage postgresql 127\.0\.0\.1:1: "):
                store._make_table()
            with pytest.raises(StorageError, match=r"^storage postgresql 127\.0\.0\.1:1: "):
                store.put("a", b"x")


@pytest.mark.parametrize("hosts", ["a:5433", "a,b:5433", "a:5433,b", "a:5433,b:5434,c", "[::1]:5433,b"])
def test_ports(hosts: str) -> None:
    """Each of several servers has the port that libpq itself reads from such a URL; one without has the default."""
    address = f"postgresql://u@{hosts}/d"
    read = {option.keyword: option.val for option in psycopg.pq.Conninfo.parse(address.encode())}
    store = open_storage(address, default_folder=NOWHERE)
    assert isinstance(store, Postgresql)
    assert store._conninfo["port"].encode() == read[b"port"]


def raises(error: Exception, store: Postgresql, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all that the store does with the server raise this."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(store, "_execute", fail)
    monkeypatch.setattr(store, "create", fail)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("postgresql://u:hunter2@h/d?hunter=1", "unknown parameter 'hunter'; known are application_name, "),
        ("postgresql://u:hunter2@h:port/d", "port is not a number"),
        ("postgresql://u:hunter2/x@h/d", "port is not a number"),
        ("postgresql://u:env:HUNTER_NOT_SET@h/d", "variable 'HUNTER_NOT_SET', which is not set"),
        ("postgresql://h/a/b", "one database after the host"),
        ("postgresql://h/a?timeout=hunter2", "timeout must be a number above zero"),
        ("postgresql://h/a?table=A", "needs a table"),
        ("postgresql://u:hunter2#@h/a", "must not contain a #"),
    ],
)
def test_wrong(address: str, sentence: str) -> None:
    """A wrong URL is refused in one sentence that says what would be right."""
    with pytest.raises(ValueError, match=sentence) as caught:
        open_storage(address, default_folder=NOWHERE)
    assert "hunter2" not in str(caught.value)
