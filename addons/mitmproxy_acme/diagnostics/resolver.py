"""Resolving: names to addresses and CAA records, by the machine's way or by one DNS server.

This module knows DNS; it must not know what an answer means for a certificate.
"""

import ipaddress
import socket
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.name
import dns.rdatatype
import dns.resolver

from ..core.errors import ConfigError
from ..core.host_port import parse_host_port

_WITHIN = 5.0


@dataclass(frozen=True, slots=True)
class Server:
    """A DNS server: an IP address and a port."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Caa:
    """One CAA record (RFC 8659 section 4.1)."""

    critical: bool
    tag: str
    value: str


class NoAnswer(Exception):
    """DNS gives no answer, not even that there is none: SERVFAIL, or silence. The message says which."""


def parse_server(text: str) -> Server:
    """Read ``127.0.0.1:53`` or ``[::1]:53``; the port may be left out. Raises ``ConfigError``."""
    try:
        host, port = parse_host_port(text, default_port=53)
        address = str(ipaddress.ip_address(host))
    except ValueError:
        raise ConfigError(f"--dns: {text!r} is not a DNS server; write an IP address such as 127.0.0.1:53") from None
    return Server(address, port)


class Resolver:
    """Answers from ``server``, or as this machine has them (its hosts file too). Every method blocks."""

    def __init__(self, server: Server | None) -> None:
        self._server = server
        self._resolver: dns.resolver.Resolver | None = None

    def addresses(self, name: str) -> list[str]:
        """Return the IPv4 addresses, then the IPv6 addresses; none where there are none. Raises ``NoAnswer``."""
        if self._server is None:
            return _as_the_machine(name)
        return [record.to_text() for kind in ("A", "AAAA") for record in self._records(name, kind)]

    def caa(self, name: str) -> list[Caa]:
        """Return the CAA records of exactly this name, an alias followed. Raises ``NoAnswer``."""
        records = self._records(name, "CAA")
        return [Caa(bool(r.flags & 128), r.tag.decode("ascii", "replace").lower(), _text(r.value)) for r in records]

    def _records(self, name: str, kind: str) -> list:  # type: ignore[type-arg]  # of the class of the kind
        try:
            answer = self._queried().resolve(dns.name.from_text(name), kind, lifetime=_WITHIN, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except dns.resolver.NoNameservers:
            raise NoAnswer("the DNS server fails (SERVFAIL)") from None
        except dns.exception.Timeout:
            raise NoAnswer("no DNS server answers in time") from None
        except dns.exception.DNSException as error:
            raise NoAnswer(f"DNS gives no answer ({type(error).__name__})") from None
        return list(answer)

    def _queried(self) -> dns.resolver.Resolver:
        if self._resolver is None:
            self._resolver = dns.resolver.Resolver(configure=self._server is None)
            if self._server is not None:
                self._resolver.nameservers = [self._server.address]
                self._resolver.port = self._server.port
        return self._resolver


def _as_the_machine(name: str) -> list[str]:
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
