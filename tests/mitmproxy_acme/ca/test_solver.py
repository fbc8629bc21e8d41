"""Where proofs are presented: a provider's zone on a real nameserver, and records that an operator publishes."""

import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import dns.exception
import dns.message
import dns.resolver
import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.ca import dns_lookup, solver
from mitmproxy_acme.ca.dns_provider import DnsProvider
from mitmproxy_acme.ca.solver import Solver, permits
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.dns_server import DnsServer
from mitmproxy_acme.core.errors import ChallengeFailed, ConfigError, IssuanceError
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.core.thread_pools import ThreadPools
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.fakes import UNSEALED
from tests.servers.base import free_port
from tests.servers.binaries import need
from tests.servers.powerdns import PowerDns
from tests.servers.unbound import Unbound

ZONE = "p.example.test"
NAME = f"_acme-challenge.a.{ZONE}"
TARGET = f"alias.{ZONE}"  # of its own, for a resolver keeps what it has seen
STANDING = Proof("dns-persist-01", "_validation-persist.a.test", "ca.test; accounturi=https://ca.test/1")


@pytest.fixture(scope="module")
def nameserver() -> Iterator[PowerDns]:
    need("pdns_server")
    with PowerDns(ZONE) as server:
        yield server


@pytest.fixture(scope="module")
def resolver(nameserver: PowerDns) -> Iterator[Unbound]:
    need("unbound")
    records = [
        f"_acme-challenge.alias.example.test. CNAME {TARGET}.",
        f'_validation-persist.yes.example.test. TXT "{STANDING.value}"',
    ]
    with Unbound({ZONE: [nameserver.port]}, records) as server:
        yield server


@pytest.fixture
def provider(nameserver: PowerDns, resolver: Unbound, monkeypatch: pytest.MonkeyPatch) -> DnsProvider:
    monkeypatch.setenv("LEXICON_POWERDNS_PDNS_SERVER", nameserver.url)
    monkeypatch.setenv("LEXICON_POWERDNS_AUTH_TOKEN", nameserver.key)
    monkeypatch.setattr(dns.resolver, "default_resolver", None)
    return DnsProvider("powerdns", dns_lookup.resolver_at([DnsServer.parse(resolver.address, "test")]))


def config(resolver: Unbound, *, challenge: str = "dns-01", provider: str = "") -> Config:
    return Config.from_options(
        {"acme_challenges": (challenge,), "acme_dns_provider": provider, "acme_dns_resolvers": (resolver.address,)}
    )


def test_values_stand_side_by_side_and_go_one_by_one(provider: DnsProvider, nameserver: PowerDns) -> None:
    """Creating a value twice gives one record, and deleting it twice is no error."""
    for value in ("1", "2", "2"):
        provider.create(NAME, value)
    assert nameserver.texts(NAME) == ["1", "2"]
    for _ in range(2):
        provider.delete(NAME, "1")
    assert nameserver.texts(NAME) == ["2"]
    provider.delete(NAME, "2")
    assert nameserver.texts(NAME) == []


def test_nameservers_themselves_are_asked(provider: DnsProvider, nameserver: PowerDns, resolver: Unbound) -> None:
    """Each reachable nameserver must have the value; if none is reachable, the resolver must."""
    asked = dns_lookup.resolver_at([DnsServer.parse(resolver.address, "test")])
    assert dns_lookup.nameservers(asked, NAME, port=nameserver.port) == ["127.0.0.1"]
    assert dns_lookup.nameservers(asked, NAME, port=free_port()) == []
    provider.create(NAME, "shown")
    assert dns_lookup.is_visible(asked, ["127.0.0.1"], NAME, "shown", port=nameserver.port)
    assert dns_lookup.is_visible(asked, [], NAME, "shown")
    assert not dns_lookup.is_visible(asked, ["127.0.0.1"], NAME, "other", port=nameserver.port)
    assert not dns_lookup.is_visible(asked, ["127.0.0.1"], NAME, "shown", port=free_port())
    provider.delete(NAME, "shown")


