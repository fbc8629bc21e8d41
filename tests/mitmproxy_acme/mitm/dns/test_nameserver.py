"""DNS messages: the reply to each kind of query, and to anything else."""

import asyncio
from collections.abc import Iterator
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsigkeyring
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mitmproxy import connection
from mitmproxy import dns as mitm_dns
from mitmproxy.proxy import mode_specs

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.instrumentation import Instrumentation
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.mitm.dns.nameserver import Answer, Nameserver
from tests.costs import loop_seconds
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.mitm.dns.test_wire import HOSTILE

ZONE = "acme.example.test"
NAME = f"a.example.test.{ZONE}"
PLACE = "_acme-challenge.a.example.test"
OPTIONS = {"acme_challenges": ("dns-01",), "acme_dns_zone": ZONE, "acme_dns_nameservers": ("ns.example.test",)}


@pytest.fixture
async def manager(make_manager: MakeManager) -> Manager:
    return make_manager(**OPTIONS)


@pytest.fixture
def server(manager: Manager) -> Nameserver:
    return Nameserver(manager, Instrumentation())


def publish(manager: Manager, *values: str) -> None:
    for value in values:
        manager.store.put_proof(Proof("dns-01", PLACE, value))


async def reply_to(server: Nameserver, message: bytes, *, udp: bool = True) -> bytes:
    answer = await server.answer(message, udp=udp)
    assert answer is not None
    return answer.reply


async def ask(server: Nameserver, name: str, type: str = "TXT", *, udp: bool = True, **how: Any) -> dns.message.Message:
    query = dns.message.make_query(name, type, **how)
    response = dns.message.from_wire(await reply_to(server, query.to_wire(), udp=udp))
    assert query.is_response(response)
    assert response.question == query.question
    assert not response.flags & dns.flags.RA
    return response


def soa(response: dns.message.Message) -> str:
    """Return the owner of the only record in the authority section, which must be a SOA that prevents caching."""
    (rrset,) = response.authority
    assert rrset.rdtype == dns.rdatatype.SOA
    assert (rrset.ttl, rrset[0].minimum) == (0, 0)
    return rrset.name.to_text()


async def test_txt_records_are_authoritative_and_not_cached(server: Nameserver, manager: Manager) -> None:
    """All values of the name, in the case of the query."""
    publish(manager, "1", "2")
    response = await ask(server, NAME.title())
    (rrset,) = response.answer
    assert rrset.name.to_text() == f"{NAME.title()}."
    assert sorted(rdata.to_text() for rdata in rrset) == ['"1"', '"2"']
    assert rrset.ttl == 0
    assert response.flags & dns.flags.AA
    assert response.edns == -1


async def test_case_of_idn_labels_is_kept(make_manager: MakeManager) -> None:
    """A resolver that sends mixed case accepts only the same case, and mitmproxy's own parser loses it."""
    manager = make_manager(**OPTIONS)
    server = Nameserver(manager, Instrumentation())
    manager.store.put_proof(Proof("dns-01", "_acme-challenge.xn--mnchen-3ya.example.test", "1"))
    query = dns.message.make_query(f"xN--MncHen-3yA.example.test.{ZONE}", "TXT").to_wire()
    reply = await reply_to(server, query)
    assert b"xN--MncHen-3yA" in reply
    assert dns.message.from_wire(reply).answer


@pytest.mark.parametrize(
    ("name", "type", "rcode", "owner"),
    [
        (NAME, "TXT", "NOERROR", ZONE),
        (NAME, "A", "NOERROR", ZONE),
        (f"test.{ZONE}", "TXT", "NOERROR", ZONE),
        (ZONE, "AAAA", "NOERROR", ZONE),
        (f"foo.{ZONE}", "TXT", "NXDOMAIN", ZONE),
        (PLACE, "TXT", "NOERROR", PLACE),
        (PLACE, "CAA", "NOERROR", PLACE),
        (f"x.{PLACE}", "TXT", "NXDOMAIN", PLACE),
    ],
)
async def test_negative_answer_has_the_soa(server: Nameserver, name: str, type: str, rcode: str, owner: str) -> None:
    """RFC 2308 section 2: NODATA or NXDOMAIN, with the SOA of the zone."""
    response = await ask(server, name, type)
    assert dns.rcode.to_text(response.rcode()) == rcode
    assert response.flags & dns.flags.AA
    assert response.answer == []
    assert soa(response) == f"{owner}."


