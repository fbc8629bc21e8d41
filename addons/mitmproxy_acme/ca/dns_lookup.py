"""DNS lookups: what others see of a name, through a resolver or at a nameserver itself. All functions block.

This module knows queries and answers; it must not know what a record proves, or publish anything.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.query
import dns.rdatatype
import dns.resolver

from ..core.dns_server import DnsServer

_TIMEOUT = 5.0  # seconds, for all resolvers together
_NAMESERVER_TIMEOUT = 2.0  # seconds, for each of several nameservers
_MOST_NAMESERVERS = 6

type Send = Callable[..., dns.message.Message]


class NoAnswer(Exception):
    """DNS gives no answer: SERVFAIL, or silence. A name without records is an answer. The message says which."""


def resolver_at(servers: Sequence[DnsServer]) -> dns.resolver.Resolver:
    """Return a resolver that asks ``servers``, or the system's resolver if there are none.

    Raises ``dns.exception.DNSException`` if the system has none.
    """
    resolver = dns.resolver.Resolver(configure=not servers)
    if servers:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(server.address, server.port) for server in servers]
    resolver.lifetime = _TIMEOUT
    return resolver


def resolve(resolver: dns.resolver.Resolver, name: str, type: str) -> dns.resolver.Answer | None:
    """Return the answer for a name, following aliases; None if it has no such record. Raises ``NoAnswer``."""
    try:
        return resolver.resolve(dns.name.from_text(name), type, search=False)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return None
    except dns.resolver.NoNameservers:
        raise NoAnswer("the DNS server fails (SERVFAIL)") from None
    except dns.exception.Timeout:
        raise NoAnswer("no DNS server answers in time") from None
    except dns.exception.DNSException as error:
        raise NoAnswer(f"DNS gives no answer ({error.__class__.__name__})") from None


def records(resolver: dns.resolver.Resolver, name: str, type: str) -> list[Any]:
    """Return the records of a name, following aliases; dnspython has a class for each type. Raises ``NoAnswer``."""
    return list(resolve(resolver, name, type) or ())


def txt_values(resolver: dns.resolver.Resolver, name: str) -> list[str]:
    """Return the TXT values of a name. Raises ``NoAnswer``."""
    return [_text(record) for record in records(resolver, name, "TXT")]


def canonical_name(resolver: dns.resolver.Resolver, name: str) -> str:
    """Return the name at the end of the aliases; the name itself if it is no alias, or if the lookup fails."""
    try:
        found: dns.name.Name = resolver.canonical_name(f"{name}.")
    except dns.exception.DNSException:
        return name
    return found.to_text(omit_final_dot=True).lower()


def nameservers(resolver: dns.resolver.Resolver, name: str, *, port: int = 53) -> list[str]:
    """Return the addresses of those nameservers of the name's zone that answer from here.

    There may be none: many networks only let DNS queries reach their own resolver. ``port`` is for tests.
    """
    addresses = _nameserver_addresses(resolver, name)[:_MOST_NAMESERVERS]
    return [address for address in addresses if query(address, name, "TXT", port=port) is not None]


def is_visible(
    resolver: dns.resolver.Resolver, servers: Sequence[str], name: str, value: str, *, port: int = 53
) -> bool:
    """Say whether each of the nameservers has the TXT value; without nameservers, whether the resolver has it."""
    if servers:
        return all(value in _values_at(server, name, port) for server in servers)
    with contextlib.suppress(NoAnswer):
        return value in txt_values(resolver, name)
    return False


def query(server: str, name: str, type: str, *, port: int = 53, send: Send | None = None) -> dns.message.Message | None:
    """Ask one nameserver, without recursion; None if it does not answer in time.

    ``send`` is ``dns.query.udp`` or ``dns.query.tcp``; by default UDP, then TCP if the answer is too long.
    """
    question = dns.message.make_query(f"{name}.", type)
    question.flags = dns.flags.Flag(0)
    with contextlib.suppress(dns.exception.DNSException, OSError, EOFError):
        return (send or _udp_then_tcp)(question, server, timeout=_NAMESERVER_TIMEOUT, port=port)
    return None


def _udp_then_tcp(question: dns.message.Message, server: str, *, timeout: float, port: int) -> dns.message.Message:
    response, _ = dns.query.udp_with_fallback(question, server, timeout=timeout, port=port)
    return response


def _nameserver_addresses(resolver: dns.resolver.Resolver, name: str) -> list[str]:
    try:
        zone = dns.resolver.zone_for_name(f"{name}.", resolver=resolver).to_text()
        hosts = [record.target.to_text() for record in records(resolver, zone, "NS")]
    except (dns.exception.DNSException, NoAnswer):
        return []
    addresses: list[str] = []
    for host in hosts:
        with contextlib.suppress(NoAnswer):
            addresses += [record.address for record in records(resolver, host, "A")]
    return addresses


def _values_at(server: str, name: str, port: int) -> list[str]:
    response = query(server, name, "TXT", port=port)
    answer = response.answer if response is not None else ()
    return [_text(record) for rrset in answer if rrset.rdtype == dns.rdatatype.TXT for record in rrset]


def _text(record: Any) -> str:
    return b"".join(record.strings).decode("utf-8", "replace")