def test_what_a_provider_says_is_not_repeated(
    provider: DnsProvider, nameserver: PowerDns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its errors may quote a URL with a key: only the kind of error is reported."""
    monkeypatch.setenv("LEXICON_POWERDNS_AUTH_TOKEN", "wrong-key")
    with pytest.raises(IssuanceError, match=f"powerdns failed to create the TXT record {NAME}: HTTP 401") as caught:
        provider.create(NAME, "1")
    assert "wrong-key" not in str(caught.value)
    assert nameserver.url not in str(caught.value)
    with pytest.raises(IssuanceError, match=r"nosuch failed to create .*: ProviderNotAvailableError"):
        DnsProvider("nosuch", provider._resolver).create(NAME, "1")


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, "lexicon.client", None)
    with pytest.raises(ConfigError, match=r'pip install "mitmproxy-acme\[dns\]"'):
        DnsProvider("powerdns", None)


async def test_record_is_created_where_the_name_is_an_alias_of(
    provider: DnsProvider,
    nameserver: PowerDns,
    resolver: Unbound,
    threads: ThreadPools,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The CA follows it too; storage has nothing of it, and what was created is deleted."""
    monkeypatch.setattr(dns_lookup, "nameservers", lambda *_: [])
    memory = Memory()
    publisher = Solver(config(resolver, provider="powerdns"), Store(memory, UNSEALED), threads)
    proof = Proof("dns-01", "_acme-challenge.alias.example.test", "by-alias")
    await publisher.present([proof])
    assert nameserver.texts(TARGET) == ["by-alias"]
    assert memory.keys("") == []
    await publisher.clean_up(proof)
    assert nameserver.texts(TARGET) == []


async def test_value_that_is_never_seen_is_created_again_and_then_left_to_the_ca(
    provider: DnsProvider,
    resolver: Unbound,
    threads: ThreadPools,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two nodes that write one set at the same time may have undone each other's."""
    created = []
    monkeypatch.setattr(solver, "_VISIBLE_WITHIN", 0.0)
    monkeypatch.setattr(dns_lookup, "nameservers", lambda *_: [])
    publisher = Solver(config(resolver, provider="powerdns"), Store(Memory(), UNSEALED), threads)
    assert publisher._provider is not None
    monkeypatch.setattr(publisher._provider, "create", lambda *record: created.append(record))
    await publisher.present([Proof("dns-01", f"_acme-challenge.never.{ZONE}", "1")])
    assert created == [(f"_acme-challenge.never.{ZONE}", "1")] * 2
    assert "do not show the new TXT record yet" in caplog.text


async def test_standing_record_is_looked_for_before_the_ca_is_asked(
    resolver: Unbound, threads: ThreadPools, caplog: pytest.LogCaptureFixture
) -> None:
    """The line to publish is logged once, and in each failure; nothing is published or taken away."""
    caplog.set_level(logging.INFO)
    memory = Memory()
    publisher = Solver(config(resolver, challenge="dns-persist-01"), Store(memory, UNSEALED), threads)
    there = Proof(STANDING.type, "_validation-persist.yes.example.test", STANDING.value)
    missing = Proof(STANDING.type, "_validation-persist.no.example.test", STANDING.value)
    for _ in range(2):
        await publisher.present([there])
        with pytest.raises(ChallengeFailed, match=f'publish {missing.location}. TXT "{missing.value}"'):
            await publisher.present([missing])
        await publisher.clean_up(missing)
    assert caplog.text.count("dns-persist-01 needs this record") == 2
    assert memory.keys("") == []


async def test_where_nothing_can_be_looked_up_the_ca_decides(threads: ThreadPools) -> None:
    """A resolver that is silent is no reason not to ask."""
    silent = Config.from_options(
        {"acme_challenges": ("dns-persist-01",), "acme_dns_resolvers": (f"127.0.0.1:{free_port()}",)}
    )
    publisher = Solver(silent, Store(Memory(), UNSEALED), threads)
    assert publisher._resolver is not None
    publisher._resolver.lifetime = 0.2
    await publisher.present([STANDING])


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("ca.test; accounturi=https://ca.test/1", True),
        ("CA.test;accounturi=https://ca.test/1 ; policy=wildcard; persistUntil=2000", True),
        ("ca.test; accounturi=https://ca.test/1; persistUntil=1000", False),
        ("ca.test; accounturi=https://ca.test/1; persistUntil=soon", False),
        ("ca.test; accounturi=https://ca.test/2", False),
        ("other.test; accounturi=https://ca.test/1", False),
        ("ca.test", False),
        ("", False),
    ],
)
def test_record_permits_one_account_at_one_ca(text: str, yes: bool) -> None:
    """Until its end, and for a wildcard only with that policy."""
    assert permits(text, STANDING, 1_000.0) == yes
    wildcard = Proof(STANDING.type, STANDING.location, f"{STANDING.value}; policy=wildcard")
    assert permits(text, wildcard, 1_000.0) == (yes and "policy=wildcard" in text)


