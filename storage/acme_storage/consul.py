"""Consul's key/value store: ``consul://host:8500/acme``, through py-consul, the maintained fork of python-consul.

    acme/values/KEY     the value behind a header; the flags are its expiry in ms since 1970, 0 for never
    acme/expiries/KEY   only if the value expires: the same flags and nothing else

Consul lists names without flags, and flags only together with all values. So expiring keys are listed separately, and a
listing costs names, not values. Both keys are written in one transaction, and so always have the same ModifyIndex.
Consul has no paging: each page costs the names of the whole prefix.

This module knows Consul, and nothing about the meaning of any key.
"""

import base64
import json
import os
import secrets
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import consul
import requests
from consul.callback import CB
from consul.exceptions import ACLDisabled, ACLPermissionDenied, ClientError, ConsulException

from acme_storage import http_session
from acme_storage.checks import check_key, check_limit, check_prefix, check_value, is_key
from acme_storage.consul_record import Record, pack, unpack
from acme_storage.errors import StorageCorrupt, StorageError, StorageUnavailable
from acme_storage.server_clock import ServerClock
from acme_storage.url import StorageUrl, is_here

_PARAMETERS = ("token", "dc", "timeout", "verify", "ca_file", "cert_file", "key_file", "server_name")
_PURGE_AT_ONCE = 50  # by one listing: later ones remove the rest
_ATTEMPTS = 10


def open_url(url: str, default_folder: Path) -> "ConsulStore":
    """Return the store of ``consul://host:port/path`` or ``consul+https://…``; the environment provides the rest."""
    client, root = reach(url)
    return ConsulStore(client, root, ServerClock(client.http.session))


def reach(url: str) -> tuple[Any, str]:
    """Return the client for ``url``, and the path of its keys; nothing is connected yet."""
    parsed = http_session.parse_http_url(url, _PARAMETERS)
    secure, host, port = _server(parsed)
    root = parsed.path.strip("/") or "acme"
    if not is_key(root):
        raise parsed.wrong("has a path that cannot begin Consul keys")
    certificate = parsed.text("cert_file", "CONSUL_CLIENT_CERT")
    key = parsed.text("key_file", "CONSUL_CLIENT_KEY")
    verify = parsed.flag("verify", "CONSUL_HTTP_SSL_VERIFY", default=True)
    tls = http_session.Tls(
        (parsed.text("ca_file", "CONSUL_CACERT") or True) if verify else False,
        http_session.client_certificate(certificate, key, parsed),
        parsed.text("server_name", "CONSUL_TLS_SERVER_NAME"),
    )
    where = {"host": host, "port": port, "scheme": "https" if secure else "http", "dc": parsed.text("dc")}
    options = {"verify": tls.verify, "cert": tls.certificate, "connections_timeout": http_session.timeouts(parsed)}
    client = consul.Consul(**where, **options)
    client.token = parsed.secret("token", "CONSUL_HTTP_TOKEN")  # in the constructor the environment would override it
    http_session.configure(client.http.session, tls)
    return client, root


def _server(parsed: StorageUrl) -> tuple[bool, str, int]:
    if parsed.hosts:
        secure, (host, port) = parsed.scheme == "consul+https", parsed.hosts[0]
    else:
        scheme, host, port = _named(os.environ.get("CONSUL_HTTP_ADDR") or "127.0.0.1:8500")
        wanted = parsed.flag("", "CONSUL_HTTP_SSL", default=False)
        secure = parsed.scheme == "consul+https" or scheme == "https" or wanted
    return secure, f"[{host}]" if ":" in host else host, port or (8501 if secure else 8500)


def plain_text(url: str) -> str:
    """Return what to write instead of a URL that reaches another machine in plain text; empty for any other URL."""
    secure, host, _ = _server(http_session.parse_http_url(url, _PARAMETERS))
    return "" if secure or is_here(host) else "consul+https://"


