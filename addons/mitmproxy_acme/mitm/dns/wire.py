"""Reads DNS queries, and refuses any other message by its length, its counts and its form.

This module knows the wire format (RFC 1035 section 4.1, RFC 6891, RFC 8945); it must not know what is answered. It
parses only what a nameserver of a few TXT records needs, and follows no compression pointer, so its work grows only
with the length of the message. A general parser (dnspython 2.9) took 167 ms for 64 KB of compression pointers.
"""

import struct
from dataclasses import dataclass

import dns.rcode
import dns.rdatatype

# Room for a question of 255 octets, EDNS with its padding (RFC 8467) and a signature.
MAX_SIZE = 1_024
MIN_SIZE = 12

RESPONSE, AUTHORITATIVE, TRUNCATED = 0x8000, 0x0400, 0x0200
_OPCODE, _RECURSION_DESIRED = 0x7800, 0x0100
_HEADER = struct.Struct("!HHHHHH")
_TYPE_AND_CLASS = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_MAX_ADDITIONAL = 2  # OPT and TSIG
_MAX_LABEL, _MAX_NAME, _POINTER = 63, 255, 0xC0
_UDP_PAYLOAD = 1_232  # https://www.dnsflagday.net/2020/: fits into one packet on any path
_MIN_PAYLOAD = 512


@dataclass(frozen=True, slots=True)
class Query:
    """One question.

    ``name`` is in lower case, without the trailing dot, and ASCII; bytes that no host name has are escaped, so that a
    dot in it always separates two labels. ``question`` is the question section as it came. ``edns`` is the version of
    EDNS, None without it; ``payload`` is how many bytes the client accepts over UDP. ``signed`` says that there is a
    TSIG record, which is not checked.
    """

    id: int
    flags: int
    question: bytes
    labels: tuple[bytes, ...]
    type: int
    rdclass: int
    edns: int | None = None
    payload: int = _MIN_PAYLOAD
    signed: bool = False

    @property
    def name(self) -> str:
        return ".".join(_text(label) for label in self.labels)

    def reply(
        self, rcode: int, flags: int = 0, *, answers: int = 0, authorities: int = 0, records: bytes = b""
    ) -> bytes:
        """Return a reply with the question and these records; without records it is never longer than the query."""
        flags |= RESPONSE | self.flags & _RECURSION_DESIRED | rcode & 0xF
        header = _HEADER.pack(self.id, flags, 1, answers, authorities, self.edns is not None)
        return header + self.question + records + self._opt(rcode)

    def _opt(self, rcode: int) -> bytes:
        """Return our OPT record, with the upper bits of ``rcode``, if the query has one (RFC 6891 section 6.1.1)."""
        if self.edns is None:
            return b""
        return b"\0" + _RECORD.pack(dns.rdatatype.OPT, _UDP_PAYLOAD, rcode >> 4 << 24, 0)


def read(message: bytes) -> Query | bytes | None:
    """Return the query in a message; for any other message the reply, or None if there is to be none.

    A query has one question, no answer or authority records, and at most OPT and TSIG. A message longer than
    ``MAX_SIZE`` takes constant time.
    """
    if len(message) < MIN_SIZE:
        return None
    id, flags, questions, answers, authorities, additional = _HEADER.unpack_from(message)
    if flags & RESPONSE:
        return None
    if flags & _OPCODE:
        return _bare(id, flags, dns.rcode.NOTIMP)
    if len(message) > MAX_SIZE or (questions, answers, authorities) != (1, 0, 0) or additional > _MAX_ADDITIONAL:
        return _bare(id, flags, dns.rcode.FORMERR)
    try:
        return _parse(message, id, flags, additional)
    except (ValueError, IndexError, struct.error):
        return _bare(id, flags, dns.rcode.FORMERR)


def truncated(message: bytes) -> bytes:
    """Return the reply to a query without its answer: the client should ask again over TCP."""
    query = read(message)
    assert isinstance(query, Query)  # noqa: S101  # narrows: it was answered
    return query.reply(dns.rcode.NOERROR, AUTHORITATIVE | TRUNCATED)


def _parse(message: bytes, id: int, flags: int, additional: int) -> Query:
    """Raises ``ValueError``, ``IndexError`` or ``struct.error`` if the message is malformed."""
    labels, end = _read_name(message, _HEADER.size)
    type, rdclass = _TYPE_AND_CLASS.unpack_from(message, end)
    end += _TYPE_AND_CLASS.size
    question, edns, payload, signed = message[_HEADER.size : end], None, _MIN_PAYLOAD, False
    for _ in range(additional):
        is_root, end = message[end] == 0, _skip_name(message, end)
        record, size, ttl, length = _RECORD.unpack_from(message, end)
        end += _RECORD.size + length
        if signed:
            raise ValueError("a signature must be the last record (RFC 8945 section 5.1)")
        if record == dns.rdatatype.OPT and is_root and edns is None:
            edns, payload = ttl >> 16 & 0xFF, max(_MIN_PAYLOAD, min(size, _UDP_PAYLOAD))
        elif record == dns.rdatatype.TSIG:
            signed = True
        else:
            raise ValueError("a query has only OPT and TSIG records")
    if end != len(message):
        raise ValueError("the message is longer or shorter than its records")
    return Query(id, flags, question, labels, type, rdclass, edns, payload, signed)


def _read_name(message: bytes, at: int) -> tuple[tuple[bytes, ...], int]:
    """Return the labels of a name, and where it ends. A pointer is an error: no name comes before the question."""
    start, labels = at, []
    while length := message[at]:
        if length > _MAX_LABEL or at + 1 + length - start >= _MAX_NAME:
            raise ValueError("a compression pointer, or too long")
        labels.append(message[at + 1 : at + 1 + length])
        at += 1 + length
    return tuple(labels), at + 1


def _skip_name(message: bytes, at: int) -> int:
    """Return where a name ends. The name of a key may end in a pointer, which is not followed."""
    while length := message[at]:
        if length >= _POINTER:
            return at + 2
        if length > _MAX_LABEL:
            raise ValueError("not the length of a label")
        at += 1 + length
    return at + 1


def _text(label: bytes) -> str:
    return label.lower().replace(b"\\", b"\\\\").replace(b".", b"\\046").decode("ascii", "backslashreplace")


def _bare(id: int, flags: int, rcode: int) -> bytes:
    """Return a header only, without the question."""
    return _HEADER.pack(id, RESPONSE | flags & (_OPCODE | _RECURSION_DESIRED) | rcode, 0, 0, 0, 0)
