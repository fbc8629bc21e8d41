"""A nameserver that answers for our zones, and refuses everything else.

This module knows DNS replies and mitmproxy's DNS flows; ``wire`` reads queries, ``zones`` decides what is answered, and
``ports`` receives and sends. A stranger's query costs no task, flow or log line here.
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
from .zones import NO_TXT_RECORDS, OwnerName, Reply, ResponseCode, TxtRecords, Zones

# Another node may publish a further record at any moment, so resolvers must not cache an answer, least of all a
# negative one. A CA therefore sends a query for each validation.
_TTL = 0
_NAMESERVER_TTL = 3_600
_TCP_PAYLOAD = 65_535
_RCODES = {code: dns.rcode.Rcode(code.value) for code in ResponseCode}
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

    ``known`` says whether it has values of challenges. None means that the query is not listed in mitmproxy: it was for
    no zone of ours, or challenges are hidden.
    """

    reply: bytes
    known: bool | None = None


class Nameserver:
    """Answers for the orders of all nodes. Use it from the event loop."""

    def __init__(self, manager: Manager, measures: Instrumentation) -> None:
        self._zones = Zones(manager.config)
        self._txt_records = TxtRecordReader(manager)
        self._measures = measures
        self._hide = manager.config.hide_challenges

    async def answer(self, message: bytes, *, udp: bool) -> Answer | None:
        """Return the reply to a message; None if it must not be replied to, such as a reply.

        Waits for storage only if the answer depends on it. A refusal is never longer than its query.
        """
        query = wire.read(message)
        if isinstance(query, Query):
            return await self._respond(query, udp=udp)
        return Answer(query) if query is not None else None

    async def respond(self, flow: mitm_dns.DNSFlow) -> None:
        """Give a flow that mitmproxy received itself a response if it is a query for our zones, and mark it.

        In plain ``dns`` mode it always gets one: such a flow began before we took over the port.
        """
        plain = is_plain(flow.client_conn.proxy_mode)
        if not plain or flow.response is None:  # else it was answered on our own ports, and is only listed
            await self._give_response(flow, plain=plain)
        _mark(flow, hide=self._hide)

    async def _give_response(self, flow: mitm_dns.DNSFlow, *, plain: bool) -> None:
        udp = flow.client_conn.transport_protocol == "udp"
        try:
            message = flow.request.packed
        except ValueError:  # a name that mitmproxy can read and cannot write
            message = b""
        answer = await (self.answer(message, udp=udp) if plain else self._answer_for_ours(message, udp=udp))
        if answer is not None:
            flow.response = mitm_dns.DNSMessage.unpack(answer.reply, time.time())
        elif plain:
            flow.response = flow.request.fail(dns.rcode.REFUSED)

    async def _answer_for_ours(self, message: bytes, *, udp: bool) -> Answer | None:
        """Return the reply to a query for ``acme_dns_zone``, or for a published record; None leaves it to the upstream.

        The upstream is another nameserver, which may have an alias at a name without a record of ours.
        """
        query = wire.read(message)
        owner = self._locate(query) if isinstance(query, Query) and not query.signed else None
        if owner is None:
            return None
        if owner.apex != self._zones.config.dns_zone:
            records = await self._records(owner, "TXT")
            if records is None or not records.values(owner.name):
                return None
        return await self.answer(message, udp=udp)

    async def _respond(self, query: Query, *, udp: bool) -> Answer:
        if query.edns:
            return Answer(query.reply(dns.rcode.BADVERS))
        if query.signed:  # we have no keys (RFC 8945 section 5.2)
            return Answer(query.reply(dns.rcode.NOTAUTH))
        owner, type = self._locate(query), _TYPES.get(query.type, "")
        if owner is None:
            return Answer(query.reply(dns.rcode.REFUSED))
        records = await self._records(owner, type)
        if records is None:
            return Answer(query.reply(dns.rcode.SERVFAIL))
        reply = self._zones.reply(owner, type, records)
        known = bool(reply.values)
        return Answer(_write(reply, query, udp=udp), None if known and self._hide else known)

    def _locate(self, query: Query) -> OwnerName | None:
        if query.rdclass != dns.rdataclass.IN or query.type in _TRANSFERS:
            return None
        return self._zones.locate(query.name)

    async def _records(self, owner: OwnerName, type: str) -> TxtRecords | None:
        """Return the records that a query for ``type`` needs; None if the answer cannot be known."""
        if not owner.needs_records(type):
            return NO_TXT_RECORDS
        records = await self._txt_records.all()
        if records is None:  # this node knows the records of its own orders, but not whether others have more
            records = self._txt_records.local()
            return records if records.values(owner.name) else None
        self._measures.challenge(known=bool(records.values(owner.name)))
        return records


def is_plain(mode: mode_specs.ProxyMode) -> bool:
    """Say whether a mode is plain ``dns``, where we are the only nameserver."""
    return isinstance(mode, mode_specs.DnsMode)


def _mark(flow: mitm_dns.DNSFlow, *, hide: bool) -> None:
    """Mark a flow with a TXT query that we answered."""
    response = flow.response
    if response is None or not response.authoritative_answer:
        return
    if any(answer.type == mitm_types.TXT for answer in response.answers):
        mark(flow, "ACME challenge in DNS", hide=hide)
    elif flow.request.questions[0].type == mitm_types.TXT:
        mark(flow, "ACME challenge in DNS without a record")


def _write(reply: Reply, query: Query, *, udp: bool) -> bytes:
    """Return the bytes; a reply too long for UDP is truncated and empty (RFC 2181 section 9)."""
    rcode = _RCODES[reply.code]
    name = dns.name.Name((*query.labels, b""))
    file, compress = io.BytesIO(), {name: wire.MIN_SIZE}
    file.write(bytes(wire.MIN_SIZE) + query.question)
    answers = sum(rrset.to_wire(file, compress) for rrset in _answers(reply, name))
    authorities = _soa_of(reply.apex).to_wire(file, compress) if reply.is_negative else 0
    encoded = file.getvalue()[wire.MIN_SIZE + len(query.question) :]
    whole = query.reply(rcode, wire.AUTHORITATIVE, answers=answers, authorities=authorities, records=encoded)
    if len(whole) > (query.payload if udp else _TCP_PAYLOAD):
        return query.reply(rcode, wire.AUTHORITATIVE | wire.TRUNCATED)
    return whole


def _answers(reply: Reply, name: dns.name.Name) -> list[dns.rrset.RRset]:
    rrsets = []
    if reply.values:
        quoted = [f'"{value}"' for value in reply.values]
        rrsets.append(dns.rrset.from_text(name, _TTL, "IN", "TXT", *quoted))
    if reply.nameservers:
        servers = [f"{host}." for host in reply.nameservers]
        rrsets.append(dns.rrset.from_text(name, _NAMESERVER_TTL, "IN", "NS", *servers))
    if reply.soa:
        rrsets.append(_soa(name, reply.apex))
    return rrsets


@lru_cache(256)
def _soa_of(apex: str) -> dns.rrset.RRset:
    """Return the SOA of a negative answer: making it takes a third of such an answer's time."""
    return _soa(dns.name.from_text(apex), apex)


def _soa(owner: dns.name.Name, apex: str) -> dns.rrset.RRset:
    """Return the SOA of a zone without transfers; its last number is the TTL of negative answers."""
    return dns.rrset.from_text(owner, _TTL, "IN", "SOA", f"{apex}. hostmaster.{apex}. 1 3600 600 86400 {_TTL}")
