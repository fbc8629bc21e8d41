"""Redis: the contract, TLS, ACL users, sockets, Sentinel, Cluster, failures, errors; against real servers."""

import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.cluster
import redis.exceptions
import redis.sentinel
from hypothesis import settings
from redis.crc import key_slot

from acme_storage import Storage, StorageCorrupt, StorageError, StorageUnavailable, open_storage
from acme_storage.readers.redis import RedisReader
from acme_storage.redis_clients import access
from acme_storage.redis_store import Redis, disconnect
from tests.acme_storage.contract import ManualClock, StorageContract, together
from tests.acme_storage.foreign import exceptions_in
from tests.acme_storage.server_contract import NOTICED, ServerContract, until_available
from tests.acme_storage.state_machine import StorageMachine
from tests.end_to_end.client import eventually
from tests.servers.base import free_port
from tests.servers.binaries import need
from tests.servers.redis import Cluster, Sentinels
from tests.servers.redis import Redis as Server

NOWHERE = Path("/none")
PASSWORD = "pass/w@rd:7"
QUOTED = "pass%2Fw%40rd%3A7"
RULES = "~acme:* +@connection +@scripting +@hash +@sortedset +del +exists +time"
namespaces = (f"acme:{number}:" for number in count())


def opened(url: str, *, clock: Callable[[], float] | None = None) -> Redis:
    """The store of a URL, in a namespace of its own unless it has one, on another clock if there is one."""
    if "namespace=" not in url:
        url += f"{'&' if '?' in url else '?'}namespace={next(namespaces)}"
    store = open_storage(url, default_folder=NOWHERE)
    assert isinstance(store, Redis)
    return Redis(store._access, clock) if clock else store


def works(url: str) -> Redis:
    """Assert that the store of this URL can do everything, and close it."""
    store = opened(url)
    assert store.swap("a/b", None, b"x", ttl=60)
    assert store.swap("a/b", b"x", b"y")
    store.put("a/c", b"z")
    assert store.keys("a/") == ["a/b", "a/c"]
    store.delete("a/c")
    assert store.get("a/b") == b"y"
    assert store.get("a/c") is None
    store.close()
    return store


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    need("redis-server", "redis-cli")
    users = (
        f"user acme on >{PASSWORD} {RULES}",
        f"user poor on >{PASSWORD} ~other:* +@connection +@scripting +@hash",
    )
    with Server(*users, password=PASSWORD) as redis_server:
        yield redis_server


@pytest.fixture(scope="module")
def tls_server() -> Iterator[Server]:
    need("redis-server", "redis-cli")
    with Server(tls=True, client_certificates=True) as redis_server:
        yield redis_server


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    need("redis-server", "redis-cli")
    with Cluster() as three:
        yield three


@pytest.fixture
def url(server: Server) -> str:
    """As the ACL user with exactly the documented rights."""
    return f"redis://acme:{QUOTED}@127.0.0.1:{server.port}"


@pytest.fixture
def admin(server: Server) -> Iterator[Any]:
    with redis.Redis(port=server.port, password=PASSWORD) as client:
        yield client


class TestRedis(StorageContract):
    """The contract."""

    @pytest.fixture
    def storage(self, url: str, clock: ManualClock) -> Iterator[Storage]:
        store = opened(url, clock=clock)
        yield store
        store.close()


class TestCluster(StorageContract):
    """The contract, on a cluster."""

    @pytest.fixture
    def storage(self, cluster: Cluster, clock: ManualClock) -> Iterator[Storage]:
        store = opened(f"redis+cluster://{listed(cluster.ports)}", clock=clock)
        yield store
        store.close()


def listed(ports: list[int]) -> str:
    """Hosts as in a URL."""
    return ",".join(f"127.0.0.1:{port}" for port in ports)


def test_machine(url: str) -> None:
    """It answers as the model does, whatever is called in whatever order."""

    class RedisMachine(StorageMachine):
        def open(self, clock: ManualClock) -> Storage:
            return opened(url, clock=clock)

    case = RedisMachine.TestCase
    case.settings = settings(max_examples=15, stateful_step_count=40)
    case("runTest").debug()