def _named(text: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(text if "//" in text else f"//{text}")
        if parts.scheme in ("", "http", "https") and parts.hostname and "@" not in parts.netloc:
            return parts.scheme, parts.hostname, parts.port
    except ValueError:  # an invalid port
        pass
    raise ValueError("CONSUL_HTTP_ADDR must be host:port or https://host:port")


class ConsulStore:
    """A ``Storage`` under ``root``. ``now`` gives the time in seconds, for ttls; all users must share it."""

    def __init__(self, client: Any, root: str, now: Callable[[], float] = time.time) -> None:
        self._client = client
        self._name = f"{client.http.base_uri} ({root})"
        self._values, self._expiries = f"{root}/values/", f"{root}/expiries/"
        self._now = now

    def __repr__(self) -> str:
        return f"ConsulStore({self._name})"

    def get(self, key: str) -> bytes | None:
        check_key(key)
        record = self._read(key)
        if self._is_expired(record):
            with suppress(StorageError):  # a client that may only read leaves it: it counts as absent anyway
                self._commit("remove", key, _removing(self._values + key, self._expiries + key, record.modified))
            return None
        if record.modified and record.value is None:
            raise StorageCorrupt(
                f"storage {self._name}: the value at {self._values}{key} was not written by this program, "
                "or was changed since; delete it"
            )
        return record.value

    def put(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        check_key(key)
        check_value(value, ttl)
        operations = self._writing(key, value, ttl, secrets.token_bytes(8), "set", 0)
        # If it is sent again after a cut, it may take effect twice, both times before this returns: the last write
        # wins.
        with self._mapped_errors(f"write {key}"):
            http_session.retry_after_cut(lambda: self._transact(operations))

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        check_key(key)
        check_value(new or b"", ttl)
        for _ in range(_ATTEMPTS):
            record = self._read(key)
            foreign = record.modified and record.value is None
            if foreign or (None if self._is_expired(record) else record.value) != old:
                return False
            if old is None and new is None:
                return True
            if self._swapped(key, record, new, ttl):
                return True
        # The old value was back at every read. That is not contention: the token may only read (inside a transaction
        # Consul answers that like a lost comparison).
        raise StorageUnavailable(f"storage {self._name}: could not swap {key}: {_DENIED}")

    def delete(self, key: str) -> None:
        check_key(key)
        operations = [_operation("delete", self._values + key), _operation("delete", self._expiries + key)]
        with self._mapped_errors(f"delete {key}"):
            http_session.retry_after_cut(lambda: self._transact(operations))

    def keys(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[str]:
        check_prefix(prefix)
        check_limit(limit)
        if limit == 0:
            return []
        with self._mapped_errors(f"list {prefix or 'all'}"):
            # Names first: a value written without ttl in between is then listed, and not taken for expired.
            names = self._list(self._values, prefix, keys=True)
            expiries = self._list(self._expiries, prefix, recurse=True)
        found = [key for name in names if is_key(key := name.removeprefix(self._values))]
        now = self._now_ms()
        expired = {item["Key"].removeprefix(self._expiries): item for item in expiries if item["Flags"] <= now}
        if expired:
            self._purge(expired, set(found))
        found.sort()
        page = (key for key in found[bisect_right(found, after) :] if key not in expired)
        return list(islice(page, limit))

    def close(self) -> None:
        self._client.http.session.close()

    # Reading

    def _read(self, key: str) -> Record:
        with self._mapped_errors(f"read {key}"):
            _, item = http_session.retry_after_cut(lambda: self._client.kv.get(self._values + key))
        return unpack(key, item)

    def _list(self, root: str, prefix: str, **how: bool) -> list[Any]:
        _, found = http_session.retry_after_cut(lambda: self._client.kv.get(root + prefix, **how))
        if not found:
            # Consul answers a token that may not read here with an empty list. For a single key, it says so.
            http_session.retry_after_cut(lambda: self._client.kv.get(root + prefix))
        return found or []

    def _now_ms(self) -> int:
        return int(self._now() * 1000)

    def _is_expired(self, record: Record) -> bool:
        return 0 < record.expires <= self._now_ms()

    # Writing

    def _writing(
        self, key: str, value: bytes, ttl: float | None, unique: bytes, verb: str, index: int
    ) -> list[dict[str, Any]]:
        expires = 0 if ttl is None else max(1, ceil((self._now() + ttl) * 1000))
        expiry = self._expiries + key
        return [
            _operation(verb, self._values + key, index, pack(key, value, expires, unique), expires),
            _operation("set", expiry, flags=expires) if expires else _operation("delete", expiry),
        ]

    def _swapped(self, key: str, record: Record, new: bytes | None, ttl: float | None) -> bool:
        """Write or remove if ``record`` is still there; find out what happened if the reply is lost."""
        unique = secrets.token_bytes(8)
        if new is None:
            operations = _removing(self._values + key, self._expiries + key, record.modified)
        else:
            operations = self._writing(key, new, ttl, unique, "cas", record.modified)
        with self._mapped_errors(f"swap {key}"):
            started = time.monotonic()
            try:
                return self._compared(operations)
            except requests.ConnectionError as error:
                # The reply is lost, and the swap may have been made. If our own mark is there, it was. If the index is
                # the old one, the same comparison can be sent again, because only one of the two can succeed. A removed
                # value has no mark, and a value that was replaced since tells nothing: then the outcome is unknown.
                if not http_session.is_quick_cut(error, started):
                    raise
                found = self._read(key)
                if found.unique == unique:
                    return True
                if found.modified != record.modified or not record.modified:
                    raise
                return self._compared(operations)

    def _compared(self, operations: list[dict[str, Any]]) -> bool:
        try:
            self._transact(operations)
        except ClientError as error:
            if not str(error).startswith("409"):
                raise
            return False
        return True

    def _transact(self, operations: list[dict[str, Any]]) -> None:
        # Not client.txn.put: py-consul 1.8 sends it without the token, and to the agent's own datacenter.
        client = self._client
        parameters = [("dc", client.dc)] if client.dc else None
        body = json.dumps(operations)
        client.http.put(CB.json(), "/v1/txn", params=parameters, data=body, headers=client.prepare_headers())

    def _commit(self, what: str, key: str, operations: list[dict[str, Any]]) -> None:
        with self._mapped_errors(f"{what} {key}"):
            self._compared(operations)

    def _purge(self, expired: dict[str, dict[str, Any]], present: set[str]) -> None:
        """Remove what a listing found expired; not everything at once, and nothing that was written since."""
        for key in list(expired)[:_PURGE_AT_ONCE]:
            index, expiry = expired[key]["ModifyIndex"], self._expiries + key
            alone = [_operation("delete-cas", expiry, index)]
            with suppress(StorageError):
                self._commit("remove", key, _removing(self._values + key, expiry, index) if key in present else alone)

    @contextmanager
    def _mapped_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (ConsulException, *http_session.FOREIGN, *http_session.GARBLED) as error:
            raise StorageUnavailable(f"storage {self._name}: could not {what}: {reason(error)}") from error


_DENIED = "the token may not do this; it needs key_prefix write on the whole path"


def reason(error: Exception, denied: str = _DENIED) -> str:
    """Return what a foreign exception means, and how to fix it; this store's only translation of errors.

    ``denied`` is the text for a token that lacks the right.
    """
    text = str(error)
    if isinstance(error, ACLPermissionDenied | ACLDisabled) or "Permission denied" in text:
        return (
            denied if "not found" not in text else "Consul does not know this token; check token or CONSUL_HTTP_TOKEN"
        )
    if isinstance(error, ConsulException):
        # Consul's own words, never the request: its replies only contain values in JSON
        words = " ".join(text.split())
        return (
            f"Consul says {words[:200]}" if words[:3].isdigit() else "the answer is not Consul's; check host and port"
        )
    return http_session.reason(error)


def _operation(verb: str, key: str, index: int = 0, value: bytes = b"", flags: int = 0) -> dict[str, Any]:
    encoded = base64.b64encode(value).decode()
    return {"KV": {"Verb": verb, "Key": key, "Index": index, "Value": encoded, "Flags": flags}}


def _removing(value: str, expiry: str, index: int) -> list[dict[str, Any]]:
    # Not delete-cas: Consul reports success for a missing key, so each of several deleters would win.
    check = _operation("check-index", value, index)
    return [check, _operation("delete", value), _operation("delete", expiry)]
