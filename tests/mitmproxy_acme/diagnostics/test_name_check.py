"""Findings about a name if the options have several CAs."""

from pathlib import Path
from typing import Any

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.ca.dns_lookup import NoAnswer
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.names import ServerName, tls_alpn_server_name
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.diagnostics import name_check, ports, tls_alpn_check
from mitmproxy_acme.diagnostics.ca_check import Ca
from mitmproxy_acme.diagnostics.finding import Finding, Severity, passed
from mitmproxy_acme.diagnostics.name_check import _caa
from mitmproxy_acme.diagnostics.preflight import inspect
from mitmproxy_acme.diagnostics.resolver import Caa, Resolver
from mitmproxy_acme.diagnostics.storage_check import Stored
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.diagnostics.test_ports import OURS, answering
from tests.mitmproxy_acme.fakes import UNSEALED
from tests.servers.base import free_port, has_ipv6

_NAME = ServerName("a.test")
_CAS = ("https://one.test/dir", "https://two.test/dir")


class Records:
    """DNS with one record, that lets ``issuer`` issue."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer

    def caa(self, name: str) -> list[Caa]:
        return [Caa(critical=False, tag="issue", value=self._issuer)]


def looked_at(issuer: str, *, identified: int = 2) -> Finding:
    """Return the findings for a CAA record for ``issuer``, if so many of the two CAs have known identities."""
    config = Config.from_options({"acme_ca": _CAS})
    cas = [Ca(config, entry) for entry in config.issuers]
    for ca, identity in list(zip(cas, ("one.test", "two.test"), strict=True))[:identified]:
        ca.directory, ca.identities = ca.name, (identity,)
    resolver: Any = Records(issuer)
    accounts = {_CAS[0]: "https://one.test/1", _CAS[1]: "https://two.test/1"}
    (finding,) = _caa(config, resolver, _NAME, cas, accounts)
    return finding


@pytest.mark.parametrize(
    ("issuer", "outcome", "said"),
    [
        ("two.test", Severity.WARN, "lets https://two.test/dir issue, and not https://one.test/dir"),
        ("one.test; accounturi=https://one.test/1", Severity.WARN, "and not https://two.test/dir"),
        ("three.test", Severity.FAIL, 'only three.test may issue; add: a.test CAA 0 issue "one.test"'),
    ],
)
def test_caa_of_several_cas(issuer: str, outcome: Severity, said: str) -> None:
    """It fails only if none of them may issue; else the finding names those that may, each by its own account."""
    finding = looked_at(issuer)
    assert (finding.outcome, said in finding.what) == (outcome, True)


def test_ca_that_does_not_say_its_name_is_left_out() -> None:
    """As long as another does; if none does, nothing can be decided."""
    assert looked_at("one.test", identified=1).outcome is Severity.PASS
    assert "is not known; compare them" in looked_at("one.test", identified=0).what


def test_same_ca_twice_is_found_before_anything_is_looked_at(tmp_path: Path) -> None:
    """It is a mistake in an option."""
    options = {"acme_ca": ("letsencrypt", "letsencrypt"), "acme_domains": ("a.test",), "acme_tos_accepted": True}
    findings = list(inspect(options, tmp_path))
    assert [finding.outcome for finding in findings] == [Severity.FAIL]
    assert "are the same CA; keep one" in findings[0].what


@pytest.mark.parametrize(("address", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_address_is_looked_at_without_dns(tmp_path: Path, address: str, shown: str) -> None:
    """Its ports are, as a name's are; there is nothing to resolve, and no CAA record."""
    config = Config.from_options({"acme_certificates": (address,), "acme_ca": _CAS, "acme_tos_accepted": True})
    cas = [Ca(config, entry) for entry in config.issuers]
    for ca in cas:
        ca.identities = ("one.test",)
    stored, closed = Stored(config, tmp_path), (free_port(), free_port())
    stored.store = Store(Memory(), UNSEALED)
    resolver: Any = None  # which fails for every question
    found = [finding.what for finding in name_check.inspect(config, resolver, stored, cas, closed)]
    said = "refuses connections so far; start the proxy and check again"
    if address == "::1" and not has_ipv6():
        said = "cannot be tried from here: there is no route to it; CAs prefer IPv6 if it exists"
    assert found == [f"{address}: {shown}:{port} {said}" for port in closed]


