"""A CA's capabilities, and the messages for what it cannot issue."""

from typing import Any

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.ca.capabilities import Capabilities, Order, require_profile
from mitmproxy_acme.ca.client import Client
from mitmproxy_acme.ca.issuer import Issuer
from mitmproxy_acme.ca.issuers import issuers_of
from mitmproxy_acme.ca.known_cas import ALIASES, require_issuable, resolve, resolve_all
from mitmproxy_acme.config.ca_settings import CaSettings
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.errors import ConfigError, NotOffered, SettingsRefused
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.thread_pools import ThreadPools
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.fakes import UNSEALED

ADDRESS, PRIVATE, NAME, WILDCARD = "8.8.8.8", "fd00::1", "a.test", "*.a.test"


def order(*names: str, key_type: str = "ecdsa-p256", **settings: Any) -> Order:
    defaults = {"profile": "", "challenges": ("http-01",)}
    return Order("ca", Subject(tuple(map(ServerName, names)), key_type=key_type), **defaults | settings)


@pytest.mark.parametrize(
    ("capabilities", "wanted", "said"),
    [
        (
            Capabilities(ip=False),
            order(NAME, ADDRESS),
            "ca issues no certificates for addresses, and 8.8.8.8 is one; add",
        ),
        (
            Capabilities(public=True),
            order(PRIVATE),
            "fd00::1 is not a public address, and ca issues for public ones only",
        ),
        (Capabilities(public=True), order("192.0.2.1"), "192.0.2.1 is not a public address"),
        (Capabilities(wildcard=False), order(NAME, WILDCARD), "ca issues no wildcards, and *.a.test is one; add"),
        (
            Capabilities(profiles=("one", "two")),
            order(NAME, profile="three"),
            "ca offers no profile 'three'; it offers one, two",
        ),
        (
            Capabilities(key_types=("rsa-2048",)),
            order(NAME),
            "ca does not accept keys of acme_key_type ecdsa-p256; it accepts rsa",
        ),
        (
            Capabilities(),
            order(ADDRESS, challenges=("dns-01",)),
            "8.8.8.8 is an address, which DNS challenges cannot validate, and acme_challenges has only dns-01; add",
        ),
    ],
)
def test_what_a_ca_cannot_is_refused(capabilities: Capabilities, wanted: Order, said: str) -> None:
    """One sentence says what is missing, and what would be right."""
    of_no_name = "profile" in said or "key_type" in said
    with pytest.raises(SettingsRefused if of_no_name else NotOffered) as refused:
        capabilities.require(wanted)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("capabilities", "wanted"),
    [
        (Capabilities(), order(PRIVATE, WILDCARD, profile="any", key_type="rsa-4096")),
        (Capabilities(public=True), order(ADDRESS, "2001:4860:4860::8888")),
        (Capabilities(ip=False, public=True), order(NAME, WILDCARD)),
        (Capabilities(wildcard=False), order(NAME, ADDRESS)),
        (Capabilities(profiles=("one",)), order(NAME)),
        (Capabilities(), order(NAME, challenges=("dns-01",))),
        (Capabilities(), order(ADDRESS, challenges=("dns-01", "tls-alpn-01"))),
    ],
)
def test_what_nobody_knows_counts_as_possible(capabilities: Capabilities, wanted: Order) -> None:
    """The CA will say; and what is not requested cannot be missing."""
    capabilities.require(wanted)


def test_profile_of_an_address_is_the_one_that_the_ca_demands() -> None:
    """It overrides the one of the options, for that certificate only."""
    demanding = Capabilities(ip_profile="short")
    assert demanding.profile(order(NAME, ADDRESS).subject, "wished") == "short"
    assert demanding.profile(order(NAME).subject, "wished") == "wished"
    assert Capabilities().profile(order(ADDRESS).subject, "wished") == "wished"


def test_profile_of_an_address_that_is_missing_is_no_fault_of_names() -> None:
    """They may have another, so the CA is asked for them on."""
    with pytest.raises(NotOffered):
        require_profile(order(NAME, ADDRESS, profile="short"), ("long",))
    with pytest.raises(SettingsRefused):
        require_profile(order(NAME, profile="short"), ("long",))


def test_profile_where_the_directory_lists_none() -> None:
    """Then the CA knows none, and pays no heed to one."""
    require_profile(order(NAME, profile="any"), ())


