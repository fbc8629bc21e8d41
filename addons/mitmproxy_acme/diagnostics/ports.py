"""Check the ports: whether the proxy answers at an address of a name, on the ports that a CA and clients use.

This module knows connections and our addon's answers (RFC 8555 section 8.3); it must not know DNS or storage.
"""

import errno
import socket
from dataclasses import dataclass

import requests

from ..core.names import url_host
from .finding import Finding, fail, passed, warn

CONNECT_WITHIN, ANSWER_WITHIN = 3.0, 5.0  # seconds
_PATH = "/.well-known/acme-challenge/"
_LONGEST_REPLY = 1_024
_NOT_FOUND = b"Not found\n"  # the addon's answer to an unknown token
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@dataclass(frozen=True, slots=True)
class Probe:
    """A challenge in the storage, and a token that is not there; ``token`` is empty if the storage does not work.

    ``up`` says that a proxy is up on that storage, ``passthrough`` that unknown tokens go to the upstream.
    """

    token: str
    answer: str
    unknown: str
    up: bool
    passthrough: bool


def check_https(name: str, address: str, port: int, *, up: bool) -> Finding:
    """Connect without a handshake, which would have a certificate ordered."""
    try:
        socket.create_connection((address, port), CONNECT_WITHIN).close()
    except OSError as error:
        return unreachable(f"{name}: {at(address, port)}", error, up=up)
    return passed(f"{name}: {at(address, port)} accepts connections")


def check_http(name: str, address: str, port: int, probe: Probe) -> Finding:
    """Fetch a challenge as the CA does; blocks for seconds."""
    where = f"{name}: {at(address, port)}"
    try:
        socket.create_connection((address, port), CONNECT_WITHIN).close()
    except OSError as error:
        return unreachable(where, error, up=probe.up)
    try:
        unknown = _fetch(name, address, port, probe.unknown)
        known = _fetch(name, address, port, probe.token) if probe.token else unknown
    except requests.RequestException:
        return fail(f"{where} accepts connections but does not answer HTTP; give that port to the proxy")
    return _judge(where, known, unknown, probe)


def _judge(where: str, known: "_Reply", unknown: "_Reply", probe: Probe) -> Finding:
    if known.status == requests.codes.ok and known.body == probe.answer.encode():
        if probe.passthrough or unknown.is_ours:
            return passed(f"{where} answers challenges from this storage")
        return warn(
            f"{where} answers challenges, but HTTP {unknown.status} to an unknown one; another program is in between"
        )
    if 300 <= known.status < 400:
        return warn(
            f"{where} redirects challenges to {known.location}; CAs follow if the proxy answers there, but it is "
            f"better to pass {_PATH} on to the proxy"
        )
    if known.is_ours and not probe.token:
        return passed(f"{where} is answered by a proxy with this addon; it is not known whether it has this storage")
    if known.is_ours:
        return fail(
            f"{where} is answered by a proxy with this addon that does not use this storage; set the same acme_storage "
            "for both"
        )
    return fail(
        f"{where} is answered by another program (HTTP {known.status}{known.server}); give that port to the proxy, or "
        f"pass {_PATH} on to it"
    )


def unreachable(where: str, error: OSError, *, up: bool) -> Finding:
    """Return the finding for a failed connection; ``up`` says that a proxy is up on the storage."""
    if isinstance(error, TimeoutError):
        return fail(f"{where} does not answer from here; open it in the firewall, or correct the address in DNS")
    if error.errno in _NO_ROUTE:
        return warn(f"{where} cannot be tried from here: there is no route to it; CAs prefer IPv6 if it exists")
    if up:
        return fail(f"{where} refuses connections, though a proxy is up; check its mode, and the address in DNS")
    return warn(f"{where} refuses connections so far; start the proxy and check again")


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes
    location: str
    server: str

    @property
    def is_ours(self) -> bool:
        return self.status == requests.codes.not_found and self.body == _NOT_FOUND


def _fetch(name: str, address: str, port: int, token: str) -> _Reply:
    with requests.Session() as session:
        session.trust_env = False  # HTTP_PROXY may be this very proxy
        reply = session.get(
            f"http://{at(address, port)}{_PATH}{token}",
            headers={"Host": url_host(name)},
            timeout=(CONNECT_WITHIN, ANSWER_WITHIN),
            allow_redirects=False,
            stream=True,
        )
        body = next(reply.iter_content(_LONGEST_REPLY), b"")
        server = reply.headers.get("Server", "").strip()
        return _Reply(
            reply.status_code, body, reply.headers.get("Location", "")[:200], f", {server[:80]}" if server else ""
        )


def at(address: str, port: int) -> str:
    """Write address and port as in a URL."""
    return f"{url_host(address)}:{port}"
