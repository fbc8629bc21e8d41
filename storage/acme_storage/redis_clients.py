"""From a storage URL to a redis-py client: for one server, its socket, Sentinel, or a cluster.

This module knows redis-py's classes and their parameters; ``redis_store`` knows the commands. It must not know scripts,
keys or the meaning of errors.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelManagedConnection

from acme_storage.url import StorageUrl, is_here, parse

_TIMEOUT = 2.0
_NAMESPACE = "acme:"
_SCAN = 1000

_TLS = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password")
_KNOWN = (
    *("client_name", "db", "namespace", "password", "scan_count", "server_name", "timeout", "username"),
    *("socket_connect_timeout", "socket_timeout", "sentinel_password", "sentinel_username"),
    *("ssl", "ssl_cert_reqs", "ssl_check_hostname", "ssl_verify", *_TLS),
)


class Access(NamedTuple):
    """How to reach a store: its name in messages, how to make a client, and the URL's other settings."""

    place: str
    connect: Callable[[], Any]  # does no I/O, except for a cluster
    namespace: str
    scan_count: int


class NamedSSLConnection(redis.SSLConnection):
    """A TLS connection that requests and verifies the certificate of ``server_name``, whatever the address."""

    def __init__(self, *, server_name: str = "", **more: Any) -> None:
        super().__init__(**more)
        self._server_name = server_name

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        # redis-py has no parameter for it, and takes the name from this attribute
        host, self.host = self.host, self._server_name or self.host
        try:
            return super()._wrap_socket_with_ssl(sock)  # type: ignore[no-untyped-call] # redis-py's own
        finally:
            self.host = host


class NamedSentinelSSLConnection(SentinelManagedConnection, NamedSSLConnection):
    """The same, at the address that Sentinel gives."""


def access(url: str, namespace: str = _NAMESPACE) -> Access:
    """Return how to reach the store of ``url``; ``namespace`` is the default for a URL without one.

    Raises ``ValueError`` with one sentence if the URL is wrong.
    """
    parsed = parse(url, _KNOWN)
    namespace = parsed.parameters.get("namespace", namespace)
    if not all(letter.isascii() and (letter.isalnum() or letter in "._:{}-") for letter in namespace):
        raise parsed.wrong("needs a namespace of letters, digits and ._:{}-")
    scan_count = parsed.number("scan_count", _SCAN)
    if not 1 <= scan_count <= 100_000:
        raise parsed.wrong("needs a scan_count from 1 to 100000")
    makers = {"unix": _socket, "redis+sentinel": _sentinel, "redis+cluster": _cluster}
    place, connect = makers.get(parsed.scheme, _server)(parsed)
    return Access(f"storage {place}", connect, namespace, int(scan_count))


def plain_text(url: str) -> str:
    """Return what to write instead of a URL that reaches another machine in plain text; empty for any other URL."""
    parsed = parse(url, _KNOWN)
    if parsed.scheme == "unix" or _tls(parsed) or all(is_here(host) for host, _ in parsed.hosts):
        return ""
    return "rediss://" if parsed.scheme == "redis" else "ssl=true"


def _server(parsed: StorageUrl) -> tuple[str, Callable[[], Any]]:
    (host, port), *others = parsed.hosts or (("localhost", None),)
    if others:
        raise parsed.wrong("takes one host; for several use redis+sentinel: or redis+cluster:")
    values = {**_login(parsed), "db": _database(parsed, parsed.path), "host": host, "port": port or 6379}
    kind: type[redis.Connection] = redis.Connection
    if tls := _tls(parsed):
        kind = NamedSSLConnection
    return f"{parsed.scheme} {host}:{port or 6379}", _connector(connection_class=kind, **values, **tls)


def _socket(parsed: StorageUrl) -> tuple[str, Callable[[], Any]]:
    if parsed.hosts or not parsed.path.startswith("/"):
        raise ValueError("the storage URL unix: needs the absolute path of a socket: unix:///run/redis/redis.sock?db=0")
    values = {**_login(parsed), "db": _database(parsed, "")}
    return f"unix {parsed.path}", _connector(
        connection_class=redis.UnixDomainSocketConnection, path=parsed.path, **values
    )


def _connector(**settings: Any) -> Callable[[], Any]:
    """Return what makes clients, each with a pool of its own: a client that is given up closes no other's."""
    return lambda: redis.Redis(connection_pool=redis.ConnectionPool(**settings))


