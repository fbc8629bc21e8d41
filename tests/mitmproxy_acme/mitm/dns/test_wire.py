"""How a stranger's DNS message is read, which messages are refused unread, and what that costs."""

import struct

import dns.message
import dns.name
import dns.rdatatype
import dns.tsigkeyring
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmproxy_acme.mitm.dns.wire import MAX_SIZE, Query, read
from tests.costs import cpu_seconds

QUESTION = bytes.fromhex("0161 00 0010 0001")
OPT = bytes.fromhex("00 0029 1000 00000000 0000")
TSIG = bytes.fromhex("0161 00 00fa 00ff 00000000 0003 616263")
FORMERR = bytes.fromhex("abcd 8101") + bytes(8)


def message(*sections: bytes, counts: tuple[int, int, int, int] = (1, 0, 0, 0), flags: int = 0x0100) -> bytes:
    return struct.pack("!HHHHHH", 0xABCD, flags, *counts) + b"".join(sections)


def chain_of_pointers(size: int) -> bytes:
    """Return a message whose records are owned by the last of many pointers, each to the one before.

    As many as dnspython 2.9 follows for one name, which takes 0.17 s for 64 KB; older releases without that limit took
    46 s.
    """
    record, links = bytes.fromhex("ff00 0001 00000000"), min(15, size // 4)
    chain = b"".join((0xC000 | at).to_bytes(2) for at in (12, *range(28, 28 + 2 * (links - 1), 2)))
    built = b"\0\0\x10\0\1" + b"\0" + record + len(chain).to_bytes(2) + chain
    owned = (0xC000 | (28 + 2 * (links - 1))).to_bytes(2) + record + bytes(2)
    count = (size - 12 - len(built)) // len(owned)
    return struct.pack("!HHHHHH", 1, 0x0100, 1, 1 + count, 0, 0) + built + count * owned


def question_of(*labels: bytes, tail: bytes = b"\0") -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + tail + bytes.fromhex("0010 0001")


HOSTILE = {
    "pointers, 64 KB": chain_of_pointers(65_000),
    "pointers, a datagram": chain_of_pointers(1_227),
    "pointers, as long as allowed": chain_of_pointers(MAX_SIZE),
    "questions": message(12_000 * b"\0\0\1\0\1", counts=(12_000, 0, 0, 0)),
    "labels of one byte": message(question_of(*127 * [b"a"])),
    "labels of one byte and no end": message(500 * b"\x01a"),
    "a label behind another": message(question_of(*3 * [63 * b"."], 62 * b"\\")),
    "options of EDNS": message(QUESTION, OPT[:-2] + (900).to_bytes(2) + 225 * b"\0\1\0\0", counts=(1, 0, 0, 1)),
    "records that are announced": message(QUESTION, counts=(1, 65_535, 65_535, 65_535)),
    "additional records": message(QUESTION, 80 * OPT, counts=(1, 0, 0, 80)),
    "64 KB of nothing": message(bytes(65_000), counts=(1, 0, 0, 0)),
    "a name that points to itself": message(bytes.fromhex("c00c 0010 0001")),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_no_message_costs_more_than_its_bytes(hostile: bytes) -> None:
    """Whatever it announces, and at any length: under two milliseconds; the longest are not read at all."""
    assert cpu_seconds(lambda: read(hostile)) < 0.002


def test_query_is_read() -> None:
    """With its question as it came, and its name in lower case."""
    query = read(message(question_of(b"WwW", b"eXample"), OPT, counts=(1, 0, 0, 1)))
    assert isinstance(query, Query)
    assert (query.name, query.labels, query.type, query.rdclass) == ("www.example", (b"WwW", b"eXample"), 16, 1)
    assert (query.edns, query.payload, query.signed) == (0, 1232, False)
    assert query.question == question_of(b"WwW", b"eXample")


@pytest.mark.parametrize(("size", "taken"), [(0, 512), (600, 600), (65_535, 1_232)])
def test_payload_has_bounds(size: int, taken: int) -> None:
    query = read(message(QUESTION, OPT[:3] + size.to_bytes(2) + OPT[5:], counts=(1, 0, 0, 1)))
    assert isinstance(query, Query)
    assert query.payload == taken


def test_signature_is_seen() -> None:
    """Alone, or behind EDNS; it is not checked."""
    for records in ((TSIG,), (OPT, TSIG)):
        query = read(message(QUESTION, *records, counts=(1, 0, 0, len(records))))
        assert isinstance(query, Query)
        assert query.signed
    signed = dns.message.make_query("a.test", "TXT", use_edns=0)
    signed.use_tsig(dns.tsigkeyring.from_text({"key.test.": "c2VjcmV0"}))
    query = read(signed.to_wire())
    assert isinstance(query, Query)
    assert query.signed


@pytest.mark.parametrize(
    "refused",
    [
        message(QUESTION, QUESTION, counts=(2, 0, 0, 0)),
        message(counts=(0, 0, 0, 0)),
        message(QUESTION, OPT, counts=(1, 1, 0, 0)),
        message(QUESTION, OPT, counts=(1, 0, 1, 0)),
        message(QUESTION, OPT, OPT, counts=(1, 0, 0, 2)),
        message(QUESTION, TSIG, OPT, counts=(1, 0, 0, 2)),
        message(QUESTION, TSIG, TSIG, counts=(1, 0, 0, 2)),
        message(QUESTION, OPT, TSIG, OPT, counts=(1, 0, 0, 3)),
        message(QUESTION, b"\x01a" + OPT, counts=(1, 0, 0, 1)),
        message(QUESTION, QUESTION, bytes(6), counts=(1, 0, 0, 1)),
        message(QUESTION, b"\xc0\x0c" + OPT[1:], counts=(1, 0, 0, 1)),
        message(QUESTION, b"x"),
        message(QUESTION[:-1]),
        message(QUESTION, OPT[:-1], counts=(1, 0, 0, 1)),
        message(QUESTION, OPT[:-2] + b"\xff\xff", counts=(1, 0, 0, 1)),
        message(question_of(b"a", tail=b"\xc0\x0c")),
        message(question_of(tail=b"\x40a\0")),
        message(question_of(*3 * [63 * b"a"], 62 * b"a")),
        message(QUESTION, OPT[:-2] + (MAX_SIZE - 27).to_bytes(2) + bytes(MAX_SIZE - 26), counts=(1, 0, 0, 1)),
    ],
)
def test_everything_else_is_malformed(refused: bytes) -> None:
    """The reply is a header with FORMERR, without the question."""
    assert read(refused) == FORMERR


def test_longest_name_and_longest_message_are_read() -> None:
    """255 octets (RFC 1035 section 2.3.4), and a message of exactly the limit."""
    longest = read(message(question_of(*3 * [63 * b"a"], 61 * b"a")))
    assert isinstance(longest, Query)
    assert len(longest.question) == 255 + 4
    padding = MAX_SIZE - 12 - len(QUESTION) - len(OPT)
    full = message(QUESTION, OPT[:-2] + padding.to_bytes(2) + bytes(padding), counts=(1, 0, 0, 1))
    assert len(full) == MAX_SIZE
    assert isinstance(read(full), Query)


@pytest.mark.parametrize("label", [b"a.b", b"\\", b"a b", b"\0\xff", b'"', b"\xc3\xa4"])
def test_bytes_that_no_host_name_has_are_escaped(label: bytes) -> None:
    """A dot in the name always separates labels: no label can look like the end of one of our zones."""
    query = read(message(question_of(label, b"test")))
    assert isinstance(query, Query)
    assert query.name.isascii()
    assert query.name.count(".") == 1
    assert query.name.endswith(".test")


@settings(max_examples=1_000)
@given(data=st.binary(max_size=120), counts=st.tuples(*4 * [st.integers(0, 3)]), question=st.booleans())
def test_reading_ends_and_a_reply_is_no_longer(data: bytes, counts: tuple[int, int, int, int], question: bool) -> None:
    """For any bytes; of each query that we accept dnspython reads the same name."""
    asked = message(QUESTION if question else b"", data, counts=counts)
    query = read(asked)
    if isinstance(query, Query):
        assert len(query.reply(0)) <= len(asked)
        assert dns.name.from_wire(asked, 12)[0].labels == (*query.labels, b"")
    else:
        assert query == FORMERR
    assert read(data[:12]) is None or len(data) >= 12
