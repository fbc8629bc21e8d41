"""What a storage URL tells redis-py, without a server; test_redis has servers."""

from typing import Any

import pytest
import redis

from acme_storage.redis_clients import NamedSentinelSSLConnection, NamedSSLConnection, access, plain_text


def settings(url: str) -> dict[str, Any]:
    """Return what each connection of a client is made with, and its class."""
    pool = access(url).connect().connection_pool
    return {**pool.connection_kwargs, "class": pool.connection_class}


@pytest.mark.parametrize(
    ("url", "place", "where"),
    [
        ("redis:", "storage redis localhost:6379", ("localhost", 6379, 0)),
        ("redis://", "storage redis localhost:6379", ("localhost", 6379, 0)),
        ("redis://h", "storage redis h:6379", ("h", 6379, 0)),
        ("redis://h:7000/3", "storage redis h:7000", ("h", 7000, 3)),
        ("redis://h/3?db=4", "storage redis h:6379", ("h", 6379, 4)),
        ("rediss://[::1]", "storage rediss ::1:6379", ("::1", 6379, 0)),
    ],
)
def test_server_and_database(url: str, place: str, where: tuple[str, int, int]) -> None:
    """Errors name the place, and no database or password."""
    found = settings(url)
    assert access(url).place == place
    assert (found["host"], found["port"], found["db"]) == where


def test_socket() -> None:
    found = settings("unix:///run/redis/redis.sock?db=2")
    assert (found["path"], found["db"], found["class"]) == (
        "/run/redis/redis.sock",
        2,
        redis.UnixDomainSocketConnection,
    )
    assert access("unix:///run/redis/redis.sock").place == "storage unix /run/redis/redis.sock"


def test_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the host, or as parameters; the environment of redis-cli where the URL is silent."""
    monkeypatch.setenv("REDISCLI_AUTH", "of the environment")
    monkeypatch.setenv("PW", "by reference")
    for url, user, password in (
        ("redis://h", None, "of the environment"),
        ("redis://me:mine@h?username=other&password=others", "me", "mine"),
        ("redis://h?username=me&password=env:PW", "me", "by reference"),
    ):
        found = settings(url)
        assert (found["username"], found["password"], found["protocol"]) == (user, password, 2)
    assert settings("redis://h?client_name=proxy")["client_name"] == "proxy"


@pytest.mark.parametrize(
    ("parameters", "both"),
    [
        ("", (2.0, 2.0)),
        ("?timeout=5", (5.0, 5.0)),
        ("?timeout=5&socket_timeout=1", (1.0, 5.0)),
        ("?timeout=5&socket_connect_timeout=1", (5.0, 1.0)),
    ],
)
def test_waits(parameters: str, both: tuple[float, float]) -> None:
    """And redis-py tries nothing again by itself."""
    found = settings(f"redis://h{parameters}")
    assert (found["socket_timeout"], found["socket_connect_timeout"]) == both
    assert found["retry"]._retries == 0


@pytest.mark.parametrize(
    ("url", "needs", "checks"),
    [
        ("rediss://h", "required", True),
        ("redis://h?ssl=true", "required", True),
        ("rediss://h?ssl_verify=false", "none", False),
        ("rediss://h?ssl_cert_reqs=none", "none", False),
        ("rediss://h?ssl_cert_reqs=required&ssl_verify=false", "required", True),
        ("rediss://h?ssl_check_hostname=false", "required", False),
        ("rediss://h?ssl_verify=false&ssl_check_hostname=true", "none", True),
    ],
)
def test_certificate_is_verified_unless_the_url_says_otherwise(url: str, needs: str, checks: bool) -> None:
    found = settings(url)
    assert found["class"] is NamedSSLConnection
    assert (found["ssl_cert_reqs"], found["ssl_check_hostname"], found["server_name"]) == (needs, checks, "")


def test_tls_has_the_files_and_the_name_of_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "secret")
    found = settings("rediss://h?ssl_ca_certs=ca.pem&ssl_certfile=c&ssl_keyfile=k&ssl_password=env:PW&server_name=db")
    assert [found[name] for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_password", "server_name")] == [
        "ca.pem",
        "c",
        "k",
        "secret",
        "db",
    ]
    assert "class" in found
    plain = settings("redis://h")
    assert plain["class"] is redis.Connection
    assert not [name for name in plain if name.startswith("ssl") or name == "server_name"]


def test_sentinels_have_a_login_and_a_quarter_of_the_time_of_their_own() -> None:
    """Several may have to be asked."""
    url = "redis+sentinel://me:mine@h1,h2:7000/set/3?timeout=4&sentinel_username=s&sentinel_password=sp&ssl=true"
    assert access(url).place == "storage redis+sentinel h1:26379,h2:7000 set"
    pool = access(url).connect().connection_pool
    asked = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
    assert [(one["host"], one["port"]) for one in asked] == [("h1", 26379), ("h2", 7000)]
    for one in asked:
        assert (one["username"], one["password"], one["socket_timeout"]) == ("s", "sp", 1.0)
        assert one["ssl_cert_reqs"] == "required"
        assert "server_name" not in one
    found = pool.connection_kwargs
    assert (found["username"], found["password"], found["db"], found["socket_timeout"]) == ("me", "mine", 3, 4.0)
    assert pool.connection_class is NamedSentinelSSLConnection


def test_place_of_a_cluster() -> None:
    """Nothing is asked before the first call."""
    assert access("redis+cluster://h1,h2:7000").place == "storage redis+cluster h1:6379,h2:7000"


@pytest.mark.parametrize(
    ("url", "namespace", "scan_count"),
    [
        ("redis://h", "acme:", 1_000),
        ("redis://h?namespace=&scan_count=1", "", 1),
        ("redis://h?namespace=a.B_1:{}-&scan_count=100000", "a.B_1:{}-", 100_000),
    ],
)
def test_namespace_and_scan_count(url: str, namespace: str, scan_count: int) -> None:
    assert access(url)[2:] == (namespace, scan_count)
    assert access("redis://h", "other:").namespace == "other:"


@pytest.mark.parametrize("query", ["namespace=a*", "namespace=%C3%A4", "scan_count=0.5", "scan_count=100001"])
def test_namespace_and_scan_count_out_of_their_bounds(query: str) -> None:
    with pytest.raises(ValueError, match=r"needs a namespace of letters|needs a scan_count from 1 to 100000"):
        access(f"redis://h?{query}")


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        ("redis://db.internal", "rediss://"),
        ("redis+sentinel://127.0.0.1,db.internal/set", "ssl=true"),
        ("redis+cluster://db.internal", "ssl=true"),
        ("redis+sentinel://127.0.0.1,localhost/set", ""),
        ("redis:", ""),
        ("redis://127.0.0.1", ""),
        ("unix:///run/redis.sock", ""),
        ("rediss://db.internal", ""),
        ("redis+cluster://db.internal?ssl=true", ""),
    ],
)
def test_plain_text_to_another_machine_is_known(url: str, instead: str) -> None:
    """And what to write instead."""
    assert plain_text(url) == instead
