"""From a storage URL to a client of redis-py: one server, its socket, what Sentinel says, or a cluster.

This module knows redis-py's classes and their parameters; ``redis_store`` knows what to ask of them. It must not know
scripts, keys or what errors mean.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelManagedConnection

from acme_storage.address import Address, is_here, parse

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
    """How to reach a store: its name in messages, what makes the client, and what the URL says beyond."""

    place: str
    connect: Callable[[], Any]  # does no I/O, but for a cluster
    namespace: str
    scan_count: int


class NamedSSLConnection(redis.SSLConnection):
    """One that asks for and verifies the certificate of ``server_name``, whatever the address."""

    def __init__(self, *, server_name: str = "", **more: Any) -> None:
        super().__init__(**more)
        self._server_name = server_name

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        # redis-py has no parameter for it, and takes the name from here
        host, self.host = self.host, self._server_name or self.host
        try:
            return super()._wrap_socket_with_ssl(sock)  # type: ignore[no-untyped-call] # redis-py's own
        finally:
            self.host = host


class NamedSentinelSSLConnection(SentinelManagedConnection, NamedSSLConnection):
    """The same, at the address that Sentinel says."""


def access(url: str, namespace: str = _NAMESPACE) -> Access:
    """Return how to reach what ``url`` names; ``namespace`` is that of a URL which names none.

    Raises ``ValueError`` with one sentence for a wrong one.
    """
    address = parse(url, _KNOWN)
    namespace = address.parameters.get("namespace", namespace)
    if not all(letter.isascii() and (letter.isalnum() or letter in "._:{}-") for letter in namespace):
        raise address.wrong("needs a namespace of letters, digits and ._:{}-")
    scan_count = address.number("scan_count", _SCAN)
    if not 1 <= scan_count <= 100_000:
        raise address.wrong("needs a scan_count from 1 to 100000")
    makers = {"unix": _socket, "redis+sentinel": _sentinel, "redis+cluster": _cluster}
    place, connect = makers.get(address.scheme, _server)(address)
    return Access(f"storage {place}", connect, namespace, int(scan_count))


def plain_text(url: str) -> str:
    """Return what to write instead of a URL that reaches another machine in plain text; nothing for any other."""
    address = parse(url, _KNOWN)
    if address.scheme == "unix" or _tls(address) or all(is_here(host) for host, _ in address.hosts):
        return ""
    return "rediss://" if address.scheme == "redis" else "ssl=true"


def _server(address: Address) -> tuple[str, Callable[[], Any]]:
    (host, port), *others = address.hosts or (("localhost", None),)
    if others:
        raise address.wrong("takes one host; for several use redis+sentinel: or redis+cluster:")
    values = {**_login(address), "db": _database(address, address.path), "host": host, "port": port or 6379}
    kind: type[redis.Connection] = redis.Connection
    if tls := _tls(address):
        kind = NamedSSLConnection
    pool = redis.ConnectionPool(connection_class=kind, **values, **tls)
    return f"{address.scheme} {host}:{port or 6379}", lambda: redis.Redis(connection_pool=pool)


def _socket(address: Address) -> tuple[str, Callable[[], Any]]:
    if address.hosts or not address.path.startswith("/"):
        raise ValueError("the storage URL unix: needs the absolute path of a socket: unix:///run/redis/redis.sock?db=0")
    values = {**_login(address), "db": _database(address, "")}
    pool = redis.ConnectionPool(connection_class=redis.UnixDomainSocketConnection, path=address.path, **values)
    return f"unix {address.path}", lambda: redis.Redis(connection_pool=pool)


def _sentinel(address: Address) -> tuple[str, Callable[[], Any]]:
    service, _, database = address.path.removeprefix("/").partition("/")
    if not address.hosts or not service:
        raise ValueError("the storage URL redis+sentinel: needs redis+sentinel://host,host/NAME-OF-THE-SET")
    nodes = [(host, port or 26379) for host, port in address.hosts]
    login, tls = _login(address), _tls(address)
    asking = {
        **_waits(address, 0.25),  # several may have to be asked before the time is up
        "username": address.text("sentinel_username"),
        "password": address.secret("sentinel_password"),
        **({"ssl": True, **{name: value for name, value in tls.items() if name != "server_name"}} if tls else {}),
    }
    values = {**login, **tls, "db": _database(address, f"/{database}" if database else "")}
    if tls:
        values["connection_class"] = NamedSentinelSSLConnection
    manager = Sentinel(nodes, sentinel_kwargs=asking)
    return f"redis+sentinel {_listed(nodes)} {service}", lambda: manager.master_for(service, **values)


def _cluster(address: Address) -> tuple[str, Callable[[], Any]]:
    if not address.hosts or _database(address, address.path):
        raise ValueError("the storage URL redis+cluster: needs redis+cluster://host,host, and has no database but 0")
    tls = _tls(address)
    if tls.pop("server_name", ""):
        raise ValueError("the storage URL redis+cluster: takes no server_name: its nodes go by their own names")
    nodes = [(host, port or 6379) for host, port in address.hosts]
    # A node that says nothing, and then another that must say who took its place: together within the time.
    values = {**_login(address), **_waits(address, 0.5), **({"ssl": True, **tls} if tls else {})}

    def connect() -> RedisCluster:
        known = [ClusterNode(host, port) for host, port in nodes]
        # To begin with it asks any node what commands there are, and must not give up at a dead one.
        values["retry"] = Retry(NoBackoff(), len(nodes) + 1)
        client = RedisCluster(startup_nodes=known, require_full_coverage=False, **values)
        client.set_retry(Retry(NoBackoff(), 0))
        return client

    return f"redis+cluster {_listed(nodes)}", connect


def _listed(nodes: list[tuple[str, int]]) -> str:
    return ",".join(f"{host}:{port}" for host, port in nodes)


def _login(address: Address) -> dict[str, Any]:
    return {
        "username": address.user or address.text("username"),
        "password": address.password or address.secret("password", "REDISCLI_AUTH"),
        "client_name": address.text("client_name"),
        "protocol": 2,  # what we ask has the same answer in both; 3 adds messages that nobody asked for
        **_waits(address, 1),
    }


def _waits(address: Address, share: float) -> dict[str, Any]:
    timeout = address.number("timeout", _TIMEOUT) * share
    return {
        "socket_timeout": address.number("socket_timeout", timeout),
        "socket_connect_timeout": address.number("socket_connect_timeout", timeout),
        # redis-py would try 10 times and more, whatever the command: what may be sent twice is decided in redis_store.
        "retry": Retry(NoBackoff(), 0),
    }


def _database(address: Address, path: str) -> int:
    text = address.parameters.get("db") or path.removeprefix("/") or "0"
    if not text.isdecimal():
        raise address.wrong("needs a number as the database, such as /0 or ?db=0")
    return int(text)


def _tls(address: Address) -> dict[str, Any]:
    """Return what verifies the server, or nothing where there is no TLS."""
    if not address.flag("ssl", default=address.scheme == "rediss"):
        if given := sorted(name for name in address.parameters if name.startswith("ssl_") or name == "server_name"):
            raise address.wrong(f"has {given[0]} but no TLS: use rediss: or ssl=true")
        return {}
    needs = address.text("ssl_cert_reqs") or ("required" if address.flag("ssl_verify", default=True) else "none")
    if needs not in ("required", "none"):
        raise address.wrong("needs required or none for ssl_cert_reqs")
    return {
        "ssl_cert_reqs": needs,
        "ssl_check_hostname": address.flag("ssl_check_hostname", default=needs == "required"),
        "server_name": address.text("server_name") or "",
        **{name: address.secret(name) for name in _TLS if name in address.parameters},
    }
