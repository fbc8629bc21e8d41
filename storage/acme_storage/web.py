"""What the stores that are spoken to over HTTP have in common: sessions, patience, and what a failure means.

This module knows ``requests``; it must not know any store's paths or replies.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from acme_storage.address import Address, parse

# One second to connect and not two of silence: whoever waits for a certificate waits for the store first.
CONNECT_TIMEOUT = 1.0
READ_TIMEOUT = 1.8
# What fails later than this has cost the caller its patience, and is not tried again.
_QUICK = 0.5

# What the transport raises, and what the clients raise over a reply that is not what they expect.
FOREIGN = (requests.RequestException, HTTPError, OSError)
GARBLED = (ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True)
class Tls:
    """``verify``: a CA bundle's path, True for the usual CAs, False for none. ``certificate``: the client's own."""

    verify: bool | str = True
    certificate: str | tuple[str, str] | None = None
    server_name: str | None = None


def address_of(url: str, known: tuple[str, ...]) -> Address:
    """Take ``scheme://host:port/path?name=value`` apart. Raises ``ValueError`` as ``parse`` does, and for a user."""
    address = parse(url, known)
    rest = url.partition(":")[2]
    if rest and not rest.startswith(("//", "?")):
        raise address.wrong(f"needs two slashes before the host: {address.scheme}://host:port/path")
    if address.user or address.password:
        raise address.wrong(f"takes no user and password before the host; known parameters are {', '.join(known)}")
    if empty := next((name for name, value in address.parameters.items() if not value), None):
        raise address.wrong(f"has the parameter {empty} without a value")
    if len(address.hosts) > 1:
        raise address.wrong(f"takes one host: {address.scheme}://host:port/path")
    return address


def patience(address: Address) -> tuple[float, float]:
    """Return how long to wait for a connection and for a reply, both bounded by the parameter ``timeout``."""
    timeout = address.number("timeout", READ_TIMEOUT)
    return (min(timeout, CONNECT_TIMEOUT), timeout)


def client_certificate(certificate: str | None, key: str | None, address: Address) -> str | tuple[str, str] | None:
    """Return what ``requests`` wants as the client's certificate; ``ValueError`` for a key without one."""
    if key and not certificate:
        raise address.wrong("has a client key and no client certificate: give cert_file too")
    return (certificate, key) if certificate and key else certificate


def configure(session: requests.Session, tls: Tls) -> requests.Session:
    """Let a session keep connections for many threads, and take nothing from the environment.

    A proxy for web pages, another program's CA bundle or a .netrc must not come between the proxy and its store.
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
    """Say whether a connection broke at once: a kept one whose server was restarted, so that a new one may do.

    Not a timeout (another try would double it), nor a certificate (it will be no better).
    """
    hopeless = isinstance(error, requests.Timeout | requests.exceptions.SSLError)
    return isinstance(error, requests.ConnectionError) and not hopeless and time.monotonic() - started < _QUICK


def again_after_cut[T](call: Callable[[], T]) -> T:
    """Run what may be done twice, and once more if the connection broke at once."""
    started = time.monotonic()
    try:
        return call()
    except requests.ConnectionError as error:
        if not is_quick_cut(error, started):
            raise
    return call()


def reason(error: Exception) -> str:
    """Say what a failed exchange means and what would mend it; never the request, which holds a token."""
    if isinstance(error, requests.exceptions.SSLError):
        return "its TLS certificate is not trusted, or ours not by it: check ca_file, cert_file and the host's name"
    if isinstance(error, requests.ConnectTimeout):
        return "no connection in time: check the address, and firewalls between"
    if isinstance(error, requests.Timeout):
        return "it does not answer in time: is it stopped or overloaded?"
    if isinstance(error, requests.ConnectionError):
        return "no connection: is it running, and are host, port and http or https right?"
    if isinstance(error, requests.RequestException | HTTPError):
        return f"the exchange failed ({type(error).__name__}): check the address"
    if isinstance(error, OSError):
        return f"{error.strerror or 'a file is missing'}: check {error.filename or 'ca_file, cert_file and key_file'}"
    return f"its answer is garbled ({type(error).__name__}): check host and port"
