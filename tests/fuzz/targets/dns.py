"""DNS messages: to our nameserver, and through the guard before mitmproxy's own parser."""

import asyncio
import struct
from contextlib import suppress
from functools import cache
from typing import Any

import dns.exception
import dns.flags
import dns.message
from mitmproxy import dns as mitm_dns

from acme_storage.memory import Memory
from mitmproxy_acme.core.instrumentation import Instrumentation
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.mitm.dns import message_guard, wire
from mitmproxy_acme.mitm.dns.nameserver import Nameserver
from mitmproxy_acme.mitm.punycode_errors import PunycodeErrors
from tests.mitmproxy_acme.fakes import Clock, manager_on

from ..mutators import text_mutator
from ..target import Target

ZONE = "acme.example.test"
_PLACE = "_acme-challenge.a.example.test"
_OPTIONS: dict[str, Any] = {
    "acme_challenges": ("dns-01",),
    "acme_dns_zone": ZONE,
    "acme_dns_nameservers": ("ns.example.test",),
    "acme_domains": ("**.example.test",),
}
_QUERIES = (
    (f"a.example.test.{ZONE}", "TXT"), (_PLACE, "TXT"), (_PLACE, "ANY"), (ZONE, "SOA"), (ZONE, "NS"), ("other.test",
    "A"),
    (f"{'0' * 32}.{ZONE}", "TXT"), (f"x.{_PLACE}", "TXT"), (f"_ujmmovf2vn55tgye.a.example.test.{ZONE}", "TXT"),
)  # fmt: skip


class _Server:
    """A nameserver on a storage in memory, and the loop that it runs on."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.storage, clock = Memory(), Clock()
        self.manager = manager_on(self.storage, clock, **_OPTIONS)
        self.nameserver = Nameserver(self.manager, Instrumentation())
        self.manager.store.put_proof(Proof("dns-01", _PLACE, "v" * 43))

    def answer(self, message: bytes, *, udp: bool) -> bytes | None:
        self.nameserver._txt_records._reads._paused_until = 0.0  # it would wait between two reads
        answer = self.loop.run_until_complete(self.nameserver.answer(message, udp=udp))
        return answer.reply if answer is not None else None


@cache
def _server() -> _Server:
    return _Server()


def dns_message(data: bytes) -> None:
    """Every reply is a DNS message to this query, never an amplification where it says nothing."""
    query = wire.read(data)
    for udp in (True, False):
        reply = _server().answer(data, udp=udp)
        if reply is None:
            continue
        assert reply[:2] == data[:2]
        assert reply[2] & 0x80
        assert len(reply) <= (wire._UDP_PAYLOAD if udp else 65_535)
        parsed = dns.message.from_wire(reply)
        if not (parsed.answer or parsed.authority):
            assert len(reply) <= max(len(data), wire.MIN_SIZE)
        if isinstance(query, wire.Query):
            assert reply[12 : 12 + len(query.question)] == query.question or parsed.rcode() != 0
    if isinstance(query, wire.Query):
        wire.truncated(data)
        message_guard._is_readable(data)


def dns_records(data: bytes) -> None:
    """What a writer of the storage lists as a TXT record: it is answered as it is, or left out."""
    server = _server()
    key = f"challenges/txt/{data.decode('ascii', 'replace')}"
    try:
        server.storage.put(key, b"x")
    except ValueError:  # no storage has such a key
        return
    try:
        name = key.removeprefix("challenges/txt/").partition("~")[0]
        for asked in {name, _PLACE}:
            message = _query(asked, "TXT")
            if message is not None:
                reply = server.answer(message, udp=False)
                assert reply is not None
                with suppress(struct.error, ValueError):  # a name that mitmproxy cannot read; then it is not listed
                    mitm_dns.DNSMessage.unpack(reply)
                assert asked != _PLACE or b"v" * 43 in reply
    finally:
        server.storage.delete(key)


def _query(name: str, type: str, **how: Any) -> bytes | None:
    try:
        return dns.message.make_query(name, type, **how).to_wire()
    except (dns.exception.DNSException, ValueError):
        return None


def _messages() -> list[bytes]:
    how: list[dict[str, Any]] = [{}, {"use_edns": 0, "payload": 4_096}, {"use_edns": 1}]
    return [message for asked in _QUERIES for more in how if (message := _query(*asked, **more)) is not None]


def _listed() -> list[bytes]:
    return [f"{_PLACE}~{'v' * 43}".encode(), b"_acme-challenge.b.example.test~" + b"w" * 300, b"x", _PLACE.encode()]


TARGETS = (
    Target(
        "dns_message",
        dns_message,
        _messages,
        longest=1_200,
        words=[b"\x16xn--mn999999999999999n", b"xn--"],
        prepare=PunycodeErrors().install,
    ),
    Target("dns_records", dns_records, _listed, [text_mutator(["~", _PLACE, "v" * 256])], longest=500),
)
