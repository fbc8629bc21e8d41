"""Which DNS records to publish, and the findings about missing or wrong ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.resolver
import pytest

from mitmproxy_acme.ca.dns_lookup import resolver_at
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.dns_server import DnsServer
from mitmproxy_acme.diagnostics.dns_records import check, to_publish
from tests.servers.base import free_port
from tests.servers.binaries import need
from tests.servers.forked import Forked
from tests.servers.mitmdump import Mitmdump, Option
from tests.servers.unbound import Unbound

ZONE = "acme.example.test"
ACCOUNT = "https://ca.test/account/1"
NOW = 1_800_000_000.0


def config(**options: Any) -> Config:
    defaults = {
        "acme_challenges": ("dns-01",),
        "acme_certificates": ("a.example.test,*.a.example.test",),
        "acme_domains": ("*.pattern.test", "b.example.test"),
        "acme_dns_nameservers": ("proxy.example.test",),
        "acme_tos_accepted": True,
    }
    return Config.from_options(defaults | options)


def lines(config: Config, **known: Any) -> list[str]:
    return [str(record) for record in to_publish(config, **known)]


def test_zone_is_delegated_once_and_each_name_is_an_alias() -> None:
    """A wildcard shares the record of its base; a pattern has none; names in the zone need none."""
    assert lines(config(acme_dns_zone=ZONE)) == [
        f"{ZONE}. NS proxy.example.test.",
        f"_acme-challenge.a.example.test. CNAME a.example.test.{ZONE}.",
        f"_acme-challenge.b.example.test. CNAME b.example.test.{ZONE}.",
    ]
    inside = config(acme_dns_zone=ZONE, acme_certificates=(f"www.{ZONE}",), acme_domains=())
    assert lines(inside) == [f"{ZONE}. NS proxy.example.test."]


def test_without_a_zone_each_name_is_delegated() -> None:
    """To every configured nameserver; to a placeholder in capitals if there is none."""
    both = config(acme_dns_nameservers=("one.test", "two.test"), acme_domains=())
    assert lines(both) == [f"_acme-challenge.a.example.test. NS {host}.test." for host in ("one", "two")]
    assert lines(config(acme_dns_nameservers=(), acme_domains=())) == [
        "_acme-challenge.a.example.test. NS HOST-NAME-OF-THIS-PROXY."
    ]


def test_names_of_the_account_and_records_that_stand() -> None:
    """They depend on the account and the CA; without an account only the persistent record can be shown."""
    accounts = config(acme_challenges=("dns-account-01",), acme_dns_zone=ZONE, acme_domains=())
    (_, alias) = lines(accounts, account_uri=ACCOUNT)
    label = alias.partition(".")[0]
    assert alias == f"{label}._acme-challenge.a.example.test. CNAME {label}.a.example.test.{ZONE}."
    assert lines(accounts) == [f"{ZONE}. NS proxy.example.test."]
    standing = config(acme_challenges=("dns-persist-01",), acme_certificates=("*.a.example.test", "c.example.test"))
    assert lines(standing, account_uri=ACCOUNT, issuers=["ca.test"])[:2] == [
        f'_validation-persist.a.example.test. TXT "ca.test; accounturi={ACCOUNT}; policy=wildcard"',
        f'_validation-persist.c.example.test. TXT "ca.test; accounturi={ACCOUNT}"',
    ]
    assert 'TXT "NAME-OF-THE-CA; accounturi=URL-OF-THE-ACCOUNT"' in lines(standing)[1]


@pytest.mark.parametrize(
    ("account", "issuer"), [("https://ca.test/1\nx", "ca.test\n"), ('https://ca.test/"', 'ca"'), (300 * "x", "a b")]
)
def test_nothing_unprintable_of_a_ca_gets_into_a_record(account: str, issuer: str) -> None:
    """A word in capitals is there instead, as before it is known."""
    standing = config(acme_challenges=("dns-persist-01",), acme_certificates=("c.example.test",), acme_domains=())
    assert lines(standing, account_uri=account, issuers=[issuer]) == [
        '_validation-persist.c.example.test. TXT "NAME-OF-THE-CA; accounturi=URL-OF-THE-ACCOUNT"'
    ]


def test_nothing_is_to_be_published_where_a_provider_does() -> None:
    """Nor without a DNS challenge."""
    assert lines(config(acme_dns_provider="powerdns")) == []
    assert lines(config(acme_challenges=("http-01",), acme_certificates=("a.example.test",))) == []


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dns.resolver.Resolver]:
    """A resolver to which the zone, and one name, are delegated to a proxy; the others are as the tests say."""
    need("unbound")
    port, folder = free_port(), tmp_path_factory.mktemp("store")
    records = [
        f"_acme-challenge.a.example.test. CNAME a.example.test.{ZONE}.",
        "_acme-challenge.wrong.example.test. CNAME elsewhere.example.test.",
        f'_validation-persist.a.example.test. TXT "ca.test; accounturi={ACCOUNT}"',
        f'_validation-persist.past.example.test. TXT "ca.test; accounturi={ACCOUNT}; persistUntil=1700000000"',
    ]
    zones = {
        ZONE: [port],
        "_acme-challenge.direct.example.test": [port],
        "_acme-challenge.silent.example.test": [free_port()],
    }
    with Unbound(zones, records) as unbound, _nameserver(port, folder):
        found = resolver_at([DnsServer.parse(unbound.address, "test")])
        found.lifetime = 2
        yield found


def _nameserver(port: int, folder: Path) -> Mitmdump:
    options: dict[str, Option] = {
        "acme_ca": ["https://127.0.0.1:1/dir"],
        "acme_storage": f"file:{folder}",
        "acme_tos_accepted": True,
        "acme_domains": ["**.example.test"],
        "acme_challenges": ["dns-01"],
        "acme_dns_zone": ZONE,
    }
    return Forked("http://127.0.0.1:1", options, dns_port=port)


def troubles(resolver: dns.resolver.Resolver, of: Config, **known: Any) -> list[str]:
    return [seen.trouble for seen in check(to_publish(of, **known), resolver, NOW)]


def test_what_is_there_and_leads_here_is_no_trouble(resolver: dns.resolver.Resolver) -> None:
    """An alias, the zone, a name that is itself delegated, and a persistent record."""
    zone = config(acme_dns_zone=ZONE, acme_domains=("direct.example.test",))
    assert troubles(resolver, zone) == ["", "", ""]
    direct = config(acme_certificates=("direct.example.test",), acme_domains=())
    assert troubles(resolver, direct) == [""]
    standing = config(acme_challenges=("dns-persist-01",), acme_certificates=("a.example.test",), acme_domains=())
    assert troubles(resolver, standing, account_uri=ACCOUNT, issuers=["ca.test"]) == [""]


def test_what_is_missing_or_wrong_is_said_with_the_line_to_publish(resolver: dns.resolver.Resolver) -> None:
    """No alias, an alias elsewhere, a zone elsewhere, silence, a persistent record that has expired or allows too
    little.
    """
    zone = config(acme_dns_zone=ZONE, acme_certificates=("wrong.example.test",), acme_domains=("none.example.test",))
    _, wrong, none = troubles(resolver, zone)
    line = f"_acme-challenge.wrong.example.test. CNAME wrong.example.test.{ZONE}."
    assert wrong == f"_acme-challenge.wrong.example.test is an alias of elsewhere.example.test; publish {line}"
    assert none.startswith("_acme-challenge.none.example.test has no alias; publish")
    (elsewhere,) = troubles(resolver, config(acme_certificates=("x.example.test",), acme_domains=()))
    assert elsewhere.startswith("_acme-challenge.x.example.test does not lead to this proxy; publish")
    (silent,) = troubles(resolver, config(acme_certificates=("silent.example.test",), acme_domains=()))
    assert "its nameserver does not answer" in silent
    names = ("past.example.test", "absent.example.test", "*.a.example.test")
    standing = config(acme_challenges=("dns-persist-01",), acme_certificates=names, acme_domains=())
    said = troubles(resolver, standing, account_uri=ACCOUNT, issuers=["ca.test"])
    assert all("has no TXT record that allows this account to order" in trouble for trouble in said)
    assert len(said) == 3


def test_address_has_no_record() -> None:
    """Names that are validated elsewhere need nothing in DNS."""
    mixed = config(
        acme_challenges=("http-01", "dns-01"), acme_certificates=("192.0.2.1,a.example.test",), acme_domains=()
    )
    assert lines(mixed) == ["_acme-challenge.a.example.test. NS proxy.example.test."]
