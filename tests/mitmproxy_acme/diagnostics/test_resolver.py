"""Names to addresses and CAA records, by a real DNS server and by the machine."""

import socket
from collections.abc import Iterator

import dns.resolver
import pytest

from mitmproxy_acme.ca import dns_lookup
from mitmproxy_acme.ca.dns_lookup import NoAnswer
from mitmproxy_acme.core.dns_server import DnsServer
from mitmproxy_acme.diagnostics.resolver import Caa, Resolver
from tests.servers.base import free_port
from tests.servers.binaries import need
from tests.servers.pebble import ChallTestSrv


@pytest.fixture(scope="module")
def server() -> Iterator[ChallTestSrv]:
    need("pebble-challtestsrv")
    with ChallTestSrv() as running:
        yield running


def test_dns_server_is_asked(server: ChallTestSrv) -> None:
    """IPv4 comes before IPv6, CAA records are those of the name itself, and no record gives an empty list."""
    server.add_a("a.test", "192.0.2.1", "192.0.2.2")
    server.add_aaaa("a.test", "2001:db8::1")
    server.add_caa("a.test", issue="ca.test; validationmethods=http-01")
    resolver = Resolver(DnsServer.parse(server.address, "--dns"))
    assert sorted(resolver.addresses("a.test")) == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    assert resolver.addresses("a.test")[-1] == "2001:db8::1"
    assert resolver.caa("a.test") == [Caa(False, "issue", "ca.test; validationmethods=http-01")]
    assert resolver.caa("b.a.test") == []


def test_dns_server_that_fails(server: ChallTestSrv) -> None:
    """SERVFAIL is no answer, which is not the same as none."""
    server.set_servfail("broken.test")
    resolver = Resolver(DnsServer.parse(server.address, "--dns"))
    for ask in (resolver.addresses, resolver.caa):
        with pytest.raises(NoAnswer, match="SERVFAIL"):
            ask("broken.test")


def test_machine_is_asked_without_one() -> None:
    """Its hosts file counts."""
    assert "127.0.0.1" in Resolver(None).addresses("localhost")


def test_silent_server_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is reported, and not taken for an empty answer."""
    monkeypatch.setattr("mitmproxy_acme.ca.dns_lookup._TIMEOUT", 0.2)
    with pytest.raises(NoAnswer):
        Resolver(DnsServer("127.0.0.1", free_port())).caa("a.test")


def test_machine_without_a_resolver_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolver_at(servers: object) -> dns.resolver.Resolver:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns_lookup, "resolver_at", resolver_at)
    with pytest.raises(NoAnswer, match="this machine has no DNS resolver"):
        Resolver(None).caa("a.test")


def test_name_that_the_machine_does_not_know_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is an answer; a resolver that does not answer is none."""
    errno = socket.EAI_NONAME

    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(errno, "as the system has it")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert Resolver(None).addresses("a.test") == []
    errno = socket.EAI_AGAIN
    with pytest.raises(NoAnswer, match=r"no DNS server answers \(as the system has it\)"):
        Resolver(None).addresses("a.test")


def test_addresses_of_the_machine_are_listed_once_and_ipv4_first(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [("2001:db8::1", 0, 0, 0), ("192.0.2.2", 0), ("192.0.2.1", 0), ("192.0.2.2", 0)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", address) for address in found])
    assert Resolver(None).addresses("a.test") == ["192.0.2.2", "192.0.2.1", "2001:db8::1"]