async def test_apex(server: Nameserver) -> None:
    """SOA and NS are answers of the zone."""
    for type, expected in (("SOA", f"{ZONE}. hostmaster.{ZONE}."), ("NS", "ns.example.test.")):
        (rrset,) = (await ask(server, ZONE, type)).answer
        assert rrset[0].to_text().startswith(expected)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("www.elsewhere.test", {"type": "A"}),
        (".", {"type": "NS"}),
        ("_acme-challenge.elsewhere.test", {}),
        (NAME, {"rdclass": "CH"}),
        ("version.bind", {"rdclass": "CH"}),
        (ZONE, {"type": "AXFR"}),
        (ZONE, {"type": "IXFR"}),
        (r"a\.b.test", {}),
        (r"\000\255.test", {}),
    ],
)
async def test_everything_else_is_refused(server: Nameserver, name: str, how: dict[str, Any]) -> None:
    """With no records, and without the authoritative flag: never an open resolver."""
    query = dns.message.make_query(name, how.get("type", "TXT"), rdclass=how.get("rdclass", "IN"))
    reply = await reply_to(server, query.to_wire())
    assert len(reply) <= len(query.to_wire())
    response = dns.message.from_wire(reply)
    assert response.rcode() == dns.rcode.REFUSED
    assert not response.flags & (dns.flags.AA | dns.flags.RA)
    assert (response.answer, response.authority) == ([], [])


async def test_edns(server: Nameserver) -> None:
    """The reply has an OPT record with our payload; an unknown version gets BADVERS (RFC 6891)."""
    response = await ask(
        server, NAME, use_edns=0, payload=4096, options=[dns.edns.GenericOption(dns.edns.OptionType.make(65_001), b"x")]
    )
    assert (response.edns, response.payload, response.options) == (0, 1232, ())
    response = await ask(server, NAME, use_edns=1)
    assert (response.rcode(), response.edns) == (dns.rcode.BADVERS, 0)


async def test_reply_too_long_for_udp_is_truncated(server: Nameserver, manager: Manager) -> None:
    """By the client's payload, and one packet at most; TCP has the whole reply."""
    publish(manager, *(f"{number:043}" for number in range(12)))
    response = await ask(server, NAME)
    assert response.flags & dns.flags.TC
    assert response.answer == []
    assert len((await ask(server, NAME, use_edns=0, payload=1232)).answer[0]) == 12
    assert len((await ask(server, NAME, udp=False)).answer[0]) == 12
    publish(manager, *(f"{number:043}" for number in range(300)))
    assert (await ask(server, NAME, use_edns=0, payload=65_535)).flags & dns.flags.TC
    assert len((await ask(server, NAME, udp=False)).answer[0]) == 256


HEADER = bytes.fromhex("abcd 0100 0001 0000 0000 0000")
QUESTION = bytes.fromhex("0161 00 0010 0001")


@pytest.mark.parametrize(
    ("message", "reply"),
    [
        (b"", None),
        (HEADER[:11], None),
        (bytes.fromhex("abcd 8180 0001 0000 0000 0000") + QUESTION, None),  # a reply
        (HEADER, "abcd 8101"),  # no question where one is announced
        (bytes.fromhex("abcd 0100 0000 0000 0000 0000"), "abcd 8101"),  # none at all
        (bytes.fromhex("abcd 0100 0002 0000 0000 0000") + 2 * QUESTION, "abcd 8101"),
        (HEADER + QUESTION + b"x", "abcd 8101"),
        (HEADER + bytes.fromhex("c00c 0010 0001"), "abcd 8101"),  # a name that points to itself
        (bytes.fromhex("abcd 2900 0001 0000 0000 0000") + QUESTION, "abcd a904"),  # UPDATE
        (bytes.fromhex("abcd 2000 0001 0000 0000 0000") + QUESTION, "abcd a004"),  # NOTIFY
        (bytes.fromhex("abcd 1000"), None),
    ],
)
async def test_messages_that_are_not_queries(server: Nameserver, message: bytes, reply: str | None) -> None:
    """FORMERR or NOTIMP, in a header only; no reply if it could begin a loop, or if the id is missing."""
    answered = await server.answer(message, udp=True)
    assert answered == (Answer(bytes.fromhex(reply + "0000" * 4)) if reply else None)


