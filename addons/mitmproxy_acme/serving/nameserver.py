"""A nameserver on mitmproxy's ``dns`` mode: it answers for our zones, and refuses everything else.

This module knows DNS messages and mitmproxy's DNS events; ``zones`` decides what is answered. In plain ``dns`` mode
mitmproxy resolves whatever it is asked, and its own reader of messages loses the case of IDN labels, which resolvers
check, and ends with a traceback on some that are malformed (seen): so there a layer of ours reads the bytes.
"""

import struct
import time
from dataclasses import dataclass
from typing import ClassVar

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from mitmproxy import dns as mitm_dns
from mitmproxy.net.dns import types as mitm_types
from mitmproxy.proxy import commands, events, layer, mode_specs
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import dns as layers_dns

from ..manager import Manager
from ..measures import Measures
from .marks import mark
from .standing import Standing
from .zones import NO_TEXTS, Outcome, Reply, Spot, Texts, Zones

# What another node publishes next stands beside what is answered now: nothing of it may be cached, least of all that
# there is nothing. It costs a question for each look of a CA.
_TTL = 0
_NAMESERVER_TTL = 3_600
_UDP_PAYLOAD = 1_232  # https://www.dnsflagday.net/2020/: fits any path in one piece
_LEAST_PAYLOAD = 512
_TCP_PAYLOAD = 65_535
# After so many seconds a port that asked by UDP is forgotten: resolvers use another for each question, and mitmproxy
# would remember for 20 s each address that a stranger invents.
_QUIET = 1.0
_HEADER = struct.Struct("!HHHHHH")
_RESPONSE, _OPCODE, _RECURSION_DESIRED = 0x8000, 0x7800, 0x0100
_RCODES = {outcome: dns.rcode.Rcode(outcome.value) for outcome in Outcome}
_TRANSFERS = frozenset({dns.rdatatype.AXFR, dns.rdatatype.IXFR})


class Nameserver:
    """Answers for one manager, whichever node ordered. Use it from the event loop."""

    def __init__(self, manager: Manager, measures: Measures) -> None:
        self._zones = Zones(manager.config)
        self._standing = Standing(manager)
        self._measures = measures
        self._hide = manager.config.hide_challenges

    async def answer(self, message: bytes, *, udp: bool) -> bytes | None:
        """Return the reply to a message; None where it is none that may be replied to, as a reply is not."""
        query = _read(message)
        if not isinstance(query, dns.message.Message):
            return query
        response = await self._respond(query)
        return _write(response, query, udp=udp)

    async def respond(self, flow: mitm_dns.DNSFlow) -> None:
        """Give a flow that mitmproxy has read itself a response, where it is a question for what is ours; and mark it.

        In plain ``dns`` mode it always gets one: such a flow began before this configuration did.
        """
        plain = is_plain(flow.client_conn.proxy_mode)
        if not plain or flow.response is None:  # else it is of the layer below, which only shows it
            await self._give_response(flow, plain=plain)
        _mark(flow, hide=self._hide)

    async def _give_response(self, flow: mitm_dns.DNSFlow, *, plain: bool) -> None:
        udp = flow.client_conn.transport_protocol == "udp"
        try:
            message = flow.request.packed
        except ValueError:  # a name that mitmproxy reads and cannot write
            message = b""
        reply = await (self.answer(message, udp=udp) if plain else self._answer_for_ours(message, udp=udp))
        if reply is not None:
            flow.response = mitm_dns.DNSMessage.unpack(reply, time.time())
        elif plain:
            flow.response = flow.request.fail(dns.rcode.REFUSED)

    async def _answer_for_ours(self, message: bytes, *, udp: bool) -> bytes | None:
        """Return the reply to a question for our zone, or for what stands elsewhere; None leaves it to the upstream.

        That is another nameserver, which may have an alias where nothing stands.
        """
        query = _read(message)
        spot = self._locate(query) if isinstance(query, dns.message.Message) else None
        if spot is None:
            return None
        if spot.apex != self._zones.config.dns_zone:
            standing = await self._texts(spot, "TXT")
            if standing is None or not standing.at(spot.name):
                return None
        return await self.answer(message, udp=udp)

    async def _respond(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query, our_payload=_UDP_PAYLOAD)
        if query.edns > 0:
            response.set_rcode(dns.rcode.BADVERS)
            return response
        spot, type = self._locate(query), dns.rdatatype.to_text(query.question[0].rdtype)
        if spot is None:
            response.set_rcode(dns.rcode.REFUSED)
            return response
        texts = await self._texts(spot, type)
        if texts is None:
            response.set_rcode(dns.rcode.SERVFAIL)
        else:
            _fill(response, self._zones.reply(spot, type, texts))
        return response

    def _locate(self, query: dns.message.Message) -> Spot | None:
        question = query.question[0]
        if question.rdclass != dns.rdataclass.IN or question.rdtype in _TRANSFERS:
            return None
        return self._zones.locate(question.name.to_text(omit_final_dot=True).lower())

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


def _mark(flow: mitm_dns.DNSFlow, *, hide: bool) -> None:
    """Mark a flow that asked for what a CA asks for, where it was ours to answer."""
    response = flow.response
    if response is None or not response.authoritative_answer:
        return
    if any(answer.type == mitm_types.TXT for answer in response.answers):
        mark(flow, "ACME challenge in DNS", hide=hide)
    elif flow.request.questions[0].type == mitm_types.TXT:
        mark(flow, "ACME challenge in DNS that nobody waits for")


