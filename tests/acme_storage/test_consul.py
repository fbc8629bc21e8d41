"""Consul: the contract, its ACLs and TLS, and how it fails."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import consul.exceptions
import pytest
import requests
import urllib3.exceptions
from hypothesis import settings

from acme_storage import Storage, StorageCorrupt, StorageUnavailable, open_storage
from acme_storage.consul import ConsulStore, reason
from acme_storage.consul_record import Record, pack
from tests.acme_storage.contract import ManualClock, StorageContract
from tests.acme_storage.server_contract import NOTICED, require_clock_of_the_server, until_available
from tests.acme_storage.state_machine import StorageMachine
from tests.servers.base import free_port
from tests.servers.binaries import need
from tests.servers.chaos import Chaos
from tests.servers.consul import Consul


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ADDR", "TOKEN", "SSL", "SSL_VERIFY"):
        monkeypatch.delenv(f"CONSUL_HTTP_{name}", raising=False)
    for name in ("CACERT", "CLIENT_CERT", "CLIENT_KEY"):
        monkeypatch.delenv(f"CONSUL_{name}", raising=False)


@pytest.fixture(scope="module")
def server() -> Iterator[Consul]:
    need("consul")
    with Consul() as running:
        ConsulMachine.server = running
        yield running


@pytest.fixture(scope="module")
def guarded() -> Iterator[Consul]:
    """With ACLs, and TLS that wants a client certificate."""
    need("consul")
    with Consul(acl=True, mtls=True) as running:
        yield running


_roots = iter(range(10**9))

_TOO_LONG = pack("a", b"x" * 65_537, 0, b"12345678")


def open_at(url: str, clock: Callable[[], float] = time.time) -> ConsulStore:
    store = open_storage(url, default_folder=Path("/nowhere"))
    assert isinstance(store, ConsulStore)
    store._now = clock
    return store


def open_on(server: Consul, clock: Callable[[], float] = time.time, *, port: int = 0) -> ConsulStore:
    """A store of its own, on the server or on a proxy before it."""
    return open_at(f"consul://127.0.0.1:{port or server.port}/test/{next(_roots)}", clock)


def tls_url(server: Consul, token: str = "", path: str = "tls") -> str:
    files = f"ca_file={server.ca.bundle}&cert_file={server.client.certificate}&key_file={server.client.key}"
    return f"consul+https://localhost:{server.port}/{path}?{files}" + (f"&token={token}" if token else "")


class TestConsul(StorageContract):
    """The contract."""

    @pytest.fixture
    def storage(self, server: Consul, clock: ManualClock) -> Iterator[Storage]:
        store = open_on(server, clock)
        yield store
        store.close()

    def test_clock_of_the_server_counts(self, server: Consul) -> None:
        url = f"consul://127.0.0.1:{server.port}/test/clock"
        require_clock_of_the_server(
            open_storage(url, default_folder=Path("/nowhere")), lambda clock: open_at(url, clock)
        )


class ConsulMachine(StorageMachine):
    """The machine under a new path each time."""

    server: Consul

    def open(self, clock: ManualClock) -> Storage:
        return open_on(self.server, clock)


ConsulMachine.TestCase.settings = settings(max_examples=8, stateful_step_count=25)
TestMachine = pytest.mark.usefixtures("server")(ConsulMachine.TestCase)


class TestLayout:
    def test_expired_values_are_removed(self, server: Consul) -> None:
        """A read and a listing remove what they find expired, both value and expiry."""
        clock = ManualClock()
        store = open_on(server, clock)
        for key in ("read", "listed", "listed too"[:6] + "/x"):
            store.put(key, b"x", ttl=10)
        clock.advance(11)
        assert store.get("read") is None
        assert store.keys("") == []
        root = store._values.removesuffix("values/")
        assert store._client.kv.get(root, keys=True)[1] is None

    def test_an_expiry_without_a_value_is_removed(self, server: Consul) -> None:
        """An expiry that a manual deletion left behind does no harm and is removed."""
        clock = ManualClock()
        store = open_on(server, clock)
        store.put("a", b"x", ttl=10)
        store._client.kv.delete(store._values + "a")
        clock.advance(11)
        assert store.keys("") == []
        assert store._client.kv.get(store._expiries, keys=True)[1] is None

    def test_value_that_is_made_permanent_while_it_is_listed(
        self, server: Consul, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A listing is two requests: what is written between them is not taken for what had expired."""
        clock = ManualClock()
        store = open_on(server, clock)
        store.put("a", b"x", ttl=10)
        clock.advance(11)
        listed, asked = store._list, list[str]()

        def list_and_write(root: str, prefix: str, **how: bool) -> list[object]:
            found = listed(root, prefix, **how)
            asked.append(root)
            if len(asked) == 1:
                store.put("a", b"y")
            return found

        monkeypatch.setattr(store, "_list", list_and_write)
        assert store.keys("") == ["a"]
        assert store.get("a") == b"y"

    def test_part_of_a_millisecond_counts(self, server: Consul) -> None:
        """A value lives at least as long as it was told: it does not expire in the millisecond of its write."""
        store = open_on(server, ManualClock())
        store.put("a", b"x", ttl=0.0004)
        assert store.get("a") == b"x"

    def test_listing_removes_a_bounded_number(self, server: Consul, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each takes a request: a listing of 10,000 expired values goes on with its own work."""
        monkeypatch.setattr("acme_storage.consul._PURGE_AT_ONCE", 2)
        clock = ManualClock()
        store = open_on(server, clock)
        for number in range(5):
            store.put(f"a/{number}", b"x", ttl=10)
        clock.advance(11)
        for left in (3, 1):
            assert store.keys("a/") == []
            assert len(store._client.kv.get(store._expiries, keys=True)[1]) == left

    def test_expiry_that_was_renewed_stays(self, server: Consul) -> None:
        """What a listing found expired may have been written since: then nothing of it is removed."""
        clock = ManualClock()
        store = open_on(server, clock)
        store.put("a", b"x", ttl=10)
        old = store._client.kv.get(store._expiries, recurse=True)[1][0]
        store.put("a", b"y", ttl=60)
        for present in (set[str](), {"a"}):
            store._purge({"a": old}, present)
            (expiry,) = store._client.kv.get(store._expiries, recurse=True)[1]
            assert expiry["Flags"] == (clock() + 60) * 1000
            assert store.get("a") == b"y"

    def test_other_datacenter(self, server: Consul) -> None:
        """The parameter dc holds for writes as for reads: none of them ends up in another one."""
        store = open_at(f"consul://127.0.0.1:{server.port}/test/{next(_roots)}?dc=dc1")
        store.put("a", b"x")
        assert store.swap("a", b"x", b"y")
        assert store.get("a") == b"y"
        elsewhere = open_at(f"consul://127.0.0.1:{server.port}/test/{next(_roots)}?dc=dc9")
        writes: list[Callable[[], None]] = [lambda: elsewhere.put("a", b"x"), lambda: elsewhere.delete("a")]
        for write in writes:
            with pytest.raises(StorageUnavailable, match="No path to datacenter"):
                write()

    @pytest.mark.parametrize("data", [b"", b"hello", b"acm1" + b"\0" * 16, _TOO_LONG])
    def test_foreign_values_are_corrupt(self, server: Consul, data: bytes) -> None:
        """Another program's value is listed and can be deleted, equals no old value, and is not returned."""
        store = open_on(server)
        store._client.kv.put(store._values + "a", data)
        with pytest.raises(StorageCorrupt, match="was not written by this program"):
            store.get("a")
        assert store.keys("") == ["a"]
        assert not store.swap("a", None, b"x")
        assert not store.swap("a", data, b"x")
        store.delete("a")
        assert store.get("a") is None

    def test_a_value_moved_to_another_key_is_corrupt(self, server: Consul) -> None:
        """The key belongs to the record."""
        store = open_on(server)
        store.put("a", b"x")
        store._client.kv.put(store._values + "b", store._client.kv.get(store._values + "a")[1]["Value"])
        with pytest.raises(StorageCorrupt):
            store.get("b")


class TestAccess:
    def test_tls_and_token(self, guarded: Consul, monkeypatch: pytest.MonkeyPatch) -> None:
        """Everything works with CA, client certificate and token; the token may come from the environment."""
        monkeypatch.setenv("MY_TOKEN", guarded.token)
        store = open_at(tls_url(guarded, "env:MY_TOKEN"))
        assert store.swap("a/b", None, b"x", ttl=60)
        assert store.get("a/b") == b"x"
        assert store.keys("a/") == ["a/b"]
        assert store.swap("a/b", b"x", None)

    def test_the_tools_environment(self, guarded: Consul, monkeypatch: pytest.MonkeyPatch) -> None:
        """Consul's own variables provide what the URL leaves out."""
        monkeypatch.setenv("CONSUL_HTTP_ADDR", f"https://localhost:{guarded.port}")
        monkeypatch.setenv("CONSUL_HTTP_TOKEN", guarded.token)
        monkeypatch.setenv("CONSUL_CACERT", str(guarded.ca.bundle))
        monkeypatch.setenv("CONSUL_CLIENT_CERT", str(guarded.client.certificate))
        monkeypatch.setenv("CONSUL_CLIENT_KEY", str(guarded.client.key))
        store = open_at("consul:")
        store.put("a", b"x")
        assert store._values == "acme/values/"
        assert store.get("a") == b"x"
        store.delete("a")

    def test_the_url_beats_the_environment(self, guarded: Consul, monkeypatch: pytest.MonkeyPatch) -> None:
        """A token in the URL is used, though py-consul prefers the variable."""
        monkeypatch.setenv("CONSUL_HTTP_TOKEN", "22222222-2222-2222-2222-222222222222")
        assert open_at(tls_url(guarded, guarded.token)).get("a") is None

    def test_unknown_ca(self, guarded: Consul) -> None:
        """A server with an unknown CA is refused, unless verification is off."""
        url = tls_url(guarded, guarded.token)
        trusting = url.replace(f"ca_file={guarded.ca.bundle}", "verify=false")
        blind = url.replace(f"ca_file={guarded.ca.bundle}&", "")
        with pytest.raises(StorageUnavailable, match="TLS certificate is not trusted") as caught:
            open_at(blind).get("a")
        assert guarded.token not in str(caught.value)
        with pytest.warns(urllib3.exceptions.InsecureRequestWarning):
            assert open_at(trusting).get("a") is None

    def test_missing_ca_file(self, guarded: Consul) -> None:
        """A missing CA file is reported."""
        with pytest.raises(StorageUnavailable, match="ca_file"):
            open_at(f"consul+https://localhost:{guarded.port}/x?ca_file=/no/such").get("a")

    @pytest.mark.parametrize("token", ["", "33333333-3333-3333-3333-333333333333"])
    def test_no_right(self, guarded: Consul, token: str) -> None:
        """Without a token, or with an unknown one, nothing is empty: every call says that it is forbidden."""
        store = open_at(tls_url(guarded, token))
        calls: list[Callable[[], object]] = [
            lambda: store.get("a"),
            lambda: store.put("a", b"x"),
            lambda: store.swap("a", None, b"x"),
            lambda: store.delete("a"),
            lambda: store.keys(""),
            lambda: store.keys("a/"),
        ]
        for call in calls:
            with pytest.raises(StorageUnavailable, match="token") as caught:
                call()
            assert not token or token not in str(caught.value)

    def test_a_token_for_another_path(self, guarded: Consul) -> None:
        """A list that a token may not see is not an empty store."""
        token = guarded.make_token('key_prefix "other/" { policy = "write" }')
        with pytest.raises(StorageUnavailable, match="may not do this"):
            open_at(tls_url(guarded, token)).keys("")
        assert open_at(tls_url(guarded, token, "other")).keys("") == []

    def test_a_token_that_may_only_read(self, guarded: Consul) -> None:
        """It reads, also expired values, and reports that it may not write; a swap does not retry for ever."""
        clock = ManualClock()
        owner = open_at(tls_url(guarded, guarded.token, "seen"), clock)
        owner.put("a", b"x")
        owner.put("b", b"x", ttl=5)
        clock.advance(6)
        token = guarded.make_token('key_prefix "seen/" { policy = "read" }')
        reader = open_at(tls_url(guarded, token, "seen"), clock)
        assert reader.get("a") == b"x"
        assert reader.get("b") is None
        assert reader.keys("") == ["a"]
        for call in (lambda: reader.put("a", b"y"), lambda: reader.swap("a", b"x", b"y"), lambda: reader.delete("a")):
            with pytest.raises(StorageUnavailable, match="may not do this"):
                call()
        with pytest.raises(StorageUnavailable, match="may not do this"):
            reader.swap("c", None, b"y")


class TestFailure:
    def test_nobody_there(self, server: Consul) -> None:
        """A closed port is an unavailable store, at once, named in the message."""
        port = free_port()
        started = time.monotonic()
        with pytest.raises(StorageUnavailable, match=f"http://127.0.0.1:{port} .*could not read a"):
            open_on(server, port=port).get("a")
        assert time.monotonic() - started < NOTICED

    def test_restart_keeps_values(self) -> None:
        """Stored values survive a kill; calls fail meanwhile, and work within 5 s of its return."""
        need("consul")
        with Consul(persist=True) as server:
            store = open_on(server)
            store.put("a", b"x" * 65536)
            assert store.swap("lease", None, b"me", ttl=60)
            server.kill()
            for call in (lambda: store.get("a"), lambda: store.put("b", b"x"), lambda: store.swap("c", None, b"x")):
                with pytest.raises(StorageUnavailable):
                    call()
            server.start()
            assert until_available(lambda: store.get("a")) == b"x" * 65536
            assert store.swap("lease", b"me", None)

    def test_paused(self, server: Consul) -> None:
        """Every call gives up on a silent server within 2 s, and works when the server continues."""
        store = open_on(server)
        store.put("a", b"x")
        server.pause()
        try:
            calls: list[Callable[[], object]] = [
                lambda: store.get("a"), lambda: store.put("a", b"y"), lambda: store.swap("a", b"x", b"y"),
                lambda: store.keys(""), lambda: store.delete("b"),
            ]  # fmt: skip
            durations = all_unavailable(calls)
        finally:
            server.resume()
        assert max(durations) < 2.2
        assert until_available(lambda: store.get("a")) in (b"x", b"y")

    def test_blackhole(self, server: Consul) -> None:
        """Kept connections that swallow everything are noticed within 2 s."""
        with Chaos(server.port) as chaos:
            store = open_on(server, port=chaos.port)
            store.put("a", b"x")
            chaos.blackhole()
            assert max(all_unavailable([lambda: store.get("a"), lambda: store.swap("a", b"x", b"y")])) < 2.2
            chaos.reset()
            chaos.heal()
            assert store.get("a") == b"x"

    def test_reset_of_kept_connections(self, server: Consul) -> None:
        """A connection that was reset while it lay idle costs no call."""
        with Chaos(server.port) as chaos:
            store = open_on(server, port=chaos.port)
            for turn in range(5):
                assert store.swap("a", b"%d" % (turn - 1) if turn else None, b"%d" % turn)
                chaos.reset()
                assert store.get("a") == b"%d" % turn
                chaos.reset()
                assert store.keys("") == ["a"]
                chaos.reset()

    def test_junk(self, server: Consul) -> None:
        """A load balancer's error page is an unavailable store."""
        with Chaos(server.port) as chaos:
            chaos.answer_junk()
            store = open_on(server, port=chaos.port)
            for call in (lambda: store.get("a"), lambda: store.keys(""), lambda: store.swap("a", None, b"x")):
                with pytest.raises(StorageUnavailable):
                    call()

    def test_lost_reply_of_a_swap(self, server: Consul, monkeypatch: pytest.MonkeyPatch) -> None:
        """A swap whose reply is lost finds its own mark, and is True though a second one would be refused."""
        store = open_on(server)
        lose_replies(monkeypatch, store, 1)
        assert store.swap("a", None, b"mine")
        lose_replies(monkeypatch, store, 1)
        assert store.swap("a", b"mine", b"next")
        assert store.get("a") == b"next"

    def test_lost_reply_and_overtaken(self, server: Consul, monkeypatch: pytest.MonkeyPatch) -> None:
        """If another client has written since the lost reply, the outcome is unknown and reported as such."""
        store, other = open_on(server), open_on(server)
        other._values, other._expiries = store._values, store._expiries
        lose_replies(monkeypatch, store, 1, then=lambda: other.put("a", b"theirs"))
        with pytest.raises(StorageUnavailable, match="could not swap a"):
            store.swap("a", None, b"mine")
        assert store.get("a") == b"theirs"

    def test_lost_reply_of_a_removal(self, server: Consul, monkeypatch: pytest.MonkeyPatch) -> None:
        """A removed value has no mark: whether we removed it is not claimed."""
        store = open_on(server)
        store.put("a", b"x")
        lose_replies(monkeypatch, store, 1)
        with pytest.raises(StorageUnavailable, match="could not swap a"):
            store.swap("a", b"x", None)

    def test_request_that_was_lost_is_sent_again(self, server: Consul, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing has changed since: only one of the two can succeed. Of a new key it cannot be told."""
        store = open_on(server)
        store.put("a", b"x")
        send, lost = store._transact, list[object]()

        def lose_one(operations: list[dict[str, object]]) -> None:
            lost.append(operations)
            if len(lost) == 1:
                raise requests.ConnectionError("cut before it was sent")
            send(operations)

        monkeypatch.setattr(store, "_transact", lose_one)
        assert store.swap("a", b"x", b"y")
        assert store.get("a") == b"y"
        lost.clear()
        with pytest.raises(StorageUnavailable, match="could not swap b"):
            store.swap("b", None, b"x")

    def test_failure_of_the_server_is_no_lost_comparison(self, server: Consul, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only 409 says that another one was faster."""
        store = open_on(server)

        def fail(operations: object) -> None:
            raise consul.exceptions.ClientError("413 the request is too large")

        monkeypatch.setattr(store, "_transact", fail)
        with pytest.raises(StorageUnavailable, match="Consul says 413 the request is too large"):
            store.swap("a", None, b"x")

    def test_slow_loss_of_a_swap_is_not_looked_into(self, server: Consul, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who has waited for a timeout waits for no second one; a swap's outcome is unknown then."""
        store, read = open_on(server), list[str]()
        look = store._read

        def look_and_note(key: str) -> Record:
            read.append(key)
            return look(key)

        monkeypatch.setattr(store, "_read", look_and_note)

        def time_out(operations: object) -> None:
            raise requests.ConnectTimeout

        monkeypatch.setattr(store, "_transact", time_out)
        with pytest.raises(StorageUnavailable, match="could not swap a: no connection in time"):
            store.swap("a", None, b"x")
        assert read == ["a"]

    def test_cut_in_mid_write(self, server: Consul) -> None:
        """Cut anywhere, a value is the old or the new one; an unknown swap is never reported as lost."""
        for count in (100, 3000, 60_000, 85_000):
            with Chaos(server.port) as chaos:
                store, direct = open_on(server, port=chaos.port), open_on(server)
                direct._values, direct._expiries = store._values, store._expiries
                direct.put("a", b"o" * 65536)
                chaos.cut_after(count)
                with pytest.raises(StorageUnavailable):
                    store.put("a", b"n" * 65536)
                assert direct.get("a") in (b"o" * 65536, b"n" * 65536)

    def test_every_foreign_exception_is_mapped(self, server: Consul, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever class py-consul, requests and urllib3 may raise, only ours comes out."""
        store = open_on(server)
        for error in foreign_errors():

            def fail(*_: object, error: Exception = error, **__: object) -> None:
                raise error

            monkeypatch.setattr(store._client.http, "get", fail)
            monkeypatch.setattr(store._client.http, "put", fail)
            for call in (lambda: store.get("a"), lambda: store.put("a", b""), lambda: store.keys("")):
                with pytest.raises(StorageUnavailable, match=r"could not .*: \w"):
                    call()
            assert reason(error)


def foreign_errors() -> list[Exception]:
    """One of every exception class of the libraries."""
    modules = (consul.exceptions, requests.exceptions)
    classes = {
        thing for module in modules for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, Exception) and not issubclass(thing, Warning)
    }  # fmt: skip
    made = [kind.__new__(kind) for kind in classes]
    return [*made, urllib3.exceptions.LocationParseError("x"), OSError("no such file"), ValueError(), KeyError("Value")]


def all_unavailable(calls: list[Callable[[], object]]) -> list[float]:
    """Run the calls at once; each must find the store unavailable. Returns the seconds that they took."""
    durations: list[float] = []

    def run(call: Callable[[], object]) -> None:
        started = time.monotonic()
        with pytest.raises(StorageUnavailable):
            call()
        durations.append(time.monotonic() - started)

    threads = [Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(durations) == len(calls), "a call did not fail"
    return durations


def lose_replies(
    monkeypatch: pytest.MonkeyPatch, store: ConsulStore, count: int, then: Callable[[], object] = lambda: None
) -> None:
    """Let the next transactions be done, and their replies be lost."""
    real, left = store._transact, [count]

    def lossy(operations: list[dict[str, object]]) -> None:
        real(operations)
        if left[0]:
            left[0] -= 1
            then()
            raise requests.ConnectionError("cut")

    monkeypatch.setattr(store, "_transact", lossy)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("consul:acme", "two slashes"),
        ("consul://host:port/acme", "port is not a number"),
        ("consul://user:hunter2@host/acme", "takes no user or password"),
        ("consul://host/acme?token=hunter2&colour=1", "unknown parameter 'colour'; known are ca_file"),
        ("consul://host/acme?token=hunter2&token=hunter2", "token twice"),
        ("consul://host/acme?token=a&hunter2", "text behind a .* as %26.; known are ca_file"),
        ("consul://host/acme?token=a&hunter2@x=1", "text behind a .* as %26.; known are ca_file"),
        ("consul://host/acme?token=", "token without a value"),
        (
            "consul://host/acme?token=env:NOT_SET_AT_ALL",
            "in the environment variable 'NOT_SET_AT_ALL', which is not set",
        ),
        ("consul://host/acme?verify=hunter2", "verify must be true or false"),
        ("consul://host/acme?timeout=hunter2", "timeout must be a number above zero"),
        ("consul://host/acme#x", "must not contain a #"),
        ("consul://host/a%20b", "path that cannot begin Consul keys"),
        ("consul+https://host/acme?key_file=/hunter2", "client key but no client certificate"),
    ],
)
def test_wrong_url(url: str, sentence: str) -> None:
    """A wrong URL is one sentence, and shows no secret."""
    with pytest.raises(ValueError, match=sentence) as caught:
        open_storage(url, default_folder=Path("/nowhere"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("CONSUL_HTTP_ADDR", "unix:///run/consul.sock", "CONSUL_HTTP_ADDR must be host:port"),
        ("CONSUL_HTTP_ADDR", "http://user:hunter2@host:8500", "CONSUL_HTTP_ADDR must be host:port"),
        ("CONSUL_HTTP_ADDR", "host:port", "CONSUL_HTTP_ADDR must be host:port"),
        ("CONSUL_HTTP_SSL", "hunter2", ": CONSUL_HTTP_SSL must be true or false"),
        ("CONSUL_HTTP_SSL_VERIFY", "hunter2", ": CONSUL_HTTP_SSL_VERIFY must be true or false"),
    ],
)
def test_wrong_environment(variable: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invalid settings are refused, not ignored: a token must not go elsewhere, or in clear text."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=sentence) as caught:
        open_storage("consul:", default_folder=Path("/nowhere"))
    assert "hunter2" not in str(caught.value)


def test_tls_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """CONSUL_HTTP_SSL accepts each of the words for true."""
    monkeypatch.setenv("CONSUL_HTTP_SSL", "yes")
    assert open_at("consul:")._client.http.base_uri == "https://127.0.0.1:8500"


def test_defaults() -> None:
    """The URL's silence means Consul's own address and the path that Kong uses; nothing secret shows."""
    store = open_at("consul:?token=hunter2&dc=dc2")
    assert repr(store) == "ConsulStore(http://127.0.0.1:8500 (acme))"
    assert store._client.token == "hunter2"
    assert store._client.dc == "dc2"
    assert open_at("consul+https://[::1]/x")._client.http.base_uri == "https://[::1]:8501"


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without py-consul the sentence names what to install."""
    monkeypatch.setitem(sys.modules, "consul", None)
    monkeypatch.delitem(sys.modules, "acme_storage.consul")
    with pytest.raises(ValueError, match=r"pip install 'mitmproxy-acme\[consul\]'"):
        open_storage("consul:", default_folder=Path("/nowhere"))