def test_proxy_is_not_blamed_for_a_storage_that_does_not_work(tmp_path: Path) -> None:
    """It cannot have what could not be written."""
    config = Config.from_options({"acme_certificates": ("127.0.0.1",), "acme_ca": _CAS, "acme_tos_accepted": True})
    with answering(OURS) as port:
        at = (port, free_port())
        found = list(name_check.inspect(config, Resolver(None), Stored(config, tmp_path), [], at))
    assert "is answered by a proxy with this addon; it is not known whether it has this storage" in found[0].what


def test_managed_address_that_no_ca_has(tmp_path: Path) -> None:
    """It is reported like any wrong option."""
    settings = {"acme_certificates": ("10.0.0.1",), "acme_tos_accepted": True}
    (finding,) = inspect(settings, tmp_path)
    assert (finding.outcome, "10.0.0.1 is not a public address" in finding.what) == (Severity.FAIL, True)


class Addresses:
    """DNS that has these addresses of every name, and no CAA record; without any it does not answer."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    def addresses(self, name: str) -> list[str]:
        if not self._addresses:
            raise NoAnswer("SERVFAIL")
        return [address for address in self._addresses if address]

    def caa(self, name: str) -> list[Caa]:
        return []


def about(resolver: Addresses, at: tuple[int, int] | None, stored: Store | None, **options: Any) -> list[Finding]:
    """Return the findings about one name."""
    defaults = {"acme_certificates": ("a.test",), "acme_ca": ("letsencrypt",), "acme_tos_accepted": True}
    config = Config.from_options(defaults | options)
    kept = Stored(config, Path("/none"))
    kept.store = stored
    asked: Any = resolver
    return list(name_check.inspect(config, asked, kept, [], at))


@pytest.mark.parametrize(
    ("addresses", "outcome", "said"),
    [
        ((), Severity.FAIL, "SERVFAIL; the CA will not find it either"),
        (("",), Severity.FAIL, "a.test has no address in DNS; add an A record"),
        (("10.0.0.1", "8.8.8.8"), Severity.WARN, "a.test is 10.0.0.1, which letsencrypt cannot reach"),
        (("8.8.8.8", "2001:4860:4860::8888"), Severity.PASS, "a.test is 8.8.8.8, 2001:4860:4860::8888"),
    ],
)
def test_addresses_of_a_name(addresses: tuple[str, ...], outcome: Severity, said: str) -> None:
    """Without ports to look at, this is all that is said."""
    (finding,) = about(Addresses(*addresses), None, None)
    assert (finding.outcome, said in finding.what) == (outcome, True), finding.what


@pytest.mark.parametrize(
    ("challenges", "expected"),
    [
        (("http-01",), ["http", "https", "http", "https"]),
        (("http-01", "tls-alpn-01"), ["http", "http", "tls-alpn", "tls-alpn"]),
        (("dns-01",), ["https", "https"]),
    ],
)
def test_ports_are_looked_at_as_the_challenges_need(
    challenges: tuple[str, ...], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each address; a proof of tls-alpn-01 is stored while it is looked for, and then it is gone."""
    memory, looked = Memory(), list[str]()
    store = Store(memory, UNSEALED)

    def look(kind: str, *proof: str) -> Finding:
        looked.append(kind)
        proofs = memory.keys("challenges/tls-alpn-01/")
        assert [memory.get(key) for key in proofs] == [digest.encode() for digest in proof]
        return passed(kind)

    monkeypatch.setattr(ports, "check_http", lambda *_, **__: look("http"))
    monkeypatch.setattr(ports, "check_https", lambda *_, **__: look("https"))
    monkeypatch.setattr(tls_alpn_check, "check", lambda name, address, port, digest, *, up: look("tls-alpn", digest))

    about(Addresses("192.0.2.1", "192.0.2.2"), (80, 443), store, acme_challenges=challenges, acme_ca=_CAS)

    assert looked == expected
    assert memory.keys("challenges/") == []


def test_proof_of_an_order_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order goes on; the look is without a proof of its own."""
    store, digests = Store(Memory(), UNSEALED), list[str]()
    order = Proof("tls-alpn-01", tls_alpn_server_name(_NAME), "0" * 64)
    assert store.put_test_proof(order)
    monkeypatch.setattr(tls_alpn_check, "check", lambda name, address, port, digest, *, up: digests.append(digest))

    about(Addresses("192.0.2.1"), (80, 443), store, acme_challenges=("tls-alpn-01",), acme_ca=_CAS)

    assert digests == [""]
    assert store.storage.keys("challenges/") != []