class TestFailures(ServerContract):
    """The server fails."""

    password = PASSWORD

    @pytest.fixture
    def port(self, server: Server) -> int:
        return server.port

    @pytest.fixture
    def open_at(self) -> Callable[[int], Storage]:
        namespace = next(namespaces)
        return lambda port: opened(f"redis://:{QUOTED}@127.0.0.1:{port}?namespace={namespace}")

    def test_lost_reply(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        """After a lost reply the stamp shows whether the swap was made; without it the outcome is unknown."""
        assert isinstance(storage, Redis)
        evaluate = storage._evaluate

        def swap_and_lose_reply(*arguments: Any) -> bool:
            def lose(script: str, words: Any) -> Any:
                monkeypatch.setattr(storage, "_evaluate", evaluate)
                evaluate(script, words)
                raise redis.ConnectionError("reset")

            monkeypatch.setattr(storage, "_evaluate", lose)
            return storage.swap(*arguments)

        assert swap_and_lose_reply("a", b"kept", b"next")
        assert storage.get("a") == b"next"
        with pytest.raises(StorageUnavailable):
            swap_and_lose_reply("a", b"next", None)
        assert storage.get("a") is None
        with pytest.raises(StorageUnavailable):
            swap_and_lose_reply("a", b"not there", b"x")

    def test_no_script(self, storage: Storage, admin: Any) -> None:
        """A server that has lost the scripts gets them again, in the same call."""
        admin.script_flush()
        assert storage.swap("a", b"kept", b"next")


class TestServer:
    """What is special about Redis."""

    def test_its_own_clock(self, url: str) -> None:
        """Time is the server's, so that nodes whose clocks differ agree; a ttl may be of milliseconds."""
        store = opened(url)
        store.put("a", b"x", ttl=0.05)
        store.put("b", b"x", ttl=60)
        deadline = time.monotonic() + 5
        while store.get("a") is not None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert store.get("a") is None
        assert store.keys("") == ["b"]
        assert store.swap("a", None, b"y", ttl=60)
        store.close()

    def test_layout(self, url: str, admin: Any) -> None:
        """Deleted and expired values leave nothing behind; all keys are in the namespace and in one slot."""
        clock = ManualClock()
        store = opened(f"{url}?namespace=acme:layout:", clock=clock)
        for number in range(150):
            store.put(f"a/{number}", b"x", ttl=10)
        store.put("b", b"x")
        store.delete("b")
        clock.advance(11)
        store.put("c", b"x")
        store.put("d", b"x", ttl=60)
        names = {key.decode() for key in admin.scan_iter("*layout*", count=1000)}
        base = "acme:layout:{acme:layout}:"
        assert names == {f"{base}value:c", f"{base}value:d", f"{base}keys", f"{base}expiries"}
        assert len({key_slot(name.encode()) for name in names}) == 1
        store.close()

    @pytest.mark.parametrize("change", ["put", "swap", "delete"])
    def test_each_change_removes_what_has_expired(self, url: str, admin: Any, change: str) -> None:
        """A store that is only written to, or only tidied up, does not grow by what is read no more."""
        clock = ManualClock()
        store = opened(f"{url}?namespace=acme:{change}:", clock=clock)
        for number in range(3):
            store.put(f"a/{number}", b"x", ttl=10)
        store.put("b", b"x")
        clock.advance(11)
        changes: dict[str, Callable[[], object]] = {
            "put": lambda: store.put("b", b"y"),
            "swap": lambda: store.swap("b", b"x", b"y"),
            "delete": lambda: store.delete("b"),
        }
        changes[change]()
        base = f"acme:{change}:{{acme:{change}}}:"
        assert admin.exists(f"{base}expiries") == 0
        assert admin.exists(f"{base}value:a/0") == 0
        store.close()

    @pytest.mark.parametrize("namespace", ["", "mine:", "a{b}c:", "x"])
    def test_namespaces(self, server: Server, namespace: str) -> None:
        """Namespaces are stores apart."""
        base = f"redis://:{QUOTED}@127.0.0.1:{server.port}/1"
        store, other = opened(f"{base}?namespace={namespace}"), opened(f"{base}?namespace={namespace}y:")
        store.put("a", b"x")
        other.put("b", b"x")
        assert (store.keys(""), other.keys("")) == (["a"], ["b"])
        store.close()
        other.close()

    def test_page_costs_a_page(self, url: str, admin: Any) -> None:
        """A page of 50,000 keys reads only a page, as the server's own timing shows."""
        store = opened(f"{url}?namespace=acme:many:")
        store.put("a", b"x")
        names = {f"names/{number:05}": 0 for number in range(50_000)}
        admin.zadd("acme:many:{acme:many}:keys", names)
        started = time.perf_counter()
        for _ in range(20):
            assert len(store.keys("names/", after="names/25000", limit=100)) == 100
        assert (time.perf_counter() - started) / 20 < 0.02
        assert store.keys("names/") == list(names)
        assert len(store.keys("", limit=2500)) == 2500
        store.close()

    def test_many_expired(self, url: str, admin: Any) -> None:
        """More expired values than one call removes are absent all the same, and pages are full."""
        clock = ManualClock()
        store = opened(f"{url}?namespace=acme:old:&scan_count=300", clock=clock)
        for number in range(5):
            store.put(f"a/9{number}", b"x")
        due = {f"a/{number:05}": clock() * 1000 + 1 for number in range(3000)}
        admin.zadd("acme:old:{acme:old}:keys", dict.fromkeys(due, 0))
        admin.zadd("acme:old:{acme:old}:expiries", due)
        clock.advance(1)
        assert store.keys("a/", limit=4) == ["a/90", "a/91", "a/92", "a/93"]
        assert store.keys("a/") == [f"a/9{number}" for number in range(5)]
        store.close()

    @pytest.mark.parametrize("damage", ["string", "field", "expiry", "size"])
    def test_corrupt(self, url: str, admin: Any, damage: str) -> None:
        """A value that isn't ours is corrupt to get, equals no old value, is listed, can be deleted and replaced."""
        store = opened(f"{url}?namespace=acme:{damage}:")
        name = f"acme:{damage}:{{acme:{damage}}}:value:a"

        def spoil() -> None:
            store.put("a", b"x")
            if damage == "string":
                admin.set(name, "hunter2")
            elif damage == "field":
                admin.hdel(name, "v")
            elif damage == "size":
                admin.hset(name, "v", b"x" * 10_000_000)
            else:
                admin.hset(name, "e", "soon")

        spoil()
        with pytest.raises(StorageCorrupt, match="value:a was not written by this store; delete it") as caught:
            store.get("a")
        assert "hunter2" not in str(caught.value)
        assert not store.swap("a", b"x", b"y")
        assert not store.swap("a", None, b"y")
        assert store.keys("") == ["a"]
        store.delete("a")
        assert store.get("a") is None
        spoil()
        store.put("a", b"y")
        assert store.get("a") == b"y"
        store.close()

    def test_no_io(self) -> None:
        """To open a store connects to nothing, a cluster neither."""
        for scheme in ("redis", "rediss", "redis+cluster"):
            opened(f"{scheme}://127.0.0.1:1").close()
        opened("redis+sentinel://127.0.0.1:1/x").close()
        opened("unix:///none.sock").close()


class TestAccess:
    """Who may, and who the server is."""

    def test_socket(self, server: Server) -> None:
        """A unix socket, with and without a user."""
        works(f"unix://acme:{QUOTED}@{server.socket}")
        works(f"unix://{server.socket}?db=2&password={QUOTED}")

    def test_password_by_name(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """A password may be a reference, encoded or plain; redis-cli's variable is used if the URL has none."""
        monkeypatch.setenv("ACME_TEST_PW", PASSWORD)
        address = f"127.0.0.1:{server.port}"
        works(f"redis://acme:env:ACME_TEST_PW@{address}")
        works(f"redis://acme:env%3AACME_TEST_PW@{address}/0")
        works(f"redis://{address}?username=acme&password=env:ACME_TEST_PW&client_name=me")
        monkeypatch.setenv("REDISCLI_AUTH", PASSWORD)
        works(f"redis://{address}")

    @pytest.mark.parametrize(
        ("user", "sentence"),
        [
            ("acme:hunter2", "invalid username-password pair.*the login is refused"),
            ("", "it requires a login; put user and password into the URL"),
            (f"poor:{QUOTED}", r"grant its user ~acme:.*\* \+@connection \+@scripting"),
        ],
    )
    def test_refused(self, server: Server, user: str, sentence: str) -> None:
        """A refused user is told what is missing, but not which values were sent."""
        store = opened(f"redis://{user}{'@' if user else ''}127.0.0.1:{server.port}")
        calls: list[Callable[[], object]] = [lambda: store.get("a"), lambda: store.put("a", b"hunter2")]
        for call in calls:
            with pytest.raises(StorageUnavailable, match=sentence) as caught:
                call()
            assert "hunter2" not in str(caught.value)
        store.close()

    def test_tls(self, tls_server: Server) -> None:
        """TLS with a CA, a client's certificate, and a name of the server other than its address."""
        works(tls_url(tls_server))
        works(tls_url(tls_server, "server_name=localhost"))
        works(tls_url(tls_server).replace("rediss:", "redis:") + "&ssl=true")

    @pytest.mark.parametrize(
        "more", ["ssl_ca_certs=", "server_name=other.example.com", "ssl_ca_certs=&ssl_check_hostname=false"]
    )
    def test_not_trusted(self, tls_server: Server, more: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server of an unknown CA or of another name is refused, and the sentence says what to do."""
        store = opened(tls_url(tls_server, more))
        with pytest.raises(StorageUnavailable, match=r"TLS could not be verified; set \?ssl_ca_certs="):
            store.get("a")
        store.close()

    @pytest.mark.parametrize("more", ["ssl_verify=false", "ssl_cert_reqs=none"])
    def test_told_otherwise(self, tls_server: Server, more: str) -> None:
        """A setting turns the verification of TLS off."""
        works(tls_url(tls_server, f"ssl_ca_certs=&{more}"))

    def test_plain_to_tls(self, tls_server: Server, server: Server) -> None:
        """TLS to a plain port, and plain to one with TLS, are sentences in time."""
        for address in (f"redis://127.0.0.1:{tls_server.port}", f"rediss://127.0.0.1:{server.port}"):
            store = opened(address)
            started = time.monotonic()
            with pytest.raises(StorageUnavailable, match="TLS"):
                store.get("a")
            assert time.monotonic() - started < NOTICED
            store.close()


def tls_url(server: Server, more: str = "") -> str:
    """A URL of the server with TLS, with all that it needs but for what ``more`` says; ``ssl_ca_certs=`` says no CA."""
    assert server.ca
    client = server.ca.issue("client.example.com")
    needs = [f"ssl_certfile={client.certificate}", f"ssl_keyfile={client.key}"]
    needs += [] if "ssl_ca_certs=" in more else [f"ssl_ca_certs={server.ca.bundle}"]
    needs += [word for word in more.split("&") if word not in ("", "ssl_ca_certs=")]
    return f"rediss://127.0.0.1:{server.port}?{'&'.join(needs)}"


def test_client_that_is_given_up_closes_no_connection_of_another(server: Server) -> None:
    """Of several threads that connect at the same time one client is kept; the others' are closed, and only they."""
    for url in (f"redis://:{QUOTED}@127.0.0.1:{server.port}", f"unix://{server.socket}?password={QUOTED}"):
        connect = access(url).connect
        kept, given_up = connect(), connect()
        connection = kept.connection_pool.get_connection()
        connection.send_command("PING")
        disconnect(given_up)
        assert connection.read_response() == b"PONG"
        kept.connection_pool.release(connection)
        disconnect(kept)


def test_reader_of_others_lets_go(server: Server, admin: Any) -> None:
    """Closed, it holds no connection, though redis-py's client leaves a pool that it was given open."""
    raw = RedisReader(access(f"redis://:{QUOTED}@127.0.0.1:{server.port}?client_name=reader"))
    assert raw.keys("nothing:") == []
    held = raw._client
    raw.close()
    eventually(lambda: "reader" not in [client["name"] for client in admin.client_list()])
    assert held.connection_pool is not None  # it was not let go of with its last reference


class TestSentinel:
    """A primary that another takes over from."""

    def test_failover(self) -> None:
        """The primary dies: the replica that Sentinel promotes has the values, and takes new ones."""
        need("redis-server", "redis-cli")
        with Sentinels() as servers:
            hosts = f"127.0.0.1:{free_port()},{listed(servers.ports)}"
            store = opened(f"redis+sentinel://{hosts}/{servers.service}")
            store.put("a", b"kept")
            assert servers.primary.ask("wait", "1", "5000").strip() == "1"
            servers.primary.kill()
            with pytest.raises(StorageUnavailable) as caught:
                store.get("a")
            assert servers.service in str(caught.value)
            assert until_available(lambda: store.get("a")) == b"kept"
            assert store.swap("a", b"kept", b"next")
            wrong = opened(f"redis+sentinel://{listed(servers.ports)}/other")
            with pytest.raises(StorageUnavailable, match="no sentinel knows a primary of that name"):
                wrong.get("a")
            store.close()

    def test_database(self) -> None:
        """A database may follow NAME-OF-THE-SET; sentinels have a login of their own."""
        store = opened("redis+sentinel://me:one@h1,h2:1234/mine/3?sentinel_password=two&sentinel_username=other")
        client = store._access.connect()
        assert client.connection_pool.connection_kwargs["db"] == 3
        assert client.connection_pool.connection_kwargs["password"] == "one"
        sentinels = client.connection_pool.sentinel_manager.sentinels
        ways = [sentinel.connection_pool.connection_kwargs for sentinel in sentinels]
        assert [(way["host"], way["port"], way["username"], way["password"]) for way in ways] == [
            ("h1", 26379, "other", "two"),
            ("h2", 1234, "other", "two"),
        ]


def test_cluster_user(cluster: Cluster) -> None:
    """On a cluster an ACL user needs the rights that the error names, and no more."""
    rules = f"{RULES} +cluster|slots +cluster|shards +command".split()
    for node in cluster.nodes:
        node.ask("acl", "setuser", "few", "on", f">{PASSWORD}", *rules)
    works(f"redis+cluster://few:{QUOTED}@{listed(cluster.ports)}?namespace=acme:few:")


class TestClusterFailures:
    """A node of the cluster fails."""

    def test_node(self, cluster: Cluster) -> None:
        """The node with the values dies, or freezes: noticed in time; when it is back, the next call goes through."""
        store = opened(f"redis+cluster://{listed(cluster.ports)}?namespace=acme:n:")
        store.put("a", b"kept")
        holder = cluster.holder("acme:n:{acme:n}:keys")
        holder.kill()
        assert in_time(lambda: store.get("a"))
        assert in_time(lambda: store.swap("b", None, b"x"))
        holder.start()
        assert until_available(lambda: store.get("a")) == b"kept"
        assert store.swap("a", b"kept", b"next")
        holder.pause()
        assert in_time(lambda: store.swap("b", None, b"x"))
        holder.resume()
        assert until_available(lambda: store.get("a")) == b"next"
        store.close()

    def test_other_node(self, cluster: Cluster) -> None:
        """The death of a node without values is not noticed, even if it is the first in the URL."""
        holder = cluster.holder("acme:n:{acme:n}:keys")
        other = next(node for node in cluster.nodes if node is not holder)
        ports = sorted(cluster.ports, key=lambda port: port != other.port)
        other.kill()
        try:
            works(f"redis+cluster://{listed(ports)}?namespace=acme:n:")
        finally:
            other.start()

    def test_nobody(self) -> None:
        """A cluster that isn't there is a sentence."""
        store = opened(f"redis+cluster://127.0.0.1:{free_port()}")
        text = in_time(lambda: store.get("a"))
        assert "the cluster does not answer" in text


def in_time(call: Callable[[], object]) -> str:
    """Assert that it raises StorageUnavailable within 2 s, and return what it says."""
    started = time.monotonic()
    with pytest.raises(StorageUnavailable) as caught:
        call()
    assert time.monotonic() - started < NOTICED, str(caught.value)
    return str(caught.value)


class TestErrors:
    """Error messages for the operator."""

    def test_full(self, server: Server, url: str, admin: Any) -> None:
        """A server whose memory is full is reported, and nothing is lost."""
        store = opened(url)
        store.put("a", b"x")
        admin.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(StorageUnavailable, match="memory is full; raise maxmemory"):
                store.put("b", b"hunter2" * 1000)
            assert store.get("a") == b"x"
        finally:
            admin.config_set("maxmemory", "0")
        store.put("b", b"y")
        store.close()

    def test_replica(self, url: str, admin: Any) -> None:
        """A replica can be read, and says that it cannot be written."""
        store = opened(url)
        store.put("a", b"x")
        admin.replicaof("127.0.0.1", free_port())
        try:
            assert store.get("a") == b"x"
            with pytest.raises(StorageUnavailable, match="it is a replica; name the primary"):
                store.put("b", b"y")
        finally:
            admin.replicaof("NO", "ONE")
        store.close()

    def test_threads(self, url: str) -> None:
        """Many threads at once open as many connections as they need."""
        store = opened(url)
        store.put("a", b"x")
        assert set(together(lambda _: store.get("a"), 32)) == {b"x"}
        store.close()
        assert store.get("a") == b"x"
        store.close()

    def test_closed_while_a_thread_connects(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """That one gets what it asked for; its connection is not taken away."""
        store = opened(url)
        store.put("a", b"x")
        store._client.connection_pool.disconnect()  # so that the next call connects
        read = redis.Connection.read_response

        def read_of_closed(*args: Any, **kwargs: Any) -> Any:
            monkeypatch.setattr(redis.Connection, "read_response", read)
            store.close()
            return read(*args, **kwargs)

        monkeypatch.setattr(redis.Connection, "read_response", read_of_closed)
        assert store.get("a") == b"x"
        store.close()

    def test_mapped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever redis-py raises comes out as an error of ours, named and without what was sent."""
        store = opened("redis://127.0.0.1:1")
        foreign = exceptions_in(redis.exceptions, redis.sentinel, redis.cluster)
        assert len(foreign) > 25
        for error in (OSError("x"), redis.ResponseError("ERR unknown, with args beginning with: hunter2"), *foreign):

            def fail(*_: object, error: Exception = error) -> None:
                raise error

            monkeypatch.setattr(store, "_evaluate", fail)
            calls: list[Callable[[], object]] = [
                lambda: store.put("a", b"x"),
                lambda: store.swap("a", None, b"x"),
                lambda: store.keys(""),
            ]
            for call in calls:
                with pytest.raises(StorageError, match=r"^storage redis 127\.0\.0\.1:1: ") as caught:
                    call()
                assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("redis://:hunter2@h?hunter=1", "unknown parameter 'hunter'; known are client_name, "),
        ("redis://:hunter2@h:port", "port is not a number"),
        ("redis://:env:HUNTER_NOT_SET@h", "variable 'HUNTER_NOT_SET', which is not set"),
        ("redis://h1,h2", "takes one host"),
        ("redis://h/x", "needs a number as the database"),
        ("redis://h?timeout=hunter2", "timeout must be a number above zero"),
        ("redis://h?scan_count=0", "scan_count must be a number above zero"),
        ("redis://h?scan_count=1000000", "scan_count from 1"),
        ("redis://h?namespace=a*", "needs a namespace"),
        ("redis://h?server_name=x", "has server_name but no TLS: use rediss:"),
        ("redis://h?ssl=hunter2", "ssl must be true or false"),
        ("rediss://h?ssl_cert_reqs=hunter2", "required or none"),
        ("unix://run/redis.sock", "absolute path of a socket"),
        ("unix:redis.sock", "absolute path of a socket"),
        ("redis+sentinel://h1,h2", "NAME-OF-THE-SET"),
        ("redis+sentinel:///x", "NAME-OF-THE-SET"),
        ("redis+cluster://", "needs redis\\+cluster://host"),
        ("redis+cluster://h/1", "only has database 0"),
        ("redis+cluster://h?ssl=true&server_name=x", "takes no server_name"),
    ],
)
def test_wrong(address: str, sentence: str) -> None:
    """A wrong URL is refused in one sentence that says what would be right."""
    with pytest.raises(ValueError, match=sentence) as caught:
        open_storage(address, default_folder=NOWHERE)
    assert "hunter2" not in str(caught.value)
