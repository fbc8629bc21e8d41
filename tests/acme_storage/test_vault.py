"""Vault's KV version 2 on OpenBao: the contract, every way to log in, and how it fails."""

import base64
import json
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import hvac.exceptions
import pytest
import requests
import urllib3.exceptions
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from hypothesis import settings

from acme_storage import Storage, StorageCorrupt, StorageUnavailable, open_storage
from acme_storage.vault import VaultStore, reason
from acme_storage.vault_record import Record, pack
from tests.acme_storage.contract import ManualClock, StorageContract, together
from tests.acme_storage.server_contract import NOTICED, require_clock_of_the_server, until_available
from tests.acme_storage.state_machine import StorageMachine
from tests.servers.bao import Bao
from tests.servers.base import free_port, started
from tests.servers.chaos import Chaos


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ADDR", "TOKEN", "NAMESPACE", "CACERT", "CLIENT_CERT", "CLIENT_KEY", "SKIP_VERIFY"):
        monkeypatch.delenv(f"VAULT_{name}", raising=False)


@pytest.fixture(scope="module")
def server() -> Iterator[Bao]:
    with started(Bao()) as running:
        VaultMachine.server = running
        yield running


_roots = iter(range(10**9))


def open_at(url: str, clock: Callable[[], float] = time.time) -> VaultStore:
    store = open_storage(url, default_folder=Path("/nowhere"))
    assert isinstance(store, VaultStore)
    store._now = clock
    return store


def open_on(server: Bao, clock: Callable[[], float] = time.time, *, port: int = 0, more: str = "") -> VaultStore:
    """A store of its own, on the server or on a proxy before it."""
    where = f"127.0.0.1:{port or server.port}/secret/test/{next(_roots)}"
    return open_at(f"vault://{where}?token={server.token}{more}", clock)


class TestVault(StorageContract):
    """The contract."""

    many, turns = 600, 15  # two pages: each write takes milliseconds

    @pytest.fixture
    def storage(self, server: Bao, clock: ManualClock) -> Iterator[Storage]:
        store = open_on(server, clock)
        yield store
        store.close()


class VaultMachine(StorageMachine):
    """The machine under a new path each time."""

    server: Bao

    def open(self, clock: ManualClock) -> Storage:
        return open_on(self.server, clock)


VaultMachine.TestCase.settings = settings(max_examples=3, stateful_step_count=20)
TestMachine = pytest.mark.usefixtures("server")(VaultMachine.TestCase)


POLICY = """
path "secret/data/login/*" { capabilities = ["create", "read", "update", "delete"] }
path "secret/metadata/login/*" { capabilities = ["list", "read", "delete"] }
path "secret/metadata/login" { capabilities = ["list"] }
"""


@pytest.fixture(scope="module")
def secured() -> Iterator[Bao]:
    """With TLS, and every auth method that the store knows."""
    with started(Bao(tls=True)) as running:
        running.request("PUT", "sys/policies/acl/acme", {"policy": POLICY})
        for method in ("approle", "kubernetes", "jwt", "cert"):
            running.request("POST", f"sys/auth/{method}", {"type": method})
        yield running


def secured_url(server: Bao, more: str) -> str:
    return f"vault+https://localhost:{server.port}/secret/login?ca_file={server.ca.bundle}&{more}"


def works(store: VaultStore) -> bool:
    """Whether all methods do, and leave nothing."""
    assert store.swap("a/b", None, b"x", ttl=60)
    assert store.get("a/b") == b"x"
    assert store.keys("") == ["a/b"]
    assert store.swap("a/b", b"x", None)
    return store.keys("") == []


