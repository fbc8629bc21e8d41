"""A nameserver: it answers for our zones, and refuses everything else.

This module knows DNS replies and mitmproxy's DNS flows; ``dns_query`` reads what is asked, ``zones`` decides what is
answered, and ``dns_ports`` receives and sends. A question of a stranger costs no task, flow or log line here.
"""

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from mitmproxy import dns as mitm_dns
from mitmproxy.net.dns import types as mitm_types
from mitmproxy.proxy import mode_specs

from ...core.instrumentation import Instrumentation
from ...lifecycle.manager import Manager
from ..flow_marks import mark
from . import wire
from .txt_records import TxtRecordReader
from .wire import Query
from .zones import NO_TEXTS, Outcome, Reply, Spot, Texts, Zones

# What another node publishes next stands beside what is answered now: nothing of it may be cached, least of all that
# there is nothing. It costs a question for each look of a CA.
_TTL = 0
_NAMESERVER_TTL = 3_600
_TCP_PAYLOAD = 65_535
_RCODES = {outcome: dns.rcode.Rcode(outcome.value) for outcome in Outcome}
_TRANSFERS = frozenset({dns.rdatatype.AXFR, dns.rdatatype.IXFR})
_TYPES: Mapping[int, str] = {
    dns.rdatatype.TXT: "TXT",
    dns.rdatatype.SOA: "SOA",
    dns.rdatatype.NS: "NS",
    dns.rdatatype.ANY: "ANY",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply, as bytes.

    ``known`` says whether it has values of challenges; None where the question is not to be listed: it was for no zone
    of ours, or challenges are hidden.
    """

    reply: bytes
    known: bool | None = None


class Nameserver:
    """Answers for one manager, whichever node ordered. Use it from the event loop."""

    def __init__(self, manager: Manager, measures: Instrumentation) -> None:
        self._zones = Zones(manager.config)
        self._standing = TxtRecordReader(manager)
        self._measures = measures
        self._hide = manager.config.hide_challenges

    async def answer(self, message: bytes, *, udp: bool) -> Answer | None:
        """Return the reply to a message; None where it is none that may be replied to, as a reply is not.

        Waits for storage only where the answer depends on what stands there. A refusal is never longer than its query.
        """
        query = wire.read(message)
        if isinstance(query, Query):
            return await self._respond(query, udp=udp)
        return Answer(query) if query is not None else None

    async def respond(self, flow: mitm_dns.DNSFlow) -> None:
        """Give a flow that mitmproxy has read itself a response, where it is a question for what is ours; and mark it.

        In plain ``dns`` mode it always gets one: such a flow began before our own ports did.
        """
        plain = is_plain(flow.client_conn.proxy_mode)
        if not plain or flow.response is None:  # else it was answered on our own ports, and is only listed
            await self._give_response(flow, plain=plain)
        _mark(flow, hide=self._hide)

    async def _give_response(self, flow: mitm_dns.DNSFlow, *, plain: bool) -> None:
        udp = flow.client_conn.transport_protocol == "udp"
        try:
            message = flow.request.packed
        except ValueError:  # a name that mitmproxy reads and cannot write
            message = b""
        answer = await (self.answer(message, udp=udp) if plain else self._answer_for_ours(message, udp=udp))
        if answer is not None:
            flow.response = mitm_dns.DNSMessage.unpack(answer.reply, time.time())
        elif plain:
            flow.response = flow.request.fail(dns.rcode.REFUSED)

    async def _answer_for_ours(self, message: bytes, *, udp: bool) -> Answer | None:
        """Return the reply to a question for our zone, or for what stands elsewhere; None leaves it to the upstream.

        That is another nameserver, which may have an alias where nothing stands.
        """
        query = wire.read(message)
        spot = self._locate(query) if isinstance(query, Query) and not query.signed else None
        if spot is None:
            return None
        if spot.apex != self._zones.config.dns_zone:
            standing = await self._texts(spot, "TXT")
            if standing is None or not standing.at(spot.name):
                return None
        return await self.answer(message, udp=udp)

    async def _respond(self, query: Query, *, udp: bool) -> Answer:
        if query.edns:
            return Answer(query.reply(dns.rcode.BADVERS))
        if query.signed:  # we have no keys (RFC 8945 section 5.2)
            return Answer(query.reply(dns.rcode.NOTAUTH))
        spot, type = self._locate(query), _TYPES.get(query.type, "")
        if spot is None:
            return Answer(query.reply(dns.rcode.REFUSED))
        texts = await self._texts(spot, type)
        if texts is None:
            return Answer(query.reply(dns.rcode.SERVFAIL))
        reply = self._zones.reply(spot, type, texts)
        known = bool(reply.texts)
        return Answer(_write(reply, query, udp=udp), None if known and self._hide else known)

    def _locate(self, query: Query) -> Spot | None:
        if query.rdclass != dns.rdataclass.IN or query.type in _TRANSFERS:
            return None
        return self._zones.locate(query.name)

    async def _texts(self, spot: Spot, type: str) -> Texts | None:
        """Return what stands, as far as a question for ``type`` needs it; None where the answer cannot be known."""
        if not spot.needs_texts(type):
            return NO_TEXTS
        texts = await self._standing.texts()
        if texts is None:  # what this node has ordered itself can be answered, and that there is nothing cannot
            texts = self._standing.here()
            return texts if texts.at(spot.name) else None
        self._measures.challenge(known=bool(texts.at(spot.name)))
        return texts


def is_plain(mode: mode_specs.ProxyMode) -> bool:
    """Say whether a client came to the ``dns`` mode itself, where we are the only server."""
    return isinstance(mode, mode_specs.DnsMode)


def _mark(flow: mitm_dns.DNSFlow, *, hide: bool) -> None:
    """Mark a flow that asked for what a CA asks for, where it was ours to answer."""
    response = flow.response
    if response is None or not response.authoritative_answer:
        return
    if any(answer.type == mitm_types.TXT for answer in response.answers):
        mark(flow, "ACME challenge in DNS", hide=hide)
    elif flow.request.questions[0].type == mitm_types.TXT:
        mark(flow, "ACME challenge in DNS that nobody waits for")


def _write(reply: Reply, query: Query, *, udp: bool) -> bytes:
    """Return the bytes; what is too long for UDP says so and is empty (RFC 2181 section 9)."""
    rcode = _RCODES[reply.outcome]
    name = dns.name.Name((*query.labels, b""))
    file, compress = io.BytesIO(), {name: wire.SHORTEST}
    file.write(bytes(wire.SHORTEST) + query.question)
    answers = sum(rrset.to_wire(file, compress) for rrset in _answers(reply, name))
    authorities = _soa_of(reply.apex).to_wire(file, compress) if reply.is_negative else 0
    encoded = file.getvalue()[wire.SHORTEST + len(query.question) :]
    whole = query.reply(rcode, wire.AUTHORITATIVE, answers=answers, authorities=authorities, records=encoded)
    if len(whole) > (query.payload if udp else _TCP_PAYLOAD):
        return query.reply(rcode, wire.AUTHORITATIVE | wire.TRUNCATED)
    return whole


def _answers(reply: Reply, name: dns.name.Name) -> list[dns.rrset.RRset]:
    rrsets = []
    if reply.texts:
        quoted = [f'"{text}"' for text in reply.texts]
        rrsets.append(dns.rrset.from_text(name, _TTL, "IN", "TXT", *quoted))
    if reply.nameservers:
        servers = [f"{host}." for host in reply.nameservers]
        rrsets.append(dns.rrset.from_text(name, _NAMESERVER_TTL, "IN", "NS", *servers))
    if reply.soa:
        rrsets.append(_soa(name, reply.apex))
    return rrsets


@lru_cache(256)
def _soa_of(apex: str) -> dns.rrset.RRset:
    """Return it for what is not there: it takes a third of such an answer's time to make."""
    return _soa(dns.name.from_text(apex), apex)


def _soa(owner: dns.name.Name, apex: str) -> dns.rrset.RRset:
    """Return the SOA of a zone that nobody transfers: its last number is how long its absences may be believed."""
    return dns.rrset.from_text(owner, _TTL, "IN", "SOA", f"{apex}. hostmaster.{apex}. 1 3600 600 86400 {_TTL}")