def with_provider(threads: ThreadPools, monkeypatch: pytest.MonkeyPatch) -> Solver:
    """Make one whose DNS is not asked."""
    options = {"acme_challenges": ("dns-01",), "acme_dns_provider": "powerdns"}
    made = Solver(Config.from_options(options), Store(Memory(), UNSEALED), threads)
    monkeypatch.setattr(made, "_canonical_name", lambda proof: proof.location)
    return made


async def test_record_that_cannot_be_deleted_ends_no_order(
    threads: ThreadPools, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The certificate matters more than a TXT record that is left behind; the log names it."""

    def fail(*_: str) -> None:
        raise IssuanceError("powerdns failed to delete it")

    made = with_provider(threads, monkeypatch)
    monkeypatch.setattr(made._provider, "delete", fail)
    await made.clean_up(Proof("dns-01", NAME, "1"))
    assert "a TXT record was not deleted: powerdns failed to delete it" in caplog.text


async def test_record_that_comes_late_is_looked_for_every_five_seconds(
    threads: ThreadPools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Often at first, since most come within a second; and in time for the CA, even after half a minute."""
    made, pauses, looks = with_provider(threads, monkeypatch), list[float](), [False] * 9 + [True]

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(dns_lookup, "is_visible", lambda *_: looks.pop(0))
    monkeypatch.setattr("asyncio.sleep", pause)
    assert await made._is_visible([], NAME, "1")
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


def test_machine_without_a_resolver_is_told(threads: ThreadPools, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to set, in place of a traceback."""

    def fail(servers: object) -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns_lookup, "resolver_at", fail)
    options = {"acme_challenges": ("dns-01",), "acme_dns_provider": "powerdns"}
    made = Solver(Config.from_options(options), Store(Memory(), UNSEALED), threads)
    with pytest.raises(IssuanceError, match="this machine has no DNS resolver; set acme_dns_resolvers: "):
        made._connected_resolver()


class Answers:
    """A resolver that raises what a test says."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def resolve(self, *_: object, **__: object) -> None:
        raise self._error

    canonical_name = resolve


_QUESTION = dns.message.make_query("a.test", "TXT")


@pytest.mark.parametrize(
    ("error", "details", "said"),
    [
        (dns.resolver.NXDOMAIN, {}, None),
        (dns.resolver.NoAnswer, {"response": _QUESTION}, None),
        (dns.resolver.NoNameservers, {}, "the DNS server fails (SERVFAIL)"),
        (dns.exception.Timeout, {}, "no DNS server answers in time"),
        (dns.exception.FormError, {}, "DNS gives no answer (FormError)"),
    ],
)
def test_dns_that_has_nothing_is_not_dns_that_fails(
    error: Callable[..., Exception], details: dict[str, Any], said: str | None
) -> None:
    """A missing record is an answer; a failure is none, and a record that was created is not taken for missing."""
    resolver: Any = Answers(error(**details))
    if said is None:
        assert dns_lookup.records(resolver, "a.test", "TXT") == []
    else:
        with pytest.raises(dns_lookup.NoAnswer) as caught:
            dns_lookup.records(resolver, "a.test", "TXT")
        assert str(caught.value) == said
        assert dns_lookup.nameservers(resolver, "a.test") == []
    assert dns_lookup.canonical_name(resolver, "a.test") == "a.test"
    assert not dns_lookup.is_visible(resolver, [], "a.test", "1")


def test_standing_record_may_have_spaces_anywhere() -> None:
    """As a person writes it."""
    assert permits(" ca.test ;  accounturi = https://ca.test/1 ; persistuntil = 2000 ", STANDING, 1_000.0)
    wildcard = Proof(STANDING.type, STANDING.location, f"{STANDING.value}; policy=wildcard")
    assert permits("ca.test;accounturi=https://ca.test/1;POLICY=Wildcard", wildcard, 1_000.0)
    assert not permits("ca.test;accounturi=https://ca.test/1;POLICY=none", wildcard, 1_000.0)