async def test_what_cannot_be_known_is_not_denied(
    server: Nameserver, manager: Manager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With storage down this node's own values are answered; SERVFAIL makes a resolver ask another node."""
    publish(manager, "1")

    def down(*_: object, **__: object) -> list[str]:
        raise StorageUnavailable("gone")

    monkeypatch.setattr(memory, "keys", down)
    assert (await ask(server, NAME)).answer[0][0].to_text() == '"1"'
    assert (await ask(server, f"b.example.test.{ZONE}")).rcode() == dns.rcode.SERVFAIL
    assert (await ask(server, f"a_b.{ZONE}")).rcode() == dns.rcode.NXDOMAIN


ACCOUNT = b"_ujmmovf2vn55tgye"
COSTLY = {
    "many labels below a challenge": (*100 * [b"a"], b"_acme-challenge", b"example", b"test"),
    "many challenges": (*12 * [b"_acme-challenge"], b"example", b"test"),
    "many accounts": (*10 * [ACCOUNT], b"_acme-challenge", b"example", b"test"),
    "many labels in the zone": (*100 * [b"a"], b"acme", b"example", b"test"),
    "punycode": (b"_acme-challenge", b"xn--" + 59 * b"9", b"xn--" + 59 * b"a", b"example", b"test"),
    "bytes": (63 * b"\xff", 63 * b"\\", 63 * b".", b"example", b"test"),
    "a long host": (b"_acme-challenge", *3 * [63 * b"a"], b"example", b"test"),
}


@pytest.mark.parametrize("labels", COSTLY.values(), ids=COSTLY)
async def test_no_name_costs_more_than_its_length(server: Nameserver, labels: tuple[bytes, ...]) -> None:
    """With the decision whose name it is: under five milliseconds of the loop."""
    question = b"".join(bytes([len(label)]) + label for label in labels)[:254] + b"\0" + QUESTION[-4:]
    assert await loop_seconds(lambda: server.answer(HEADER + question, udp=True)) < 0.005


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("udp", [True, False])
async def test_no_message_keeps_the_loop(server: Nameserver, hostile: bytes, udp: bool) -> None:
    """One of 64 KB took 46 s. And no reply is longer than its message."""
    assert await loop_seconds(lambda: server.answer(hostile, udp=udp)) < 0.005
    assert len(await reply_to(server, hostile, udp=udp)) <= len(hostile)


async def test_thousands_of_names_cost_storage_one_listing(
    server: Nameserver, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of our zone without an order; names of other zones cost none."""
    prefixes, keys = [], memory.keys

    def counting(prefix: str, *, after: str = "", limit: int | None = None) -> list[str]:
        prefixes.append(prefix)
        return keys(prefix, after=after, limit=limit)

    monkeypatch.setattr(memory, "keys", counting)
    names = [f"n{number}.elsewhere.test.{ZONE}" for number in range(900)]
    await asyncio.gather(*(ask(server, name) for name in names))
    assert len(prefixes) <= 2
    await asyncio.gather(*(ask(server, name.removesuffix(f".{ZONE}")) for name in names))
    assert len(prefixes) <= 2


async def test_label_with_a_dot_is_not_in_our_zone(server: Nameserver) -> None:
    """``a.acme`` may be one label, of a foreign zone."""
    for name in (r"a\.acme.example.test", r"x\._acme-challenge.a.example.test"):
        assert (await ask(server, name)).rcode() == dns.rcode.REFUSED


async def test_signed_query_gets_notauth(server: Nameserver) -> None:
    """We have no keys (RFC 8945 section 5.2)."""
    query = dns.message.make_query(NAME, "TXT")
    query.use_tsig(dns.tsigkeyring.from_text({"key.test.": "c2VjcmV0"}))
    assert dns.message.from_wire(await reply_to(server, query.to_wire())).rcode() == dns.rcode.NOTAUTH


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[tuple[asyncio.AbstractEventLoop, Nameserver]]:
    loop = asyncio.new_event_loop()
    config = Config.from_options(OPTIONS | {"acme_domains": ("**.example.test",), "acme_tos_accepted": True})
    manager = Manager(config, Memory())
    publish(manager, "1")
    yield loop, Nameserver(manager, Instrumentation())
    loop.run_until_complete(manager.close())
    loop.close()


def messages() -> st.SearchStrategy[bytes]:
    """Bytes; a header and bytes; and queries for our zone with some bytes changed."""
    question = dns.message.make_query(PLACE, "A", use_edns=0).to_wire()
    changes = st.dictionaries(st.integers(0, len(question) - 1), st.integers(0, 255), max_size=6)
    changed = changes.map(lambda change: bytes(change.get(at, byte) for at, byte in enumerate(question)))
    return st.one_of(
        st.binary(max_size=600), st.binary(max_size=80).map(HEADER.__add__), changed, changed.map(lambda m: m[:-3])
    )


@settings(max_examples=1_500)
@given(message=messages(), udp=st.booleans())
def test_any_message_gets_a_valid_reply_or_none(
    fuzzed: tuple[asyncio.AbstractEventLoop, Nameserver], message: bytes, udp: bool
) -> None:
    """Any output is a reply to the message, of a size that fits, with no data but ours."""
    loop, server = fuzzed
    answer = loop.run_until_complete(server.answer(message, udp=udp))
    if answer is None:
        assert len(message) < 12 or message[2] & 0x80
        return
    reply = answer.reply
    response = dns.message.from_wire(reply)
    assert response.id == int.from_bytes(message[:2])
    assert response.flags & dns.flags.QR
    assert len(reply) <= 1_232
    assert {rrset.rdtype for rrset in (*response.answer, *response.authority)} <= {
        dns.rdatatype.TXT,
        dns.rdatatype.SOA,
        dns.rdatatype.NS,
    }


def client_of(transport: str, mode: str) -> connection.Client:
    return connection.Client(
        peername=("192.0.2.1", 1),
        sockname=("127.0.0.1", 53),
        transport_protocol=transport,  # type: ignore[arg-type]  # tcp or udp
        proxy_mode=mode_specs.ProxyMode.parse(mode),
    )


def flow_of(name: str, mode: str) -> mitm_dns.DNSFlow:
    flow = mitm_dns.DNSFlow(client_of("udp", mode), connection.Server(address=("192.0.2.9", 53)), live=True)
    flow.request = mitm_dns.DNSMessage.unpack(dns.message.make_query(name, "TXT").to_wire())
    return flow


async def test_in_front_of_another_nameserver_only_what_is_ours_is_answered(
    server: Nameserver, manager: Manager
) -> None:
    """In ``reverse:dns`` the upstream has all names but our zone, and a challenge's name while it has no record."""
    mode, other = "reverse:dns://192.0.2.9", mitm_dns.DNSFlow(client_of("udp", "dns"), connection.Server(address=None))
    for name, answered in ((NAME, True), (f"foo.{ZONE}", True), (PLACE, False), ("www.elsewhere.test", False)):
        flow = flow_of(name, mode)
        await server.respond(flow)
        assert (flow.response is not None) == answered, name
    publish(manager, "1")
    flow = flow_of(PLACE, mode)
    await server.respond(flow)
    assert flow.response is not None
    assert flow.response.answers[0].data == b"\x011"
    assert other.response is None


async def test_in_plain_dns_mode_every_flow_is_answered(server: Nameserver) -> None:
    """Also one that mitmproxy received before this configuration: mitmproxy would resolve it."""
    for name in ("www.elsewhere.test", NAME):
        flow = flow_of(name, "dns")
        await server.respond(flow)
        assert flow.response is not None
        assert (flow.response.response_code == 5) == (name != NAME)
    unwritable = flow_of(NAME, "dns")
    unwritable.request.questions[0].name = "a..b"
    await server.respond(unwritable)
    assert unwritable.response is not None
    assert unwritable.response.response_code == 5
