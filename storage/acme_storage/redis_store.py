"""``redis:``, ``rediss:``, ``unix:``, ``redis+sentinel:``, ``redis+cluster:``: values in Redis, one script per call.

In a cluster, all values of one namespace are in one slot, on one node and its replicas: only there can a value and the
sorted list of keys change together. A cluster makes the store more available, not larger.

This module knows the commands and what Redis's errors mean; ``redis_scripts`` knows what Redis then does, and
``redis_clients`` how to reach it. It must not know the meaning of any key.
"""

import hashlib
import logging
import math
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from redis import exceptions as failures
from redis.sentinel import MasterNotFoundError

from acme_storage.checks import check_key, check_limit, check_prefix, check_value
from acme_storage.errors import StorageCorrupt, StorageError, StorageUnavailable
from acme_storage.redis_clients import Access, access, plain_text
from acme_storage.redis_scripts import SCRIPTS

__all__ = ["Redis", "open_url", "plain_text"]

# At DEBUG redis-py logs failed commands with their arguments, which may be private keys, and mitmproxy opens all
# loggers at DEBUG.
logging.getLogger("redis").setLevel(logging.INFO)

# Not all of redis-py's errors are RedisErrors.
FOREIGN = (
    redis.RedisError,
    failures.RedisClusterException,
    failures.ChildDeadlockedError,
    failures.IncorrectPolicyType,
    OSError,
)

_RIGHTS = (
    "grant its user ~{namespace}* +@connection +@scripting +@hash +@sortedset +del +exists +time, "
    "and in a cluster +cluster|slots +cluster|shards +command"
)
_ADVICE: list[tuple[type[Exception], str]] = [
    (failures.NoPermissionError, _RIGHTS),
    (failures.AuthenticationError, "the login is refused; check user and password"),
    (failures.AuthorizationError, "the login is refused; check user and password"),
    (failures.OutOfMemoryError, "its memory is full; raise maxmemory, and keep maxmemory-policy noeviction"),
    (failures.ReadOnlyError, "it is a replica; name the primary, or use redis+sentinel:"),
    (failures.BusyLoadingError, "it is loading its data; wait until it is ready"),
    (failures.MaxConnectionsError, "too many connections are open; try again"),
    (MasterNotFoundError, "no sentinel knows a primary of that name; check the name, and that the sentinels run"),
    (
        failures.ClusterError,
        "the cluster has lost the node with the values; start it, or let a replica take over",
    ),
    (failures.RedisClusterException, "the cluster does not answer; check that its nodes run, and that it is a cluster"),
    (failures.InvalidResponse, "the server there is not Redis; check host, port, and whether it uses TLS"),
    (
        failures.TimeoutError,
        "check that it runs, can be reached, and uses TLS (rediss:) or not; or set ?timeout=",
    ),
    (failures.ConnectionError, "check that it runs and can be reached, with TLS (rediss:) or without"),
]
_WORDS = {
    "certificate": "its TLS could not be verified; set ?ssl_ca_certs=CA.pem and ?server_name=, or ?ssl_verify=false",
    "Authentication required": "it requires a login; put user and password into the URL",
    "unauthenticated": "it requires a login; put user and password into the URL",  # its answer to a long command
    "WRONGPASS": "the login is refused; check user and password",
    "MISCONF": "it cannot save its data; read its log",
    "NOREPLICAS": "it has fewer replicas than required; start them",
    "this command or subcommand": _RIGHTS,  # a script lacks a right that its caller has
    "No permissions": _RIGHTS,
    "can't access": _RIGHTS,
}


class ReplyLost(StorageUnavailable):
    """The connection broke, before or after a command was sent: it is unknown whether it was carried out."""


def open_url(url: str, default_folder: Path) -> "Redis":
    """Return the store for the URL; nothing is connected yet."""
    return Redis(access(url))


