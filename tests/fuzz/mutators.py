"""Changes that keep the form of an input, so that they reach what lies behind a first check.

This module knows JSON and lines of text; it must not know any target, or certificates (``der_mutator`` does). Every
change is drawn from ``random``.
"""

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from .target import Mutator

# As they are written in JSON: some of them json.dumps would not write.
_NUMBERS = (
    "0", "-1", "1.5", "1e999", "-1e999", "NaN", "Infinity", "true", "null", "2147483648", "-0.0", "1e308", "1e15",
    "253402300799", "253402300800", "9" * 400, "9" * 5_000, "1e-400", "1800000000", "10000000000000",
)  # fmt: skip
_TEXTS = (
    "", "a", "\0", "\ud800", "\n", "\r\n", "\x1b[2J", "\u2028", "a" * 300, "é", "İ", "ß", "٣", "²", "\uff11",
    "\uff0e", "\u3002",
    "https://[", "https://a.test/x", "https://ca.test/../", "http://a@b:99999/", "https://\u2100/", "::1", "0x7f.1",
    "*.a.test",
    "**.a.test", "a.test.", ".", "..", "-a", "a_b.test", "xn--", "xn--a", "xn--mnchen-3ya.test", "example.test+rsa",
    "%00", "%ff", "../..", "env:HOME", "env:", "file:/dev/null", "auto", "off", "10m", "0s", "1e9d", "9" * 400 + "w",
    "50%",
    "2026-11-29T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01", "9999-12-31T23:59:59-23:59",
    "2026-11-29T00:00:00.123456789Z", "2026-W01-1", "24:00", "valid", "pending", "invalid", "processing",
    "urn:ietf:params:acme:error:rateLimited", "[]", "{}", '["a", "b", "c", "d"]', "re:a{1000}", "re:(a|b)*c", "re:(",
)  # fmt: skip
_DEPTHS = (3, 60, 1_000, 100_000)


class _Raw(float):
    """A number that is written as ``text``."""

    text: str

    def __new__(cls, text: str) -> "_Raw":
        made = super().__new__(cls, 0.0)
        made.text = text
        return made

    def __repr__(self) -> str:
        return self.text


def json_mutator(words: Sequence[str] = ()) -> Mutator:
    """Return a mutator of JSON; ``words`` are texts that mean something to the target, names of fields for example."""

    def mutate(data: bytes, random: Random) -> bytes:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            return data
        for _ in range(random.choice((1, 1, 1, 2, 5))):
            document = _changed(document, random, words)
        return _written(document, random)

    return mutate


def within(part: Callable[[bytes], tuple[bytes, bytes]], mutator: Mutator) -> Mutator:
    """Return a mutator of the second part of an input, which ``part`` cuts in two."""

    def mutate(data: bytes, random: Random) -> bytes:
        head, tail = part(data)
        return head + mutator(tail, random)

    return mutate


def of_line(mutator: Mutator) -> Mutator:
    """Return a mutator of the first line of an input."""

    def mutate(data: bytes, random: Random) -> bytes:
        head, newline, tail = data.partition(b"\n")
        return mutator(head, random).replace(b"\n", b"") + newline + tail

    return mutate


def behind_line(data: bytes) -> tuple[bytes, bytes]:
    """Cut an input behind its first line."""
    head, newline, tail = data.partition(b"\n")
    return head + newline, tail


def _written(document: Any, random: Random) -> bytes:
    try:
        text = json.dumps(document)
    except (ValueError, RecursionError, TypeError):
        return b""
    for mark in re.findall(r'"~(\d+)~"', text):
        depth = _DEPTHS[int(mark) % len(_DEPTHS)]
        left, right = random.choice((("[", "]"), ('{"a":', "}")))
        inner = "0" if left != "[" else ""
        text = text.replace(f'"~{mark}~"', left * depth + inner + right * depth, 1)
    if random.random() < 0.05 and text.startswith("{"):  # the same field twice
        text = f"{text[:-1]}, {text[1:]}"
    encoding = random.choice(("utf-8",) * 18 + ("utf-16", "utf-32"))
    return text.encode(encoding)


def _changed(value: Any, random: Random, words: Sequence[str]) -> Any:
    """Return a JSON value with one change, at any depth."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        key = random.choice(list(value))
        action = random.random()
        if action < 0.1:
            return {name: item for name, item in value.items() if name != key}
        if action < 0.2:
            return value | {random.choice((*words, *_TEXTS)): _hostile(random, words)}
        return value | {key: _changed(value[key], random, words)}
    if isinstance(value, list) and value and random.random() < 0.8:
        at = random.randrange(len(value))
        action = random.random()
        if action < 0.1:
            return value[:at] + value[at + 1 :]
        if action < 0.2:
            return value * random.choice((2, 3, 200))
        return [*value[:at], _changed(value[at], random, words), *value[at + 1 :]]
    if isinstance(value, str) and value and random.random() < 0.6:
        return _changed_text(value, random)
    return _hostile(random, words)


def _hostile(random: Random, words: Sequence[str]) -> Any:
    match random.randrange(7):
        case 0 | 1:
            return _Raw(random.choice(_NUMBERS))
        case 2 | 3:
            return random.choice((*words, *_TEXTS))
        case 4:
            return random.choice(([], {}, [[]], [None], {"": 0}, False, None))
        case 5:
            return {random.choice((*words, "a")): random.choice(_TEXTS)}
    return f"~{random.randrange(100)}~"


def _changed_text(text: str, random: Random) -> str:
    at = random.randrange(len(text) + 1)
    match random.randrange(4):
        case 0:
            return text[:at] + random.choice(_TEXTS) + text[at:]
        case 1:
            return text[:at] + text[at + 1 :]
        case 2:
            return (
                text[:at]
                + chr(random.choice((0, 9, 10, 13, 0x2E, 0x7F, 0xDF, 0x130, 0x661, 0xD800, 0x3002, 0x1F600)))
                + text[at + 1 :]
            )
    return text.upper() if random.random() < 0.5 else text * random.choice((2, 50))


def text_mutator(words: Sequence[str] = ()) -> Mutator:
    """Return a mutator of text: it inserts what is hostile, or means something to the target."""

    def mutate(data: bytes, random: Random) -> bytes:
        text = data.decode("utf-8", "surrogateescape")
        for _ in range(random.choice((1, 1, 2, 4))):
            at = random.randrange(len(text) + 1)
            match random.randrange(4):
                case 0 | 1:
                    word = random.choice((*words, *_TEXTS, *_NUMBERS))
                    end = at if random.random() < 0.5 else random.randrange(at, len(text) + 1)
                    text = text[:at] + word + text[end:]
                case 2 if text:
                    text = _changed_text(text, random)
                case _:
                    text = text[:at] + text[random.randrange(len(text) + 1) :]
        return _encoded(text)

    return mutate


def _encoded(text: str) -> bytes:
    """Encode text that may hold bytes that were no UTF-8, and surrogates that only hostile text has."""
    parts = re.findall("[\udc80-\udcff]+|[^\udc80-\udcff]+", text)
    return b"".join(
        part.encode("utf-8", "surrogateescape" if "\udc80" <= part[0] <= "\udcff" else "surrogatepass")
        for part in parts
    )
