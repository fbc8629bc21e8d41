"""DNS lookups: how long they take, and what an answer means. test_solver asks real servers."""

from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rdatatype
import dns.resolver
import dns.rrset
import pytest

from mitmproxy_acme.ca import dns_lookup
from mitmproxy_acme.ca.dns_lookup import NoAnswer
from mitmproxy_acme.core.dns_server import DnsServer

NAME = "_acme-challenge.a.example.test"


def test_resolver_asks_the_servers_of_the_option() -> None:
    """In their order, at their ports, and for a bounded time."""
    servers = [DnsServer.parse(text, "test") for text in ("192.0.2.1", "[2001:db8::1]:5353")]
    resolver = dns_lookup.resolver_at(servers)
    asked: Any = resolver.nameservers
    assert [(server.address, server.port) for server in asked] == [("192.0.2.1", 53), ("2001:db8::1", 5353)]
    assert resolver.lifetime == 5.0


def made(kind: Any, **how: object) -> Exception:
    """Make one of dnspython's errors, whose constructors have no types."""
    error: Exception = kind(**how)
    return error


class Answers:
    """Stands in for a resolver: gives an answer, or raises an error."""

    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome
        self.asked = list[tuple[str, str, bool]]()

    def resolve(self, name: Any, type: Any, *_: object, search: bool = True, **__: object) -> Any:
        self.asked.append((name.to_text(), str(type), search))
        return self._give()

    def canonical_name(self, name: str) -> Any:
        self.asked.append((name, "CNAME", False))
        return self._give()

    def _give(self) -> Any:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


@pytest.mark.parametrize("error", [made(dns.resolver.NXDOMAIN), made(dns.resolver.NoAnswer)])
def test_name_without_such_a_record_is_an_answer(error: Exception) -> None:
    """The name is asked for as it is, whatever the machine's search list says."""
    resolver: Any = Answers(error)
    assert dns_lookup.records(resolver, NAME, "TXT") == []
    assert dns_lookup.txt_values(resolver, NAME) == []
    assert not dns_lookup.is_visible(resolver, [], NAME, "value")
    assert resolver.asked == [(f"{NAME}.", "TXT", False)] * 3


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (made(dns.resolver.NoNameservers), "the DNS server fails (SERVFAIL)"),
        (made(dns.resolver.LifetimeTimeout, timeout=5, errors=[]), "no DNS server answers in time"),
        (made(dns.exception.Timeout), "no DNS server answers in time"),
        (made(dns.resolver.YXDOMAIN), "DNS gives no answer (YXDOMAIN)"),
    ],
)
def test_failure_is_told_in_words(error: Exception, said: str) -> None:
    """A record that cannot be looked up is not there yet."""
    resolver: Any = Answers(error)
    with pytest.raises(NoAnswer) as caught:
        dns_lookup.records(resolver, NAME, "TXT")
    assert str(caught.value) == said
    assert not dns_lookup.is_visible(resolver, [], NAME, "value")
    assert dns_lookup.canonical_name(resolver, NAME) == NAME
    assert dns_lookup.nameservers(resolver, NAME) == []


def test_texts_of_a_record_are_one() -> None:
    """A value may be in several strings (RFC 7208 section 3.3), and of any bytes."""
    resolver: Any = Answers(list(dns.rrset.from_text(NAME, 0, "IN", "TXT", '"a" "b"', '"c\\255"')))
    assert dns_lookup.txt_values(resolver, NAME) == ["ab", "c\ufffd"]
    assert dns_lookup.is_visible(resolver, [], NAME, "ab")
    assert not dns_lookup.is_visible(resolver, [], NAME, "a")


def test_end_of_the_aliases_is_in_lower_case() -> None:
    resolver: Any = Answers(dns.name.from_text("End.Example.Test."))
    assert dns_lookup.canonical_name(resolver, NAME) == "end.example.test"
    assert resolver.asked[0][0] == f"{NAME}."


def test_nameserver_is_asked_itself_and_for_a_bounded_time() -> None:
    """Without recursion: what it has, and not what it could find out."""
    asked = list[tuple[Any, ...]]()

    def send(question: dns.message.Message, server: str, *, timeout: float, port: int) -> dns.message.Message:
        asked.append((question.question[0].to_text(), int(question.flags), server, timeout, port))
        return dns.message.make_response(question)

    assert dns_lookup.query("192.0.2.1", NAME, "TXT", send=send) is not None
    assert dns_lookup.query("192.0.2.1", NAME, "NS", port=5353, send=send) is not None
    assert asked == [
        (f"{NAME}. IN TXT", 0, "192.0.2.1", 2.0, 53),
        (f"{NAME}. IN NS", 0, "192.0.2.1", 2.0, 5353),
    ]


@pytest.mark.parametrize("error", [made(dns.exception.Timeout), OSError("unreachable"), EOFError()])
def test_nameserver_that_cannot_be_asked_is_none(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """No record is seen there."""

    def send(*_: object, **__: object) -> dns.message.Message:
        raise error

    monkeypatch.setattr(dns.query, "udp_with_fallback", send)
    assert dns_lookup.query("192.0.2.1", NAME, "TXT") is None
    resolver: Any = Answers([])
    assert not dns_lookup.is_visible(resolver, ["192.0.2.1"], NAME, "value")


@pytest.mark.parametrize(
    ("values", "visible"),
    [({"192.0.2.1": "value", "192.0.2.2": "value"}, True), ({"192.0.2.1": "value", "192.0.2.2": "other"}, False)],
)
def test_record_must_be_at_each_nameserver(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], visible: bool
) -> None:
    """A CA may ask any of them; other records beside it do not matter, nor does what the resolver says."""

    def send(question: dns.message.Message, server: str, **_: object) -> tuple[dns.message.Message, bool]:
        response = dns.message.make_response(question)
        response.answer = [
            dns.rrset.from_text(NAME, 0, "IN", "A", "192.0.2.9"),
            dns.rrset.from_text(NAME, 0, "IN", "TXT", '"first"', f'"{values[server]}"'),
        ]
        return response, False

    monkeypatch.setattr(dns.query, "udp_with_fallback", send)
    resolver: Any = Answers(made(dns.resolver.NXDOMAIN))
    assert dns_lookup.is_visible(resolver, list(values), NAME, "value") is visible


def test_few_nameservers_of_a_zone_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that do not answer from here are left out."""
    addresses = [f"192.0.2.{number}" for number in range(1, 9)]
    asked = list[str]()

    def answer(server: str, *_: object, **__: object) -> object:
        asked.append(server)
        return None if server == "192.0.2.2" else object()

    monkeypatch.setattr(dns_lookup, "_nameserver_addresses", lambda *_: addresses)
    monkeypatch.setattr(dns_lookup, "query", answer)
    resolver: Any = Answers([])
    found = dns_lookup.nameservers(resolver, NAME)
    assert asked == addresses[:6]
    assert found == [address for address in addresses[:6] if address != "192.0.2.2"]
