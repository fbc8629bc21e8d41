"""Findings about the DNS records of challenges, by a real DNS server."""

from collections.abc import Iterator

import dns.resolver
import pytest

from mitmproxy_acme.ca import dns_lookup
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.dns_server import DnsServer
from mitmproxy_acme.diagnostics.dns_record_check import inspect
from mitmproxy_acme.diagnostics.dns_records import to_publish
from mitmproxy_acme.diagnostics.finding import Finding, Severity, fail, passed
from tests.mitmproxy_acme.diagnostics.test_dns_records import ACCOUNT, config
from tests.servers.binaries import need
from tests.servers.pebble import ChallTestSrv

_MANY = tuple(f"n{number}.example.test" for number in range(43))


@pytest.fixture(scope="module")
def server() -> Iterator[ChallTestSrv]:
    need("pebble-challtestsrv")
    with ChallTestSrv() as running:
        yield running


def persistent(*names: str) -> Config:
    """Return options that need one TXT record for each name."""
    return config(acme_challenges=("dns-persist-01",), acme_certificates=names, acme_domains=())


def found(server: ChallTestSrv, options: Config) -> list[Finding]:
    return list(inspect(options, DnsServer.parse(server.address, "--dns"), ACCOUNT, ("ca.test",)))


def test_record_that_is_there_and_one_that_is_not(server: ChallTestSrv) -> None:
    options = persistent("a.example.test", "b.example.test")
    first, second = to_publish(options, account_uri=ACCOUNT, issuers=("ca.test",))
    server.set_txt(first.name, first.value)

    assert found(server, options) == [
        passed(str(first)),
        fail(f"{second.name} has no TXT record that allows this account to order; publish {second}"),
    ]


def test_forty_records_are_looked_up(server: ChallTestSrv) -> None:
    """And it is said how many were not."""
    findings = found(server, persistent(*_MANY))
    assert [finding.outcome for finding in findings] == [*[Severity.FAIL] * 40, Severity.WARN]
    assert findings[-1].what == "3 more DNS records were not checked"


def test_nothing_is_looked_up_where_nothing_is_to_be_published() -> None:
    """Not even a resolver is needed."""
    assert list(inspect(config(acme_certificates=(), acme_domains=("*.example.test",)), None, "", ())) == []


def test_machine_without_a_resolver_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolver_at(servers: object) -> dns.resolver.Resolver:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns_lookup, "resolver_at", resolver_at)
    (finding,) = inspect(config(), None, "", ())
    assert finding.outcome is Severity.WARN
    assert "this machine has no DNS resolver, so DNS records are not checked" in finding.what
