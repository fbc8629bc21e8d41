"""Names: server names of clients, hosts of requests, identifiers that people and CAs write, domains of challenges."""

import re

from mitmproxy_acme.core.authority import parse_authority
from mitmproxy_acme.core.challenge_domains import ChallengeDomain
from mitmproxy_acme.core.errors import ConfigError
from mitmproxy_acme.core.host_policy import HostPattern, HostPolicy
from mitmproxy_acme.core.names import (
    ServerName,
    is_address,
    parse_address,
    parse_certificate_name,
    parse_id,
    parse_server_name,
)

from ..mutators import text_mutator
from ..target import Target

_DNS_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*\Z")
_OPEN = HostPolicy.parse(["**.a.test", "*.b.test", "re:[a-z]+\\.c\\.test"], any_domain=True)
_SEEDS = (
    "www.example.com", "WWW.Example.COM.", "münchen.test", "xn--mnchen-3ya.test", "faß.test", "1.2.3.4",
    "[2001:db8::1]",
    "::ffff:1.2.3.4", "fe80::1%eth0", "*.example.com", "example.com+rsa", "a" * 63 + ".test", ".".join(["a"] * 127),
    "例え。テスト", "☕.test", "xn--53h.test", "www.example.com:443", "[::1]:8443", "user@host", "re:[a-z]+\\.test",
    "**.a.test",
    "_acme-challenge.www.example.com", "_ujmmovf2vn55tgye._acme-challenge.a.test", "a.b.c.d.e.f.1", "1.1.1.1.",
    "0x7f.1",
)  # fmt: skip


def _text(data: bytes) -> str:
    """Return the text as an SNI, a header or an argument may hold it: bytes that are no UTF-8 are surrogates."""
    return data.decode("utf-8", "surrogateescape")


def _require_name(name: ServerName) -> None:
    """Assert that a parsed name is canonical: a DNS name as certificates have it, or an address."""
    if is_address(name):
        assert parse_address(name) == name
    else:
        assert _DNS_NAME.match(name), name
        assert parse_server_name(name) == name


def server_name(data: bytes) -> None:
    text = _text(data)
    for name in (parse_server_name(text), parse_address(text), parse_authority(text)):
        if name is not None:
            _require_name(name)
            assert isinstance(_OPEN.allows(name), bool)
    name = parse_server_name(text)
    if name is not None:
        assert parse_server_name(text.upper().lower()) == name or not text.isascii()
        assert parse_authority(f"{name}:443") == name


def identifier(data: bytes) -> None:
    text = _text(data)
    name = parse_certificate_name(text)
    try:
        assert parse_id(text, "host") == name
    except ConfigError:
        assert name is None
    if name is not None:
        assert parse_certificate_name(name) == name


def challenge_domain(data: bytes) -> None:
    text = _text(data).lower()
    domain = ChallengeDomain.parse(text)
    if domain is not None:
        assert str(domain) == text
        _require_name(domain.host)
        alias = domain.alias("zone.test")
        assert len(alias) <= 253
    above = ChallengeDomain.parse_above(text)
    if above is not None:
        assert text.endswith(str(above))
    ours = ChallengeDomain.parse_alias(text)
    assert ours is None or f"{ours.account}.{ours.host}".strip(".") == text


def host_pattern(data: bytes) -> None:
    try:
        pattern = HostPattern.parse(_text(data), "acme_domains")
    except ConfigError:
        return
    assert HostPattern.parse(str(pattern), "acme_domains") == pattern
    HostPolicy.parse([str(pattern)]).allows(ServerName("www.example.com"))


def _seeds() -> list[bytes]:
    return [text.encode() for text in _SEEDS]


TARGETS = tuple(
    Target(run.__name__, run, _seeds, [text_mutator(_SEEDS)], longest=600)
    for run in (server_name, identifier, challenge_domain, host_pattern)
)