def signed_jwt(key: ec.EllipticCurvePrivateKey, **claims: object) -> str:
    """A JWT (RFC 7519) by ES256."""

    def encode(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = encode(json.dumps({"alg": "ES256", "typ": "JWT"}).encode())
    now = int(time.time())
    text = f"{head}.{encode(json.dumps({'iat': now, 'nbf': now - 60, 'exp': now + 600, **claims}).encode())}"
    r, s = utils.decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{encode(r.to_bytes(32) + s.to_bytes(32))}"


def public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


class TokenReview(BaseHTTPRequestHandler):
    """Kubernetes as Vault sees it: says yes to every token, as the service account acme/proxy."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        user = {"username": "system:serviceaccount:acme:proxy", "uid": "1", "groups": ["system:serviceaccounts"]}
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
        body = json.dumps({**review, "status": {"authenticated": True, "user": user}}).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


class TestLogin:
    def test_token(self, secured: Bao, monkeypatch: pytest.MonkeyPatch) -> None:
        """A token by reference, or from Vault's own variables, as the address and the CA."""
        monkeypatch.setenv("MY_TOKEN", secured.make_token(POLICY))
        assert works(open_at(secured_url(secured, "token=env:MY_TOKEN")))
        monkeypatch.setenv("VAULT_ADDR", f"https://localhost:{secured.port}")
        monkeypatch.setenv("VAULT_TOKEN", secured.token)
        monkeypatch.setenv("VAULT_CACERT", str(secured.ca.bundle))
        assert works(open_at("vault:"))

    def test_renews_a_token(self, secured: Bao) -> None:
        """A renewable token is renewed at half its life."""
        store = open_at(secured_url(secured, f"token={secured.make_token(POLICY, '20s')}"))
        clock = [0.0]
        store._session._clock = lambda: clock[0]
        assert store.get("a") is None
        assert store._session._renew_at == 10
        clock[0] = 11
        assert store.get("a") is None
        assert store._session._renew_at == 21

    def test_a_wrong_token(self, secured: Bao) -> None:
        """A refused token is no empty store, and does not show."""
        store = open_at(secured_url(secured, "token=hunter2"))
        for call in (lambda: store.get("a"), lambda: store.keys(""), lambda: store.swap("a", None, b"x")):
            with pytest.raises(StorageUnavailable, match="refused, or its policy lacks") as caught:
                call()
            assert "hunter2" not in str(caught.value)

    def make_approle(self, server: Bao, ttl: str = "1h") -> tuple[str, str]:
        server.request("POST", "auth/approle/role/node", {"token_policies": ["acme"], "token_ttl": ttl})
        role_id = server.request("GET", "auth/approle/role/node/role-id")["data"]["role_id"]
        return role_id, server.request("POST", "auth/approle/role/node/secret-id")["data"]["secret_id"]

    def test_approle(self, secured: Bao, monkeypatch: pytest.MonkeyPatch) -> None:
        """An AppRole logs in by role_id and secret_id."""
        role_id, secret_id = self.make_approle(secured)
        monkeypatch.setenv("MY_SECRET", secret_id)
        assert works(open_at(secured_url(secured, f"auth=approle&role_id={role_id}&secret_id=env:MY_SECRET")))

    def test_a_wrong_secret(self, secured: Bao) -> None:
        """A refused login is reported as such, in reads and in writes."""
        role_id, _ = self.make_approle(secured)
        store = open_at(secured_url(secured, f"auth=approle&role_id={role_id}&secret_id=hunter2"))
        calls: list[Callable[[], object]] = [lambda: store.get("a"), lambda: store.put("a", b"x")]
        for call in calls:
            with pytest.raises(StorageUnavailable, match="token or login is refused") as caught:
                call()
            assert "hunter2" not in str(caught.value)

    def test_logs_in_again_once_for_all_threads(self, secured: Bao) -> None:
        """When the token is revoked, eight threads go on after one new login between them."""
        role_id, secret_id = self.make_approle(secured)
        store = open_at(secured_url(secured, f"auth=approle&role_id={role_id}&secret_id={secret_id}"))
        assert works(store)
        secured.request("POST", "auth/token/revoke", {"token": store._client.token})
        store._session._logged_in -= 10  # it was a while ago
        logins = 0
        real = store._session._post

        def count(body: dict[str, str]) -> object:
            nonlocal logins
            logins += 1
            return real(body)

        store._session._post = count  # type: ignore[method-assign]  # a spy
        assert together(lambda number: store.get(f"a/{number}"), 8) == [None] * 8
        assert logins == 1

    def test_no_storm_of_logins(self, secured: Bao) -> None:
        """A call that the policy forbids does not cause a new login each time."""
        role_id, secret_id = self.make_approle(secured)
        url = secured_url(secured, f"auth=approle&role_id={role_id}&secret_id={secret_id}")
        store = open_at(url.replace("/secret/login", "/secret/elsewhere"))
        for _ in range(3):
            with pytest.raises(StorageUnavailable, match="policy lacks"):
                store.get("a")
        token = store._client.token
        with pytest.raises(StorageUnavailable, match="policy lacks"):
            store.keys("")
        assert store._client.token == token

    def test_jwt(self, secured: Bao, tmp_path: Path) -> None:
        """A JWT in a file logs in, the file being read at each login."""
        key = ec.generate_private_key(ec.SECP256R1())
        secured.request("POST", "auth/jwt/config", {"jwt_validation_pubkeys": [public_pem(key)]})
        role = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "token_policies": ["acme"]}
        secured.request("POST", "auth/jwt/role/proxy", role)
        (tmp_path / "jwt").write_text(signed_jwt(key, sub="node", aud="vault") + "\n")
        url = secured_url(secured, f"auth=jwt&role=proxy&jwt_path={tmp_path}/jwt")
        assert works(open_at(url))
        with pytest.raises(StorageUnavailable, match="No such file"):
            open_at(url.replace(f"{tmp_path}/jwt", f"{tmp_path}/none")).get("a")

    def test_kubernetes(self, secured: Bao, tmp_path: Path) -> None:
        """A service account's token logs in, reviewed by (what Vault takes for) Kubernetes; also at another path."""
        key = ec.generate_private_key(ec.SECP256R1())
        review = ThreadingHTTPServer(("127.0.0.1", 0), TokenReview)
        Thread(target=review.serve_forever, args=(0.02,), daemon=True).start()
        secured.request("POST", "sys/auth/cluster", {"type": "kubernetes"})
        host = f"http://127.0.0.1:{review.server_address[1]}"
        configuration = {"kubernetes_host": host, "disable_local_ca_jwt": True, "token_reviewer_jwt": "x"}
        ca = {"kubernetes_ca_cert": secured.ca.bundle.read_text(), "pem_keys": [public_pem(key)]}
        secured.request("POST", "auth/cluster/config", configuration | ca)
        bound = {"bound_service_account_names": "proxy", "bound_service_account_namespaces": "acme"}
        secured.request("POST", "auth/cluster/role/proxy", {**bound, "token_policies": ["acme"]})
        account = {"namespace": "acme", "serviceaccount": {"name": "proxy", "uid": "1"}}
        claims = {"sub": "system:serviceaccount:acme:proxy", "iss": "kubernetes/serviceaccount"}
        (tmp_path / "token").write_text(signed_jwt(key, **claims, **{"kubernetes.io": account}))
        more = f"auth=kubernetes&auth_path=cluster&role=proxy&jwt_path={tmp_path}/token"
        try:
            assert works(open_at(secured_url(secured, more)))
        finally:
            review.shutdown()
            review.server_close()

    def test_certificate(self, secured: Bao) -> None:
        """A TLS client certificate logs in."""
        body = {"certificate": secured.ca.bundle.read_text(), "token_policies": ["acme"]}
        secured.request("POST", "auth/cert/certs/node", body)
        files = f"cert_file={secured.client.certificate}&key_file={secured.client.key}"
        assert works(open_at(secured_url(secured, f"auth=cert&role=node&{files}")))

    def test_namespace(self, secured: Bao) -> None:
        """A namespace has its own mounts and values."""
        secured.request("POST", "sys/namespaces/team")
        secured.request("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}}, namespace="team")
        store = open_at(secured_url(secured, f"token={secured.token}&namespace=team"))
        until_available(lambda: store.put("a", b"x"))  # the new mount is being upgraded for a moment
        assert store.keys("") == ["a"]
        assert open_at(secured_url(secured, f"token={secured.token}")).get("a") is None

    def test_unknown_ca(self, secured: Bao, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server with an unknown CA is refused, unless verification is off."""
        url = f"vault+https://localhost:{secured.port}/secret/login?token={secured.token}"
        with pytest.raises(StorageUnavailable, match="TLS certificate is not trusted"):
            open_at(url).get("a")
        monkeypatch.setenv("VAULT_SKIP_VERIFY", "true")
        with pytest.warns(urllib3.exceptions.InsecureRequestWarning):
            assert open_at(url).get("a") is None


class TestLayout:
    def test_nothing_is_left(self, server: Bao) -> None:
        """A removed or expired value leaves no name and no version behind."""
        clock = ManualClock()
        store = open_on(server, clock)
        for key in ("deleted", "swapped", "read", "listed"):
            store.put(key, b"x", ttl=10)
        store.delete("deleted")
        assert store.swap("swapped", b"x", None)
        clock.advance(11)
        assert store.get("read") is None
        assert store.keys("") == []
        assert store._list("") == []

    def test_soft_deleted(self, server: Bao) -> None:
        """A version that was deleted by Vault's own means is absent, not listed, and can be overwritten."""
        store = open_on(server)
        store.put("a", b"x")
        store._client.secrets.kv.v2.delete_latest_version_of_secret(store._path("a"), mount_point="secret")
        assert store.get("a") is None
        assert store.keys("") == []
        assert store.swap("a", None, b"y")
        assert store.get("a") == b"y"

    def test_half_removed(self, server: Bao) -> None:
        """Who died while removing is waited for; after a while his rest is written over or removed."""
        clock = ManualClock()
        store = open_on(server, clock)
        for key in ("a", "b"):
            store.put(key, b"x")
            v2 = store._client.secrets.kv.v2
            half = {"value": None, "expires": 0, "unique": "u", "removed": clock.time * 1000}
            v2.create_or_update_secret(store._path(key), half, mount_point="secret")
        assert store.get("a") is None
        assert store.keys("") == []
        clock.advance(11)
        assert store.swap("a", None, b"y")
        assert store.keys("") == ["a"]
        assert store._list("") == ["a"]

    def test_removal_by_a_clock_that_was_ahead_ends(self, server: Bao, monkeypatch: pytest.MonkeyPatch) -> None:
        """Else everybody would be kept from the key until that time."""
        monkeypatch.setattr("acme_storage.vault._UNCHANGED", 0.05)
        clock = ManualClock()
        store = open_on(server, clock)
        half = {"value": None, "expires": 0, "unique": "u", "removed": (clock.time + 86_400) * 1000}
        store._client.secrets.kv.v2.create_or_update_secret(store._path("a"), half, mount_point="secret")
        assert store.swap("a", None, b"x")
        assert store.get("a") == b"x"

    def test_clock_of_the_server_counts(self, server: Bao) -> None:
        url = f"vault://127.0.0.1:{server.port}/secret/test/clock?token={server.token}"
        require_clock_of_the_server(
            open_storage(url, default_folder=Path("/nowhere")), lambda clock: open_at(url, clock)
        )

    def test_removal_that_does_not_end_is_not_waited_for_always(
        self, server: Bao, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No other writes into it, because the remover would remove that too; the call ends, and says why."""
        clock = ManualClock()
        store = open_on(server, clock)
        half = {"value": None, "expires": 0, "unique": "u", "removed": clock.time * 1000}
        store._client.secrets.kv.v2.create_or_update_secret(store._path("a"), half, mount_point="secret")
        monkeypatch.setattr("acme_storage.vault._PATIENCE", 0.05)
        calls: list[Callable[[], object]] = [
            lambda: store.put("a", b"x"),
            lambda: store.swap("a", None, b"x"),
            lambda: store.delete("a"),
        ]
        for call in calls:
            with pytest.raises(StorageUnavailable, match="a: others keep changing it"):
                call()
        assert store.get("a") is None

    def test_value_that_is_too_long_is_corrupt(self, server: Bao) -> None:
        """No adapter writes such a value, and it is not parsed."""
        store = open_on(server)
        fields = pack(b"x" * 65_537, 0, "unique")
        store._client.secrets.kv.v2.create_or_update_secret(store._path("a"), fields, mount_point="secret")
        with pytest.raises(StorageCorrupt):
            store.get("a")
        store.delete("a")
        assert store.get("a") is None

    def test_foreign_values_are_corrupt(self, server: Bao) -> None:
        """Another program's value is listed and can be deleted, equals no old value, and is not returned."""
        store = open_on(server)
        store._client.secrets.kv.v2.create_or_update_secret(store._path("a"), {"value": "é"}, mount_point="secret")
        with pytest.raises(StorageCorrupt, match="was not written by this program"):
            store.get("a")
        assert store.keys("") == ["a"]
        assert not store.swap("a", None, b"x")
        store.delete("a")
        assert store.keys("") == []

    def test_no_such_mount(self, server: Bao) -> None:
        """A mount that is not there is not an empty store."""
        store = open_at(f"vault://127.0.0.1:{server.port}/nowhere/acme?token={server.token}")
        for call in (lambda: store.get("a"), lambda: store.keys(""), lambda: store.put("a", b"x")):
            with pytest.raises(StorageUnavailable, match="nothing is mounted there"):
                call()

    def test_version_1(self, server: Bao) -> None:
        """A mount of version 1, which compares nothing, takes no write."""
        server.request("POST", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}})
        store = open_at(f"vault://127.0.0.1:{server.port}/old/acme?token={server.token}")
        with pytest.raises(StorageUnavailable):
            store.put("a", b"x")


class TestFailure:
    def test_nobody_there(self) -> None:
        """A closed port is an unavailable store, at once, named in the message."""
        port = free_port()
        with pytest.raises(StorageUnavailable, match=f"http://127.0.0.1:{port} .*could not read a"):
            open_at(f"vault://127.0.0.1:{port}/secret/acme?token=x").get("a")

    def test_kill_and_seal(self) -> None:
        """Values survive a kill; killed and sealed it is unavailable, and in use again within 5 s of its return."""
        with started(Bao(persist=True)) as server:
            store = open_on(server)
            store.put("a", b"x" * 65536)
            server.kill()
            with pytest.raises(StorageUnavailable, match="no connection"):
                store.get("a")
            server.start()
            assert until_available(lambda: store.get("a")) == b"x" * 65536
            server.seal()
            for call in (lambda: store.get("a"), lambda: store.keys(""), lambda: store.swap("b", None, b"x")):
                with pytest.raises(StorageUnavailable, match="sealed"):
                    call()
            server.unseal()
            assert until_available(lambda: store.swap("a", b"x" * 65536, b"y"))

    def test_paused(self, server: Bao) -> None:
        """Calls give up on a silent server within 2 s, and work when it continues."""
        store = open_on(server)
        store.put("a", b"x")
        server.pause()
        started = time.monotonic()
        try:
            with pytest.raises(StorageUnavailable, match="does not answer in time"):
                store.get("a")
        finally:
            server.resume()
        assert time.monotonic() - started < NOTICED
        assert until_available(lambda: store.get("a")) == b"x"

    def test_blackhole_and_reset(self, server: Bao) -> None:
        """A blackhole is noticed within 2 s; a connection that was reset while it lay idle costs no call."""
        with Chaos(server.port) as chaos:
            store = open_on(server, port=chaos.port)
            for turn in range(3):
                assert store.swap("a", b"%d" % (turn - 1) if turn else None, b"%d" % turn)
                chaos.reset()
            chaos.blackhole()
            started = time.monotonic()
            with pytest.raises(StorageUnavailable):
                store.swap("a", b"2", b"x")
            assert time.monotonic() - started < NOTICED
            chaos.reset()
            chaos.heal()
            assert store.get("a") == b"2"

    def test_lost_replies(self, server: Bao, monkeypatch: pytest.MonkeyPatch) -> None:
        """A swap whose reply is lost finds its own mark; one that was overtaken is not claimed either way."""
        store, other = open_on(server), open_on(server)
        other._root = store._root
        lose_reply(monkeypatch, store)
        assert store.swap("a", None, b"mine")
        lose_reply(monkeypatch, store, lambda: other.put("a", b"theirs"))
        with pytest.raises(StorageUnavailable, match="could not write a"):
            store.swap("a", b"mine", b"next")
        assert store.get("a") == b"theirs"

    def test_request_that_was_lost_is_sent_again(self, server: Bao, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing has changed since: only one of the two can succeed. Of a new key it cannot be told."""
        store = open_on(server)
        store.put("a", b"x")
        send, lost = store._send, list[object]()

        def lose_one(key: str, record: Record, fields: dict[str, object]) -> bool:
            lost.append(key)
            if len(lost) == 1:
                raise requests.ConnectionError("cut before it was sent")
            return send(key, record, fields)

        monkeypatch.setattr(store, "_send", lose_one)
        assert store.swap("a", b"x", b"y")
        assert store.get("a") == b"y"
        lost.clear()
        with pytest.raises(StorageUnavailable, match="could not write b"):
            store.swap("b", None, b"x")

    def test_slow_loss_of_a_write_is_not_looked_into(self, server: Bao, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who has waited for a timeout waits for no second one; a swap's outcome is unknown then."""
        store, read = open_on(server), list[str]()
        look = store._read

        def look_and_note(key: str) -> Record:
            read.append(key)
            return look(key)

        monkeypatch.setattr(store, "_read", look_and_note)

        def time_out(*_: object) -> bool:
            raise requests.ConnectTimeout

        monkeypatch.setattr(store, "_send", time_out)
        with pytest.raises(StorageUnavailable, match="could not write a: no connection in time"):
            store.swap("a", None, b"x")
        assert read == ["a"]

    def test_junk(self, server: Bao) -> None:
        """A load balancer's error page is an unavailable store."""
        with Chaos(server.port) as chaos:
            chaos.answer_junk()
            store = open_on(server, port=chaos.port)
            for call in (lambda: store.get("a"), lambda: store.keys(""), lambda: store.swap("a", None, b"x")):
                with pytest.raises(StorageUnavailable):
                    call()

    def test_every_foreign_exception_is_mapped(self, server: Bao, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever class hvac, requests and urllib3 may raise, only ours comes out."""
        store = open_on(server)
        for error in foreign_errors():

            def fail(*_: object, error: Exception = error, **__: object) -> None:
                raise error

            monkeypatch.setattr(store._session, "run", fail)
            calls: list[Callable[[], object]] = [
                lambda: store.put("a", b""),
                lambda: store._list(""),
                lambda: store._compare("a", Record(1), {}),
            ]
            for call in calls if not isinstance(error, hvac.exceptions.InvalidPath) else []:
                with pytest.raises(StorageUnavailable, match=r"could not .*: \w"):
                    call()
            assert reason(error)


def foreign_errors() -> list[Exception]:
    """One of every exception class of the libraries."""
    classes = {
        thing
        for module in (hvac.exceptions, requests.exceptions)
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, Exception) and not issubclass(thing, Warning)
    }
    made = [kind() if issubclass(kind, hvac.exceptions.VaultError) else kind.__new__(kind) for kind in classes]
    return [*made, urllib3.exceptions.LocationParseError("x"), OSError("no such file"), ValueError(), KeyError("data")]


def lose_reply(monkeypatch: pytest.MonkeyPatch, store: VaultStore, then: Callable[[], object] = lambda: None) -> None:
    """Let the next write be done, and its reply be lost."""
    real, left = type(store)._send.__get__(store), [1]

    def lossy(*arguments: object) -> bool:
        done: bool = real(*arguments)
        if left.pop() if left else 0:
            then()
            raise requests.ConnectionError("cut")
        return done

    monkeypatch.setattr(store, "_send", lossy)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("vault://host/secret", "needs a mount and a path"),
        ("vault://hunter2@host/secret/acme", "takes no user or password"),
        ("vault://host/secret/acme?auth=ldap", "auth must be one of token, approle"),
        ("vault://host/secret/acme?auth=approle&secret_id=hunter2", "auth=approle needs role_id="),
        ("vault://host/secret/acme?auth=jwt&role=x", "auth=jwt needs jwt_path="),
        ("vault://host/secret/acme?token=hunter2&colour=1", "unknown parameter 'colour'; known are auth, auth_path"),
        (
            "vault://host/secret/acme?token=env:NOT_SET_AT_ALL",
            "in the environment variable 'NOT_SET_AT_ALL', which is not set",
        ),
    ],
)
def test_wrong_url(url: str, sentence: str) -> None:
    """A wrong URL is one sentence, and shows no secret."""
    with pytest.raises(ValueError, match=sentence) as caught:
        open_storage(url, default_folder=Path("/nowhere"))
    assert "hunter2" not in str(caught.value)


def test_refused_comparison_with_what_is_gone_again(server: Bao, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vault says only that it refuses; another process wrote the key, and has removed it since."""
    root = next(_roots)
    url = f"vault://127.0.0.1:{server.port}/secret/test/{root}?token={server.token}"
    store, other = open_at(url), open_at(url)
    kv = store._client.secrets.kv.v2
    write, written = kv.create_or_update_secret, []

    def contended(*args: object, **kwargs: object) -> object:
        written.append(args)
        if len(written) > 1:
            return write(*args, **kwargs)
        other.put("leases/a", b"theirs")
        try:
            return write(*args, **kwargs)
        finally:
            other.delete("leases/a")

    monkeypatch.setattr(kv, "create_or_update_secret", contended)
    assert store.swap("leases/a", None, b"ours")
    assert other.get("leases/a") == b"ours"
    assert len(written) == 2


def test_wrong_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is neither true nor false is named."""
    monkeypatch.setenv("VAULT_SKIP_VERIFY", "perhaps")
    with pytest.raises(ValueError, match="vault: VAULT_SKIP_VERIFY must be true or false"):
        open_storage("vault:", default_folder=Path("/nowhere"))


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without hvac the sentence names what to install."""
    monkeypatch.setitem(sys.modules, "hvac", None)
    monkeypatch.delitem(sys.modules, "acme_storage.vault")
    monkeypatch.delitem(sys.modules, "acme_storage.vault_client")
    with pytest.raises(ValueError, match=r"pip install 'mitmproxy-acme\[vault\]'"):
        open_storage("vault:", default_folder=Path("/nowhere"))