def _read(message: bytes) -> dns.message.Message | bytes | None:
    """Return a query with one question; what to reply to any other message; None where that is nothing."""
    if len(message) < _HEADER.size:
        return None
    id, flags, *_ = _HEADER.unpack_from(message)
    if flags & _RESPONSE:
        return None
    if flags & _OPCODE != dns.opcode.to_flags(dns.opcode.QUERY):
        return _bare(id, flags, dns.rcode.NOTIMP)
    try:
        query = dns.message.from_wire(message)
    except (dns.exception.DNSException, ValueError, struct.error, IndexError):
        return _bare(id, flags, dns.rcode.FORMERR)
    return query if len(query.question) == 1 else _bare(id, flags, dns.rcode.FORMERR)


def _bare(id: int, flags: int, rcode: dns.rcode.Rcode) -> bytes:
    """Return a header and nothing else: what the message asked is not to be repeated."""
    return _HEADER.pack(id, _RESPONSE | flags & (_OPCODE | _RECURSION_DESIRED) | rcode, 0, 0, 0, 0)


def _fill(response: dns.message.Message, reply: Reply) -> None:
    response.set_rcode(_RCODES[reply.outcome])
    response.flags |= dns.flags.AA
    name, apex = response.question[0].name, dns.name.from_text(reply.apex)
    if reply.texts:
        quoted = [f'"{text}"' for text in reply.texts]
        response.answer.append(dns.rrset.from_text(name, _TTL, "IN", "TXT", *quoted))
    if reply.nameservers:
        servers = [f"{host}." for host in reply.nameservers]
        response.answer.append(dns.rrset.from_text(name, _NAMESERVER_TTL, "IN", "NS", *servers))
    if reply.soa:
        response.answer.append(_soa(name, reply.apex))
    if reply.is_negative:
        response.authority.append(_soa(apex, reply.apex))


def _soa(owner: dns.name.Name, apex: str) -> dns.rrset.RRset:
    """Return the SOA of a zone that nobody transfers: its last number is how long its absences may be believed."""
    return dns.rrset.from_text(owner, _TTL, "IN", "SOA", f"{apex}. hostmaster.{apex}. 1 3600 600 86400 {_TTL}")


def _write(response: dns.message.Message, query: dns.message.Message, *, udp: bool) -> bytes:
    """Return the bytes; what is too long for UDP says so and is empty (RFC 2181 section 9)."""
    size = max(_LEAST_PAYLOAD, min(query.payload, _UDP_PAYLOAD)) if udp else _TCP_PAYLOAD
    try:
        return response.to_wire(max_size=size)
    except dns.exception.TooBig:
        response.answer.clear()
        response.authority.clear()
        response.flags |= dns.flags.TC
        return response.to_wire(max_size=size)


@dataclass
class Exchange:
    """A message of a client, and the reply to it once there is one."""

    message: bytes
    udp: bool
    reply: bytes | None = None


@dataclass
class AcmeDnsMessageHook(commands.StartHook):  # type: ignore[no-untyped-call]  # mitmproxy's own way to make a hook
    """A message has come to a port of the ``dns`` mode; the addon sets its reply."""

    name: ClassVar[str] = "acme_dns_message"
    exchange: Exchange


class NameserverLayer(layer.Layer):
    """One client of the ``dns`` mode. It never asks another server."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._udp = context.client.transport_protocol == "udp"
        self._received = bytearray()
        self._heard = False  # since the last look at whether the client is done

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start) and self._udp:
            yield commands.RequestWakeup(_QUIET)
        elif isinstance(event, events.Wakeup):
            yield commands.RequestWakeup(_QUIET) if self._heard else commands.CloseConnection(self.context.client)
            self._heard = False
        elif isinstance(event, events.DataReceived):
            self._heard = True
            for message in [event.data] if self._udp else self._messages(event.data):
                yield from self._exchange(Exchange(message, self._udp))

    def _messages(self, data: bytes) -> list[bytes]:
        """Return the messages that are whole by now (RFC 1035 section 4.2.2)."""
        self._received += data
        messages = []
        while len(self._received) >= 2:
            end = 2 + int.from_bytes(self._received[:2])
            if len(self._received) < end:
                break
            messages.append(bytes(self._received[2:end]))
            del self._received[:end]
        return messages

    def _exchange(self, exchange: Exchange) -> layer.CommandGenerator[None]:
        yield AcmeDnsMessageHook(exchange)
        if exchange.reply is not None:
            yield from self._show(exchange.message, exchange.reply)
            prefix = b"" if self._udp else len(exchange.reply).to_bytes(2)
            yield commands.SendData(self.context.client, prefix + exchange.reply)

    def _show(self, message: bytes, reply: bytes) -> layer.CommandGenerator[None]:
        """Have mitmproxy list the exchange, where it can read it; what is sent stays as it is."""
        flow = mitm_dns.DNSFlow(self.context.client, self.context.server, live=True)
        try:
            flow.request, flow.response = (mitm_dns.DNSMessage.unpack(data, time.time()) for data in (message, reply))
        except (struct.error, ValueError, RecursionError):
            return
        if not flow.request.questions:  # mitmproxy's dumper takes it for granted that there is one (seen: IndexError)
            return
        yield layers_dns.DnsRequestHook(flow)
        yield layers_dns.DnsResponseHook(flow)
        flow.live = False


def is_plain(mode: mode_specs.ProxyMode) -> bool:
    """Say whether a client came to the ``dns`` mode itself, where we are the only server."""
    return isinstance(mode, mode_specs.DnsMode)
