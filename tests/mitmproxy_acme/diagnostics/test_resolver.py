"""Names to addresses and CAA records, by a real DNS server and by the machine."""

from collections.abc import Iterator

import pytest

from mitmproxy_acme.ca.dns_lookup import NoAnswer
from mitmproxy_acme.core.dns_server import DnsServer
from mitmproxy_acme.diagnostics.resolver import Caa, Resolver
from tests.servers.base import free_port
from tests.servers.binaries import need
from tests.servers.pebble import ChallTestSrv


@pytest.fixture(scope="module")
def dns() -> Iterator[ChallTestSrv]:
    need("pebble-challtestsrv")
    with ChallTestSrv() as server:
        yield server


def test_dns_server_is_asked(dns: ChallTestSrv) -> None:
    """IPv4 comes before IPv6, CAA records are those of the name itself, and no record gives an empty list."""
    dns.add_a("a.test", "192.0.2.1", "192.0.2.2")
    dns.add_aaaa("a.test", "2001:db8::1")
    dns.add_caa("a.test", issue="ca.test; validationmethods=http-01")
    resolver = Resolver(DnsServer.parse(dns.address, "--dns"))
    assert sorted(resolver.addresses("a.test")) == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    assert resolver.addresses("a.test")[-1] == "2001:db8::1"
    assert resolver.caa("a.test") == [Caa(False, "issue", "ca.test; validationmethods=http-01")]
    assert resolver.caa("b.a.test") == []


def test_dns_server_that_fails(dns: ChallTestSrv) -> None:
    """SERVFAIL is no answer, which is not the same as none."""
    dns.set_servfail("broken.test")
    resolver = Resolver(DnsServer.parse(dns.address, "--dns"))
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
