"""Nameservers: whether the proxy answers for its zone in DNS, over UDP and over TCP.

This module knows the port of DNS; ``records`` looks at the delegation that leads there.
"""

import contextlib
from collections.abc import Callable, Iterator

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype

from ..config.config import Config
from . import dns_records
from .finding import Finding, fail, passed, warn
from .ports import at
from .resolver import NoAnswer, Resolver

_WITHIN, _TIMES = 2.0, 2  # a datagram that is lost once is no trouble

type _Ask = Callable[..., dns.message.Message]

_WAYS: dict[str, _Ask] = {"UDP": dns.query.udp, "TCP": dns.query.tcp}


def inspect(config: Config, resolver: Resolver, port: int, *, up: bool) -> Iterator[Finding]:
    """Ask each address of ``acme_dns_nameservers``, where challenges want it; blocks for seconds where one is silent.

    ``up`` says that a proxy is up on the storage of the options.
    """
    zone = next((record.name for record in dns_records.to_publish(config) if record.type == "NS"), "")
    if not zone:
        return
    for host in config.dns_nameservers:
        try:
            addresses = resolver.addresses(host)
        except NoAnswer as error:
            yield fail(f"{host}, of acme_dns_nameservers: {error}; no CA finds what is answered there")
            continue
        if not addresses:
            yield fail(f"{host}, of acme_dns_nameservers, has no address in DNS; add an A record that leads here")
        for address in addresses:
            yield _look(f"{host}: {at(address, port)}", zone, address, port, up=up)


def _look(where: str, zone: str, address: str, port: int, *, up: bool) -> Finding:
    replies = {way: _reply(ask, zone, address, port) for way, ask in _WAYS.items()}
    answering = [way for way, reply in replies.items() if reply is not None]
    if not answering:
        advice = "look at its mode dns, and open UDP and TCP in the firewall" if up else "start it, and check again"
        return (fail if up else warn)(f"{where} does not answer for {zone}, which the proxy is to do; {advice}")
    if wrong := next((reply for reply in replies.values() if reply is not None and not _is_ours(reply, zone)), None):
        return fail(
            f"{where} is answered by something else, or for another zone ({dns.rcode.to_text(wrong.rcode())} for "
            f"{zone}); let mode dns of the proxy have that port"
        )
    if len(answering) < len(_WAYS):
        (silent,) = _WAYS.keys() - set(answering)
        return fail(f"{where} answers for {zone} over {answering[0]} and not over {silent}; open both in the firewall")
    return passed(f"{where} answers for {zone} over UDP and TCP")


def _reply(ask: _Ask, zone: str, address: str, port: int) -> dns.message.Message | None:
    query = dns.message.make_query(f"{zone}.", "SOA")
    query.flags = dns.flags.Flag(0)
    for _ in range(_TIMES):
        with contextlib.suppress(dns.exception.DNSException, OSError, EOFError):
            return ask(query, address, timeout=_WITHIN, port=port)
    return None


def _is_ours(reply: dns.message.Message, zone: str) -> bool:
    authoritative = bool(reply.flags & dns.flags.AA)
    return authoritative and any(rrset.rdtype == dns.rdatatype.SOA for rrset in reply.answer)
