"""Looking up what stands in DNS, as others see it; all of it blocks.

This module knows questions; it must not know what is proved, or publish anything.
"""

from collections.abc import Sequence

import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.query
import dns.rdatatype
import dns.resolver

from ..core.host_port import parse_host_port

_PATIENCE = 5.0
_PATIENCE_WITH_ONE = 2.0  # of several nameservers, one after the other
_SERVERS = 6


def resolver_at(addresses: Sequence[str]) -> dns.resolver.Resolver:
    """Return a resolver that asks ``addresses`` (``192.0.2.1``, ``192.0.2.1:5353``); the system's without any.

    Raises ``dns.exception.DNSException`` where the system has none.
    """
    resolver = dns.resolver.Resolver(configure=not addresses)
    if addresses:
        servers = [parse_host_port(address, default_port=53) for address in addresses]
        resolver.nameservers = [dns.nameserver.Do53Nameserver(server.host, server.port) for server in servers]
    resolver.lifetime = _PATIENCE
    return resolver


def texts(resolver: dns.resolver.Resolver, name: str) -> list[str] | None:
    """Return the TXT values of a name; None where it cannot be known."""
    try:
        answer = resolver.resolve(f"{name}.", "TXT", search=False)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    except dns.exception.DNSException:
        return None
    return _texts(answer.response)


def canonical_name(resolver: dns.resolver.Resolver, name: str) -> str:
    """Return what a name is an alias of in the end; itself where it is none, or where that cannot be known."""
    try:
        found: dns.name.Name = resolver.canonical_name(f"{name}.")
    except dns.exception.DNSException:
        return name
    return found.to_text(omit_final_dot=True).lower()


def nameservers(resolver: dns.resolver.Resolver, name: str, *, port: int = 53) -> list[str]:
    """Return the addresses of the nameservers of the name's zone that answer from here.

    There may be none: many networks let no questions out but to their own resolver. ``port`` is for tests.
    """
    return [server for server in _servers(resolver, name)[:_SERVERS] if _ask(server, name, port) is not None]


def is_shown(resolver: dns.resolver.Resolver, servers: Sequence[str], name: str, value: str, *, port: int = 53) -> bool:
    """Say whether each of the nameservers has the value, or the resolver where there are none."""
    if not servers:
        return value in (texts(resolver, name) or ())
    return all(value in (_ask(server, name, port) or ()) for server in servers)


def _servers(resolver: dns.resolver.Resolver, name: str) -> list[str]:
    try:
        zone = dns.resolver.zone_for_name(f"{name}.", resolver=resolver)
        hosts = [record.target for record in resolver.resolve(zone, "NS", search=False)]
    except dns.exception.DNSException:
        return []
    addresses: list[str] = []
    for host in hosts:
        try:
            addresses += [record.address for record in resolver.resolve(host, "A", search=False)]
        except dns.exception.DNSException:
            continue
    return addresses


def _ask(server: str, name: str, port: int) -> list[str] | None:
    query = dns.message.make_query(f"{name}.", "TXT")
    query.flags = 0
    try:
        response, _ = dns.query.udp_with_fallback(query, server, timeout=_PATIENCE_WITH_ONE, port=port)
    except (dns.exception.DNSException, OSError, EOFError):
        return None
    return _texts(response)


def _texts(response: dns.message.Message) -> list[str]:
    records = [record for rrset in response.answer if rrset.rdtype == dns.rdatatype.TXT for record in rrset]
    return [b"".join(record.strings).decode("utf-8", "replace") for record in records]
