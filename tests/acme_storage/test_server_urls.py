"""What storage URLs and the tools' own environment tell the clients of Consul and Vault, without a server."""

import os
from pathlib import Path
from typing import Any

import pytest
from hvac.exceptions import Forbidden, InvalidRequest, Unauthorized

from acme_storage import consul, vault, vault_client
from acme_storage.http_session import parse_http_url
from acme_storage.vault_login import Session, login_of

_TOOLS = ("CONSUL_", "VAULT_")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the machine that runs the tests."""
    for name in [name for name in os.environ if name.startswith(_TOOLS)]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("url", "environment", "server", "root"),
    [
        ("consul:", {}, "http://127.0.0.1:8500", "acme"),
        ("consul://h", {}, "http://h:8500", "acme"),
        ("consul://h:1/a/b/", {}, "http://h:1", "a/b"),
        ("consul://[::1]", {}, "http://[::1]:8500", "acme"),
        ("consul+https://h", {}, "https://h:8501", "acme"),
        ("consul+https:", {}, "https://127.0.0.1:8500", "acme"),
        ("consul:", {"CONSUL_HTTP_ADDR": "e:2"}, "http://e:2", "acme"),
        ("consul:", {"CONSUL_HTTP_ADDR": "https://e"}, "https://e:8501", "acme"),
        ("consul:", {"CONSUL_HTTP_ADDR": "e", "CONSUL_HTTP_SSL": "true"}, "https://e:8501", "acme"),
        ("consul://h", {"CONSUL_HTTP_ADDR": "https://e", "CONSUL_HTTP_SSL": "true"}, "http://h:8500", "acme"),
    ],
)
def test_server_and_path_of_consul(
    monkeypatch: pytest.MonkeyPatch, url: str, environment: dict[str, str], server: str, root: str
) -> None:
    """The environment counts where the URL names no host."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    client, path = consul.reach(url)
    assert (client.http.base_uri, path) == (server, root)


