"""The common part of stores with an HTTP API: sessions, timeouts, and the meaning of failures.

This module knows ``requests``; it must not know any store's paths or replies.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from acme_storage.url import StorageUrl, parse

# One second to connect and under two for a reply: a client that waits for a certificate waits for the store first.
CONNECT_TIMEOUT = 1.0
READ_TIMEOUT = 1.8
# A failure that takes longer than this (seconds) is not tried again: the caller has waited long enough.
_QUICK = 0.5

# What the transport raises, and what the clients raise for an unexpected reply.
FOREIGN = (requests.RequestException, HTTPError, OSError)
GARBLED = (ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True)
class Tls:
    """``verify``: path of a CA bundle, True for the usual CAs, False for none. ``certificate``: the client's own."""

    verify: bool | str = True
    certificate: str | tuple[str, str] | None = None
    server_name: str | None = None


def parse_http_url(url: str, known: tuple[str, ...]) -> StorageUrl:
    """Parse ``scheme://host:port/path?name=value``. Raises ``ValueError`` as ``parse`` does, and for a user name."""
    parsed = parse(url, known)
    rest = url.partition(":")[2]
    if rest and not rest.startswith(("//", "?")):
        raise parsed.wrong(f"needs two slashes before the host: {parsed.scheme}://host:port/path")
    if parsed.user or parsed.password:
        raise parsed.wrong(f"takes no user or password before the host; known parameters are {', '.join(known)}")
    if empty := next((name for name, value in parsed.parameters.items() if not value), None):
        raise parsed.wrong(f"has the parameter {empty} without a value")
    if len(parsed.hosts) > 1:
        raise parsed.wrong(f"takes one host: {parsed.scheme}://host:port/path")
    return parsed


def timeouts(parsed: StorageUrl) -> tuple[float, float]:
    """Return the timeouts to connect and for a reply (seconds), both limited by the parameter ``timeout``."""
    timeout = parsed.number("timeout", READ_TIMEOUT)
    return (min(timeout, CONNECT_TIMEOUT), timeout)


def client_certificate(certificate: str | None, key: str | None, parsed: StorageUrl) -> str | tuple[str, str] | None:
    """Return the client certificate for ``requests``; ``ValueError`` for a key without a certificate."""
    if key and not certificate:
        raise parsed.wrong("has a client key but no client certificate; set cert_file too")
    return (certificate, key) if certificate and key else certificate


def configure(session: requests.Session, tls: Tls) -> requests.Session:
    """Let a session keep connections for many threads, and ignore the environment.

    A web proxy, another program's CA bundle or a .netrc must not come between this proxy and its store.
    """
    session.trust_env = False
    session.verify, session.cert = tls.verify, tls.certificate
    for prefix in ("http://", "https://"):
        session.mount(prefix, _Connections(tls.server_name))
    return session


class _Connections(HTTPAdapter):
    def __init__(self, server_name: str | None) -> None:
        self._server_name = server_name
        super().__init__(pool_connections=2, pool_maxsize=32)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        if self._server_name:
            options |= {"server_hostname": self._server_name, "assert_hostname": self._server_name}
        super().init_poolmanager(*arguments, **options)


def is_quick_cut(error: Exception, started: float) -> bool:
    """Say whether a kept connection broke at once, as after a server's restart, so that a new one may work.

    Not for a timeout (another try would double it), or a certificate (it would not get better).
    """
    hopeless = isinstance(error, requests.Timeout | requests.exceptions.SSLError)
    return isinstance(error, requests.ConnectionError) and not hopeless and time.monotonic() - started < _QUICK


def retry_after_cut[T](call: Callable[[], T]) -> T:
    """Run a call that may be run twice, once more if the connection broke at once."""
    started = time.monotonic()
    try:
        return call()
    except requests.ConnectionError as error:
        if not is_quick_cut(error, started):
            raise
    return call()


def reason(error: Exception) -> str:
    """Return what a failed exchange means and how to fix it; never the request, which contains a token."""
    if isinstance(error, requests.exceptions.SSLError):
        return (
            "its TLS certificate is not trusted, or it does not trust ours; check ca_file, cert_file and the host name"
        )
    if isinstance(error, requests.ConnectTimeout):
        return "no connection in time; check the address, and firewalls in between"
    if isinstance(error, requests.Timeout):
        return "it does not answer in time; is it stopped or overloaded?"
    if isinstance(error, requests.ConnectionError):
        return "no connection; is it running, and are host, port and http or https right?"
    if isinstance(error, requests.RequestException | HTTPError):
        return f"the exchange failed ({type(error).__name__}); check the address"
    if isinstance(error, OSError):
        return f"{error.strerror or 'a file is missing'}; check {error.filename or 'ca_file, cert_file and key_file'}"
    return f"its answer is malformed ({type(error).__name__}); check host and port"
