"""Resolver: addresses and CAA records of a name, from the system or from one DNS server.

This module knows which source to ask; it must not know what an answer means for a certificate.
"""

import socket
from dataclasses import dataclass

import dns.exception
import dns.resolver

from ..ca import dns_lookup
from ..ca.dns_lookup import NoAnswer
from ..core.dns_server import DnsServer


@dataclass(frozen=True, slots=True)
class Caa:
    """One CAA record (RFC 8659 section 4.1)."""

    critical: bool
    tag: str
    value: str


class Resolver:
    """Asks ``server``, or the system with its hosts file if that is None. Every method blocks."""

    def __init__(self, server: DnsServer | None) -> None:
        self._server = server
        self._resolver: dns.resolver.Resolver | None = None

    def addresses(self, name: str) -> list[str]:
        """Return the IPv4 addresses, then the IPv6 addresses; empty if there are none. Raises ``NoAnswer``."""
        if self._server is None:
            return _system_addresses(name)
        resolver = self._connected()
        return [record.to_text() for type in ("A", "AAAA") for record in dns_lookup.records(resolver, name, type)]

    def caa(self, name: str) -> list[Caa]:
        """Return the CAA records of exactly this name, following aliases. Raises ``NoAnswer``."""
        records = dns_lookup.records(self._connected(), name, "CAA")
        return [Caa(bool(r.flags & 128), r.tag.decode("ascii", "replace").lower(), _text(r.value)) for r in records]

    def _connected(self) -> dns.resolver.Resolver:
        if self._resolver is None:
            try:
                self._resolver = dns_lookup.resolver_at([self._server] if self._server is not None else [])
            except dns.exception.DNSException:
                raise NoAnswer("this machine has no DNS resolver") from None
        return self._resolver


def _system_addresses(name: str) -> list[str]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            return []
        raise NoAnswer(f"no DNS server answers ({error.strerror})") from None
    addresses = dict.fromkeys(str(item[4][0]) for item in found)
    return sorted(addresses, key=lambda address: ":" in address)


def _text(value: bytes | str) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