@pytest.mark.parametrize("address", ["ftp://e", "user@e", "e:port", "unix:///run/consul.sock", "https://"])
def test_address_of_consul_that_is_none(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", address)
    with pytest.raises(ValueError, match=r"^CONSUL_HTTP_ADDR must be host:port or https://host:port$"):
        consul.reach("consul:")


@pytest.mark.parametrize("path", ["a//b", "a b", "..", "x" * 513])
def test_path_that_cannot_begin_keys_of_consul(path: str) -> None:
    with pytest.raises(ValueError, match="has a path that cannot begin Consul keys"):
        consul.reach(f"consul://h/{path}")


@pytest.mark.parametrize(
    ("query", "environment", "token", "dc", "timeout"),
    [
        ("", {}, None, None, (1.0, 1.8)),
        ("?token=env:TOKEN&dc=west&timeout=0.5", {"TOKEN": "secret"}, "secret", "west", (0.5, 0.5)),
        ("", {"CONSUL_HTTP_TOKEN": "theirs"}, "theirs", None, (1.0, 1.8)),
        ("?token=ours", {"CONSUL_HTTP_TOKEN": "theirs"}, "ours", None, (1.0, 1.8)),
    ],
)
def test_settings_of_consul(
    monkeypatch: pytest.MonkeyPatch,
    query: str,
    environment: dict[str, str],
    token: str | None,
    dc: str | None,
    timeout: tuple[float, float],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    client, _ = consul.reach(f"consul://h{query}")
    assert (client.token, client.dc, client.http.connections_timeout) == (token, dc, timeout)


_FILES = "ca_file=ca.pem&cert_file=c.pem&key_file=k.pem&server_name=db"


@pytest.mark.parametrize("tool", ["consul", "vault"])
def test_server_is_verified_as_the_url_or_the_environment_says(monkeypatch: pytest.MonkeyPatch, tool: str) -> None:
    """In this order; a server name is sent and checked."""

    def session(query: str) -> Any:
        url = f"{tool}+https://h/secret/acme?{query}"
        if tool == "consul":
            return consul.reach(url)[0].http.session
        return vault_client.reach(parse_http_url(url, vault_client.PARAMETERS))[0].session

    assert (session("").verify, session("").cert) == (True, None)
    found = session(_FILES)
    assert (found.verify, found.cert) == ("ca.pem", ("c.pem", "k.pem"))
    assert found.get_adapter("https://h").poolmanager.connection_pool_kw["server_hostname"] == "db"
    assert session("verify=false&ca_file=ca.pem").verify is False
    names = {
        "consul": ("CONSUL_CACERT", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY", "CONSUL_TLS_SERVER_NAME"),
        "vault": ("VAULT_CACERT", "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY", "VAULT_TLS_SERVER_NAME"),
    }[tool]
    for name, value in zip(names, ("e.pem", "ec.pem", "ek.pem", "edb"), strict=True):
        monkeypatch.setenv(name, value)
    found = session("")
    assert (found.verify, found.cert) == ("e.pem", ("ec.pem", "ek.pem"))
    assert found.get_adapter("https://h").poolmanager.connection_pool_kw["assert_hostname"] == "edb"
    assert session("ca_file=ca.pem").verify == "ca.pem"
    off = {"consul": ("CONSUL_HTTP_SSL_VERIFY", "false"), "vault": ("VAULT_SKIP_VERIFY", "true")}[tool]
    monkeypatch.setenv(*off)
    assert (session("").verify, session("verify=true").verify) == (False, "e.pem")


@pytest.mark.parametrize(
    ("url", "environment", "name"),
    [
        ("vault:", {}, "http://127.0.0.1:8200 (secret/acme)"),
        ("vault://h/kv/a/b", {}, "http://h:8200 (kv/a/b)"),
        ("vault+https://[::1]:1/kv/a", {}, "https://[::1]:1 (kv/a)"),
        ("vault:", {"VAULT_ADDR": "https://e:2/ignored"}, "https://e:2 (secret/acme)"),
        ("vault://h", {"VAULT_ADDR": "https://e:2"}, "http://h:8200 (secret/acme)"),
    ],
)
def test_server_mount_and_path_of_vault(
    monkeypatch: pytest.MonkeyPatch, url: str, environment: dict[str, str], name: str
) -> None:
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert repr(vault.open_url(url, Path("/none"))) == f"VaultStore({name})"


@pytest.mark.parametrize("address", ["e:8200", "ftp://e", "https://user@e", "https://"])
def test_address_of_vault_that_is_none(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("VAULT_ADDR", address)
    with pytest.raises(ValueError, match=r"^VAULT_ADDR must be http://host:port or https://host:port$"):
        vault.open_url("vault:", Path("/none"))


@pytest.mark.parametrize("path", ["/secret", "/secret/", "/secret/a b", "/secret/../x"])
def test_path_in_vault_needs_a_mount(path: str) -> None:
    with pytest.raises(ValueError, match="needs a mount and a path in it, such as /secret/acme"):
        vault.open_url(f"vault://h{path}", Path("/none"))


def test_settings_of_vault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its namespace, and the given token unless there is a login."""

    def client(query: str) -> Any:
        return vault_client.reach(parse_http_url(f"vault://h/secret/acme?{query}", vault_client.PARAMETERS))[0]

    monkeypatch.setenv("VAULT_TOKEN", "theirs")
    monkeypatch.setenv("VAULT_NAMESPACE", "team")
    assert (client("").token, client("").adapter.namespace) == ("theirs", "team")
    assert (client("token=ours&namespace=n").token, client("namespace=n").adapter.namespace) == ("ours", "n")
    assert client("auth=cert").token == ""
    assert client("timeout=0.5")._adapter._kwargs["timeout"] == (0.5, 0.5)


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        ("vault://db.internal", "vault+https://"),
        ("vault://127.0.0.1", ""),
        ("vault:", ""),
        ("vault+https://db.internal", ""),
        ("consul://db.internal", "consul+https://"),
        ("consul:", ""),
        ("consul+https://db.internal", ""),
    ],
)
def test_plain_text_to_another_machine_is_known(url: str, instead: str) -> None:
    plain_text = consul.plain_text if url.startswith("consul") else vault.plain_text
    assert plain_text(url) == instead


@pytest.mark.parametrize(
    ("query", "payload"),
    [
        ("", None),
        ("auth=token", None),
        ("auth=cert", {}),
        ("auth=cert&role=r", {"name": "r"}),
        ("auth=approle&role_id=i", {"role_id": "i"}),
        ("auth=approle&role_id=i&secret_id=env:SECRET", {"role_id": "i", "secret_id": "hunter2"}),
        ("auth=jwt&role=r&jwt_path=JWT", {"role": "r", "jwt": "token"}),
        ("auth=kubernetes&role=r&jwt_path=JWT", {"role": "r", "jwt": "token"}),
    ],
)
def test_body_of_a_login(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, query: str, payload: dict[str, str] | None
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    (tmp_path / "jwt").write_text(" token\n")
    url = f"vault://h?{query.replace('JWT', str(tmp_path / 'jwt'))}"
    made = login_of(parse_http_url(url, vault_client.PARAMETERS))
    assert (made() if made else None) == payload


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("auth=github", "auth must be one of token, approle, kubernetes, jwt, cert"),
        ("auth=approle", "auth=approle needs role_id="),
        ("auth=kubernetes", "auth=kubernetes needs role="),
        ("auth=jwt&role=r", "auth=jwt needs jwt_path="),
    ],
)
def test_login_that_lacks_something(query: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        login_of(parse_http_url(f"vault://h?{query}", vault_client.PARAMETERS))


class Clock:
    """Seconds that are moved by hand."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Vault:
    """As much of hvac's client as a session uses; test_vault has a real server."""

    def __init__(self, token: str = "", lease: int = 100) -> None:
        self.token, self.lease = token, lease
        self.logins = self.renewals = self.lookups = 0
        self.facts: dict[str, Any] = {"renewable": True, "ttl": 100}
        self.error: Exception | None = None

    def post(self, path: str, json: dict[str, str]) -> dict[str, Any]:
        assert (path, json) == ("/v1/auth/approle/login", {"role_id": "i"})
        if self.error is not None:
            raise self.error
        self.logins += 1
        return {"auth": {"client_token": f"token {self.logins}", "lease_duration": self.lease}}

    def lookup_self(self) -> dict[str, Any]:
        self.lookups += 1
        return {"data": self.facts}

    def renew_self(self) -> dict[str, Any]:
        self.renewals += 1
        return {"auth": {"lease_duration": self.lease}}


class Refusing:
    """A call that is refused while the token is one of these."""

    def __init__(self, server: Vault, *refused: str) -> None:
        self._server, self._refused, self.tokens = server, refused, list[str]()

    def __call__(self) -> str:
        self.tokens.append(self._server.token)
        if self._server.token in self._refused:
            raise Forbidden
        return "done"


def session_of(server: Any, clock: Clock, *, logs_in: bool = True) -> Session:
    return Session(_with_auth(server), "approle", (lambda: {"role_id": "i"}) if logs_in else None, clock)


def _with_auth(server: Any) -> Any:
    class Client:
        """hvac has the methods of the token at ``auth.token``."""

        adapter = server

        class auth:
            token = server

        @property
        def token(self) -> str:
            return str(server.token)

        @token.setter
        def token(self, value: str) -> None:
            server.token = value

    return Client()


def test_login_comes_before_the_first_call_and_its_lease_is_renewed() -> None:
    """At half of its time, and not before."""
    server, clock = Vault(), Clock()
    session, call = session_of(server, clock), Refusing(server)
    for after, renewals in ((0.0, 0), (49.9, 0), (0.1, 1), (49.9, 1), (0.1, 2)):
        clock.now += after
        assert session.run(call) == "done"
        assert (server.logins, server.renewals) == (1, renewals)


def test_token_that_is_refused_is_replaced_once() -> None:
    """And the call is made once more; a policy that forbids it causes no storm of logins."""
    server, clock = Vault(), Clock()
    session, call = session_of(server, clock), Refusing(server, "token 1")
    session.run(Refusing(server))
    clock.now += 1.0
    assert session.run(call) == "done"
    assert (call.tokens, server.logins) == (["token 1", "token 2"], 2)
    forbidden = Refusing(server, "token 2", "token 3")
    for after in (0.0, 0.99):
        clock.now += after
        with pytest.raises(Forbidden):
            session.run(forbidden)
    assert (forbidden.tokens, server.logins) == (["token 2", "token 2"], 2)
    clock.now += 0.01
    with pytest.raises(Forbidden):
        session.run(forbidden)
    assert (forbidden.tokens[2:], server.logins) == (["token 2", "token 3"], 3)


def test_given_token_is_never_replaced() -> None:
    server = Vault("given")
    session, call = session_of(server, Clock(), logs_in=False), Refusing(server, "given")
    with pytest.raises(Forbidden):
        session.run(call)
    assert (call.tokens, server.logins) == (["given"], 0)


@pytest.mark.parametrize(
    ("facts", "lookups", "renewals"),
    [
        ({"renewable": True, "ttl": 100}, 3, 3),
        ({"renewable": False, "ttl": 100}, 2, 0),
        ({"renewable": False, "ttl": 0}, 1, 0),
        ({}, 1, 0),
    ],
)
def test_given_token_is_renewed_if_it_can_be(facts: dict[str, Any], lookups: int, renewals: int) -> None:
    """One that never ends is looked up once; one that cannot be renewed once a minute."""
    server, clock = Vault("given"), Clock()
    server.facts = facts
    session, call = session_of(server, clock, logs_in=False), Refusing(server)
    for _ in range(3):
        session.run(call)
        clock.now += 50.0
    assert (server.lookups, server.renewals) == (lookups, renewals)


def test_login_that_is_refused_is_no_failed_comparison() -> None:
    """Vault says 400 to both."""
    server = Vault()
    server.error = InvalidRequest("secret_id")
    with pytest.raises(Unauthorized, match="the login is refused"):
        session_of(server, Clock()).run(Refusing(server))