def test_what_the_aliases_can() -> None:
    """Let's Encrypt demands its short-lived profile for addresses; ZeroSSL and SSL.com have none by ACME."""
    assert {ca for ca, known in ALIASES.items() if not known.capabilities.ip} == {"zerossl", "sslcom"}
    assert {ca: known.capabilities.ip_profile for ca, known in ALIASES.items() if known.capabilities.ip_profile} == {
        "letsencrypt": "shortlived",
        "letsencrypt-staging": "shortlived",
    }
    assert {ca for ca, known in ALIASES.items() if not known.capabilities.wildcard} == {"actalis"}
    assert all(known.capabilities.public for known in ALIASES.values())


def test_url_goes_over_what_is_known() -> None:
    """By the URL of its directory a CA is asked for anything; the profile for addresses stays known."""
    own = resolve(CaSettings("https://ca.test/dir")).capabilities
    assert own == Capabilities()
    for alias in ("letsencrypt", "zerossl"):
        by_url = resolve(CaSettings(ALIASES[alias].directory)).capabilities
        assert by_url == Capabilities(ip_profile=ALIASES[alias].capabilities.ip_profile)


def _require_able(*managed: str, **options: Any) -> None:
    binding = {"acme_eab_kid": "kid", "acme_eab_hmac_key": "key", "acme_tos_accepted": True}
    config = Config.from_options(binding | {"acme_certificates": managed} | options)
    require_issuable(config, resolve_all(config.issuers))


@pytest.mark.parametrize(
    ("managed", "options", "said"),
    [
        (
            ADDRESS,
            {"acme_ca": ("zerossl",)},
            "no configured CA issues a certificate for 8.8.8.8: zerossl issues no certificates for addresses",
        ),
        (
            PRIVATE,
            {},
            "no configured CA issues a certificate for fd00::1: fd00::1 is not a public address, and letsencrypt",
        ),
        (
            f"{NAME},{ADDRESS}",
            {"acme_ca": ("sslcom", "zerossl;eab_kid=k;eab_hmac_key=k")},
            "no configured CA issues a certificate for a.test (+1): sslcom issues no certificates for addresses, and "
            "8.8.8.8 is one; add a CA to acme_ca that does; zerossl issues",
        ),
        (
            NAME,
            {"acme_profile": "shortlive"},
            "letsencrypt offers no profile 'shortlive'; it offers classic, tlsserver",
        ),
    ],
)
def test_managed_certificate_of_no_ca_ends_the_start(managed: str, options: dict[str, Any], said: str) -> None:
    """The message has each CA's reason."""
    with pytest.raises(ConfigError) as wrong:
        _require_able(managed, **options)
    assert str(wrong.value).startswith("acme_certificates: ")
    assert said in str(wrong.value)


def test_one_ca_that_can_is_enough() -> None:
    """The others are for the other certificates."""
    _require_able(ADDRESS, NAME, acme_ca=("zerossl", "letsencrypt"))
    _require_able(PRIVATE, acme_ca=("letsencrypt", "https://ca.test/dir"))


def _issuers(memory: Memory, **options: Any) -> tuple[Issuer, ...]:
    config = Config.from_options({"acme_tos_accepted": True} | options)
    return issuers_of(config, Store(memory, UNSEALED), ThreadPools())


@pytest.mark.parametrize(
    ("ca", "options", "name"),
    [
        ("letsencrypt", {}, PRIVATE),
        ("letsencrypt", {}, "192.168.0.1"),
        ("letsencrypt;profile=other", {}, NAME),
        ("zerossl;eab_kid=k;eab_hmac_key=k", {}, ADDRESS),
        ("https://ca.test/dir", {"acme_challenges": ("dns-01",)}, ADDRESS),
    ],
)
async def test_ca_is_asked_nothing_that_it_does_not_issue(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, ca: str, options: dict[str, Any], name: str
) -> None:
    """Not even for its directory."""

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the CA was asked")

    monkeypatch.setattr(Client, "connect", forbidden)
    (issuer,) = _issuers(memory, acme_ca=(ca,), **options)
    with pytest.raises((NotOffered, SettingsRefused)):
        await issuer.ready(Subject((ServerName(name),)))


def test_start_ends_where_no_ca_can(memory: Memory) -> None:
    """On a node that orders; a data node knows nothing of its control node's CAs."""
    with pytest.raises(ConfigError, match="no configured CA issues a certificate for"):
        _issuers(memory, acme_certificates=(PRIVATE,))
    _issuers(memory, acme_certificates=(PRIVATE,), acme_role="data")
