"""Changes of certificates in PEM that keep the form of their DER (X.690), so that they reach what lies behind a parser.

This module knows tags and lengths; it must not know what a certificate means. Every change is drawn from ``random``.
"""

import base64
import re
from random import Random

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----\s*([A-Za-z0-9+/=\s]*?)-----END \1-----\s*")
_DEEPEST = 12

type _Span = tuple[int, int, int]
"""Of an element: where it starts, where its content does, and where both end."""

type _Element = tuple[int, int, int, tuple[_Span, ...]]
"""The span of an element, and those of the elements around it, the outermost first."""


def pem_mutator(data: bytes, random: Random) -> bytes:
    """Change the DER in a block of PEM, or the blocks themselves."""
    blocks = list(_PEM.finditer(data))
    if not blocks:
        return data
    block = random.choice(blocks)
    if random.random() < 0.15:
        times = random.choice((0, 2, 3, 30))
        return data[: block.start()] + block[0] * times + data[block.end() :]
    try:
        der = base64.b64decode(block[2])
    except ValueError:
        return data
    changed = base64.encodebytes(_changed_der(der, random))
    return data[: block.start(2)] + changed + data[block.end(2) :]


def _changed_der(der: bytes, random: Random) -> bytes:
    """Change bytes of DER; a change of length mends the lengths of what it is in, most of the time."""
    if not der:
        return der
    elements = list(_elements(der, 0, len(der), ()))
    if not elements or random.random() < 0.3:
        at = random.randrange(len(der))
        return (
            der[:at]
            + bytes([random.choice((der[at] ^ 1 << random.randrange(8), random.randrange(256)))])
            + der[at + 1 :]
        )
    start, inside, end, parents = random.choice(elements)
    content = _changed_content(der[start], der[inside:end], random)
    if random.random() < 0.1:  # a whole element twice, or never
        made = random.choice((b"", der[start:end] * 2))
    else:
        tag = (
            random.choice((0x0C, 0x13, 0x16, 0x17, 0x18, 0x1E, 0x02, 0x30, 0x05))
            if random.random() < 0.1
            else der[start]
        )
        made = bytes([tag]) + _length(len(content)) + content
    for outer, outer_inside, outer_end in reversed(parents):
        body = der[outer_inside:start] + made + der[end:outer_end]
        start, end = outer, outer_end
        made = bytes([der[outer]]) + _length(len(body)) + body
    return der[:start] + made + der[end:]


def _changed_content(tag: int, content: bytes, random: Random) -> bytes:
    if tag in (0x17, 0x18):  # times
        return random.choice(
            (
                b"99991231235959Z",
                b"00010101000000Z",
                b"500101000000Z",
                b"491231235959Z",
                b"19000101000000Z",
                b"00000000000000Z",
                b"",
            )
        )
    if tag == 0x02:  # integers, serial numbers
        return random.choice(
            (b"\0", b"\xff", b"\x80" + bytes(19), b"\x7f" + b"\xff" * 30, b"", b"\0" + content, bytes(2) + content)
        )
    match random.randrange(5):
        case 0:
            return b""
        case 1:
            return random.choice(
                (b"\0", b"\xff\xfe", b"\xc3\xa9", b"\n", b"a" * 300, b"*.*.test", b"a..test", b"127.0.0.1")
            )
        case 2:
            return content + random.randbytes(random.choice((1, 2, 12)))
        case 3:
            return content[: random.randrange(len(content) + 1)]
    at = random.randrange(len(content) + 1)
    return content[:at] + random.randbytes(1) + content[at + 1 :]


def _elements(der: bytes, at: int, end: int, parents: tuple[_Span, ...]) -> list[_Element]:
    """Return each element in DER, with the elements around it."""
    found = []
    while at + 2 <= end and len(parents) < _DEEPEST:
        size, inside = der[at + 1], at + 2
        if size >= 0x80:
            width = size & 0x7F
            size, inside = int.from_bytes(der[inside : inside + width]), inside + width
        if inside + size > end:
            break
        found.append((at, inside, inside + size, parents))
        if der[at] & 0x20 or der[at] == 0x04:  # constructed, or an extension's octets
            found += _elements(der, inside, inside + size, (*parents, (at, inside, inside + size)))
        at = inside + size
    return found


def _length(size: int) -> bytes:
    if size < 0x80:
        return bytes([size])
    width = (size.bit_length() + 7) // 8
    return bytes([0x80 | width]) + size.to_bytes(width)
