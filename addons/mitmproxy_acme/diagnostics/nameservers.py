"""Check the nameservers: whether the proxy answers for its zone in DNS, over UDP and over TCP.

This module knows port 53; ``dns_record_check`` examines the delegation that leads there.
"""

from collections.abc import Iterator

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype

from ..ca import dns_lookup
from ..ca.dns_lookup import NoAnswer
from ..config.config import Config
from . import dns_records
from .finding import Finding, fail, passed, warn
from .ports import at
from .resolver import Resolver

_TRIES = 2  # a datagram may be lost once

_TRANSPORTS: dict[str, dns_lookup.Send] = {"UDP": dns.query.udp, "TCP": dns.query.tcp}


def inspect(config: Config, resolver: Resolver, port: int, *, up: bool) -> Iterator[Finding]:
    """Ask each address of ``acme_dns_nameservers``, if challenges need it; blocks for seconds if one is silent.

    ``up`` says that a proxy is up on the configured storage.
    """
    zone = next((record.name for record in dns_records.to_publish(config) if record.type == "NS"), "")
    if not zone:
        return
    for host in config.dns_nameservers:
        try:
            addresses = resolver.addresses(host)
        except NoAnswer as error:
            yield fail(f"{host} (acme_dns_nameservers): {error}; CAs cannot find its answers")
            continue
        if not addresses:
            yield fail(f"{host} (acme_dns_nameservers) has no address in DNS; add an A record that leads here")
        for address in addresses:
            yield _check(f"{host}: {at(address, port)}", zone, address, port, up=up)


def _check(where: str, zone: str, address: str, port: int, *, up: bool) -> Finding:
    replies = {transport: _reply(send, zone, address, port) for transport, send in _TRANSPORTS.items()}
    answering = [transport for transport, reply in replies.items() if reply is not None]
    if not answering:
        advice = "check its mode dns, and open UDP and TCP in the firewall" if up else "start the proxy and check again"
        return (fail if up else warn)(f"{where} does not answer for {zone}, as the proxy should; {advice}")
    if wrong := next((reply for reply in replies.values() if reply is not None and not _is_ours(reply, zone)), None):
        return fail(
            f"{where} is answered by another program, or for another zone ({dns.rcode.to_text(wrong.rcode())} for "
            f"{zone}); give that port to mode dns of the proxy"
        )
    if len(answering) < len(_TRANSPORTS):
        (silent,) = _TRANSPORTS.keys() - set(answering)
        return fail(f"{where} answers for {zone} over {answering[0]} and not over {silent}; open both in the firewall")
    return passed(f"{where} answers for {zone} over UDP and TCP")


def _reply(send: dns_lookup.Send, zone: str, address: str, port: int) -> dns.message.Message | None:
    replies = (dns_lookup.query(address, zone, "SOA", port=port, send=send) for _ in range(_TRIES))
    return next((reply for reply in replies if reply is not None), None)


def _is_ours(reply: dns.message.Message, zone: str) -> bool:
    authoritative = bool(reply.flags & dns.flags.AA)
    return authoritative and any(rrset.rdtype == dns.rdatatype.SOA for rrset in reply.answer)
