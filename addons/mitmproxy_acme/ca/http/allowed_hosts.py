"""Which URLs in a CA's replies may be requested: HTTPS, at a host that its directory names (RFC 8555 section 6.1).

This module knows URLs and the directory's fields; it must not know requests. Otherwise a CA, or an attacker who changed
its reply, could send our signed requests to any server that this machine reaches.
"""

import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping

from ...core.host_port import parse_host_port
from ...core.text import one_line

# RFC 8555 section 9.7.5 and RFC 9773 section 7.4. Directories have other fields too: Let's Encrypt adds one with a
# random name and the URL of a forum.
ENDPOINTS = ("newNonce", "newAccount", "newOrder", "newAuthz", "revokeCert", "keyChange", "renewalInfo")

_LONGEST_URL = 2_000
# RFC 3986 without user name and fragment, strict enough that every parser finds the same host.
_URL = re.compile(
    r"https://(?P<host>\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::(?P<port>\d{1,5}))?(?:[/?][a-z0-9._~:/?\[\]@!$&'()*+,;=%-]*)?",
    re.ASCII | re.IGNORECASE,
)


class UrlRefused(Exception):
    """A URL must not be requested; the message continues a sentence about the CA."""


def origin(url: object) -> str:
    """Return host and port of a URL, as ``host:port``. Raises ``UrlRefused`` unless it is an HTTPS URL."""
    match = _URL.fullmatch(url) if isinstance(url, str) and len(url) <= _LONGEST_URL else None
    port = int(match["port"] or 443) if match is not None else 0
    if match is None or not 0 < port < 65_536 or not _is_host(match["host"]):
        raise UrlRefused(f"sends us to {one_line(str(url), 100)!r}, which is not an https:// URL")
    return f"{match['host'].lower()}:{port}"


def _is_host(text: str) -> bool:
    """Say whether what is in brackets, if it is, is an IPv6 address."""
    if not text.startswith("["):
        return True
    try:
        ipaddress.IPv6Address(text[1:-1])
    except ValueError:
        return False
    return True


def _is_loopback(origin: str) -> bool:
    host = parse_host_port(origin).host.rstrip(".")
    if (address := _address(host)) is None:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified or address.is_link_local


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a host is, in any spelling; None for a name.

    The system's resolver accepts 127.1, 2130706433, 0x7f000001 and 0177.0.0.1 as addresses too.
    """
    with contextlib.suppress(OSError):
        return ipaddress.IPv4Address(socket.inet_aton(host))
    with contextlib.suppress(ValueError):
        address = ipaddress.IPv6Address(host)
        return address.ipv4_mapped or address
    return None


def is_url(text: str) -> bool:
    """Say whether a text is an HTTPS URL that may be requested."""
    try:
        origin(text)
    except UrlRefused:
        return False
    return True


class AllowedHosts:
    """The hosts and ports to which one CA may send us."""

    def __init__(self, directory_url: str) -> None:
        """Allow the host of the directory. Raises ``UrlRefused``."""
        self._allowed = frozenset((origin(directory_url),))

    def allow(self, directory: Mapping[str, object]) -> None:
        """Allow the hosts of the directory's endpoints. Raises ``UrlRefused`` unless all are HTTPS URLs.

        Also raises it for a host on this machine, unless the directory is on it too: local services trust local
        clients.
        """
        found = {origin(directory[name]) for name in ENDPOINTS if directory.get(name) is not None}
        if not any(map(_is_loopback, self._allowed)) and (local := next(filter(_is_loopback, found), None)):
            raise UrlRefused(f"sends us to {local}, which is this machine")
        self._allowed |= found

    def require(self, *urls: object) -> None:
        """Raise ``UrlRefused`` for a URL at any other host."""
        for url in urls:
            if (found := origin(url)) not in self._allowed:
                hosts = ", ".join(sorted(self._allowed))
                raise UrlRefused(f"sends us to {found}, and its directory names only {hosts}")

    def among(self, urls: Iterable[str]) -> tuple[str, ...]:
        """Return those of ``urls`` that may be requested."""
        return tuple(url for url in urls if self._allows(url))

    def _allows(self, url: str) -> bool:
        try:
            self.require(url)
        except UrlRefused:
            return False
        return True