def _sentinel(parsed: StorageUrl) -> tuple[str, Callable[[], Any]]:
    service, _, database = parsed.path.removeprefix("/").partition("/")
    if not parsed.hosts or not service:
        raise ValueError("the storage URL redis+sentinel: needs redis+sentinel://host,host/NAME-OF-THE-SET")
    nodes = [(host, port or 26379) for host, port in parsed.hosts]
    login, tls = _login(parsed), _tls(parsed)
    asking = {
        **_waits(parsed, 0.25),  # several sentinels may have to be asked within the time
        "username": parsed.text("sentinel_username"),
        "password": parsed.secret("sentinel_password"),
        **({"ssl": True, **{name: value for name, value in tls.items() if name != "server_name"}} if tls else {}),
    }
    values = {**login, **tls, "db": _database(parsed, f"/{database}" if database else "")}
    if tls:
        values["connection_class"] = NamedSentinelSSLConnection
    manager = Sentinel(nodes, sentinel_kwargs=asking)
    return f"redis+sentinel {_listed(nodes)} {service}", lambda: manager.master_for(service, **values)


def _cluster(parsed: StorageUrl) -> tuple[str, Callable[[], Any]]:
    if not parsed.hosts or _database(parsed, parsed.path):
        raise ValueError("the storage URL redis+cluster: needs redis+cluster://host,host, and only has database 0")
    tls = _tls(parsed)
    if tls.pop("server_name", ""):
        raise ValueError("the storage URL redis+cluster: takes no server_name; its nodes have names of their own")
    nodes = [(host, port or 6379) for host, port in parsed.hosts]
    # One node may be silent, and then another must name its replacement: both within the time.
    values = {**_login(parsed), **_waits(parsed, 0.5), **({"ssl": True, **tls} if tls else {})}

    def connect() -> RedisCluster:
        known = [ClusterNode(host, port) for host, port in nodes]
        # First it asks any node for the list of commands, and must not give up at a dead one.
        values["retry"] = Retry(NoBackoff(), len(nodes) + 1)
        client = RedisCluster(startup_nodes=known, require_full_coverage=False, **values)
        client.set_retry(Retry(NoBackoff(), 0))
        return client

    return f"redis+cluster {_listed(nodes)}", connect


def _listed(nodes: list[tuple[str, int]]) -> str:
    return ",".join(f"{host}:{port}" for host, port in nodes)


def _login(parsed: StorageUrl) -> dict[str, Any]:
    return {
        "username": parsed.user or parsed.text("username"),
        "password": parsed.password or parsed.secret("password", "REDISCLI_AUTH"),
        "client_name": parsed.text("client_name"),
        "protocol": 2,  # our commands have the same replies in both; version 3 adds unsolicited messages
        **_waits(parsed, 1),
    }


def _waits(parsed: StorageUrl, share: float) -> dict[str, Any]:
    timeout = parsed.number("timeout", _TIMEOUT) * share
    return {
        "socket_timeout": parsed.number("socket_timeout", timeout),
        "socket_connect_timeout": parsed.number("socket_connect_timeout", timeout),
        # redis-py would try 10 times and more, whatever the command: redis_store decides what may be sent twice.
        "retry": Retry(NoBackoff(), 0),
    }


def _database(parsed: StorageUrl, path: str) -> int:
    text = parsed.parameters.get("db") or path.removeprefix("/") or "0"
    if not text.isdecimal():
        raise parsed.wrong("needs a number as the database, such as /0 or ?db=0")
    return int(text)


def _tls(parsed: StorageUrl) -> dict[str, Any]:
    """Return the options that verify the server; empty without TLS."""
    if not parsed.flag("ssl", default=parsed.scheme == "rediss"):
        if given := sorted(name for name in parsed.parameters if name.startswith("ssl_") or name == "server_name"):
            raise parsed.wrong(f"has {given[0]} but no TLS: use rediss: or ssl=true")
        return {}
    needs = parsed.text("ssl_cert_reqs") or ("required" if parsed.flag("ssl_verify", default=True) else "none")
    if needs not in ("required", "none"):
        raise parsed.wrong("needs required or none for ssl_cert_reqs")
    return {
        "ssl_cert_reqs": needs,
        "ssl_check_hostname": parsed.flag("ssl_check_hostname", default=needs == "required"),
        "server_name": parsed.text("server_name") or "",
        **{name: parsed.secret(name) for name in _TLS if name in parsed.parameters},
    }