class Redis:
    """A ``Storage`` in Redis. ``clock`` gives the time in seconds, for tests; by default the server's is used."""

    def __init__(self, access_to: Access, clock: Callable[[], float] | None = None) -> None:
        self._access = access_to
        self._clock = clock
        # The braces are the hash tag that puts all keys into one slot of a cluster; used everywhere, for one layout.
        tag = "" if "{" in access_to.namespace else "{%s}:" % (access_to.namespace.strip(":") or "acme")
        self._base = f"{access_to.namespace}{tag}"
        self._client: Any = None
        self._connecting = threading.Lock()

    def __repr__(self) -> str:
        return f"<{self._access.place}>"

    def get(self, key: str) -> bytes | None:
        check_key(key)
        state, *held = self._run(SCRIPTS.get, key)
        if state == b"corrupt":
            raise StorageCorrupt(
                f"{self._access.place}: {self._base}value:{key} was not written by this store; delete it"
            )
        return bytes(held[0]) if state == b"there" else None

    def put(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        check_key(key)
        check_value(value, ttl)
        self._run(SCRIPTS.put, key, value, _milliseconds(ttl), "")

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        check_key(key)
        check_value(new or b"", ttl)
        stamp = secrets.token_bytes(16)
        before = (int(old is not None), old or b"")
        after = (int(new is not None), new or b"", _milliseconds(ttl), stamp)
        try:
            return bool(self._run(SCRIPTS.swap, key, *before, *after, repeat=False))
        except ReplyLost as lost:
            # Stamps are unique: if ours is there, the swap was made. If not, it may have been made and overwritten, or
            # the command may still be on its way: the outcome is unknown, and the caller must know that.
            if self._run(SCRIPTS.stamp, key) == stamp:
                return True
            raise lost from None

    def delete(self, key: str) -> None:
        check_key(key)
        self._run(SCRIPTS.delete, key)

    def keys(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[str]:
        check_prefix(prefix)
        check_limit(limit)
        # The keys under "a/" sort between "a/" and "a0", because "0" follows the slash.
        upper = f"({prefix[:-1]}0" if prefix else "+"
        cursor, found = max(prefix, after), list[str]()
        while limit is None or len(found) < limit:
            page = self._access.scan_count if limit is None else min(self._access.scan_count, limit - len(found))
            lower = f"({cursor}" if cursor else "-"
            following, keys = self._run(SCRIPTS.keys, "", lower, upper, page)
            found += [key.decode("ascii", "replace") for key in keys]
            cursor = following.decode("ascii", "replace")
            if not cursor:
                break
        return found

    def close(self) -> None:
        with self._connecting:
            client, self._client = self._client, None
        if client is not None:
            disconnect(client)

    def _run(self, script: str, key: str, *arguments: str | bytes | int, repeat: bool = True) -> Any:
        """Return the script's result. ``repeat`` says that running it twice does no harm."""
        now = "" if self._clock is None else str(math.floor(self._clock() * 1000))
        base = f"{self._base}value:"
        words = (base + key, f"{self._base}keys", f"{self._base}expiries", base, key, now, *arguments)
        for attempt in (1, 2):
            try:
                return self._evaluate(script, words)
            except FOREIGN as error:
                problem = error
            if type(problem) is not redis.ConnectionError:  # a refusal or a timeout, not a broken connection
                break
            if not repeat:
                raise ReplyLost(str(self.explain(problem))) from problem
            if attempt == 2:
                break
        raise self.explain(problem) from problem

    def _evaluate(self, script: str, words: tuple[str | bytes | int, ...]) -> Any:
        client = self._connected()
        digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        try:
            return client.evalsha(digest, 3, *words)
        except failures.NoScriptError:  # not run: the server is new, or was restarted
            return client.eval(script, 3, *words)

    def _connected(self) -> Any:
        if (client := self._client) is not None:
            return client
        client = (
            self._access.connect()
        )  # without a lock, so that each of many threads learns in time that a cluster is down
        with self._connecting:
            first = self._client = self._client or client
        if first is not client:
            disconnect(client)
        return first

    def explain(self, error: Exception) -> StorageError:
        """Return what to raise for an error of redis-py; this store's only translation of errors."""
        # After "with args" Redis repeats what was sent.
        text = " ".join(str(error).split()).partition(", with args")[0][:300] or type(error).__name__
        by_class = next((advice for kind, advice in _ADVICE if isinstance(error, kind)), "read its log")
        advice = next((advice for word, advice in _WORDS.items() if word in text), by_class)
        return StorageUnavailable(f"{self._access.place}: {text}: {advice.format(namespace=self._access.namespace)}")


def disconnect(client: Any) -> None:
    """Close its idle connections.

    Each that another thread uses is closed with the client, when no thread uses that any more: redis-py would take away
    its buffer, and that thread would fail with an AttributeError or a ValueError.
    """
    clients = [node.redis_connection for node in client.get_nodes()] if hasattr(client, "get_nodes") else [client]
    with suppress(*FOREIGN):  # closing must not fail
        for one in filter(None, clients):
            one.connection_pool.disconnect(inuse_connections=False)


def _milliseconds(ttl: float | None) -> str:
    return "" if ttl is None else str(math.ceil(ttl * 1000))
