"""Which names the entries of acme_domains mean, and which of those may have a certificate on demand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmproxy_acme.core.errors import ConfigError
from mitmproxy_acme.core.host_policy import HostPolicy
from mitmproxy_acme.core.names import ServerName, parse_server_name
from tests.costs import cpu_seconds


@pytest.mark.parametrize(
    ("entry", "allowed", "refused"),
    [
        ("a.example.com", ["a.example.com"], ["b.example.com", "x.a.example.com", "example.com"]),
        ("*.example.com", ["a.example.com"], ["example.com", "a.b.example.com", "aexample.com"]),
        ("**.example.com", ["a.example.com", "a.b.example.com"], ["example.com", "xexample.com"]),
        (
            r"re:[a-z]+\.example\.com",
            ["abc.example.com"],
            ["a1.example.com", "x.abc.example.com", "abc.example.com.evil"],
        ),
        ("Bücher.example", ["xn--bcher-kva.example"], ["bcher.example"]),
    ],
)
def test_policy_entry(entry: str, allowed: list[str], refused: list[str]) -> None:
    """Each form of ``acme_domains`` allows what it says, and nothing beside it."""
    policy = HostPolicy.parse((entry,))
    assert [name for name in allowed if not policy.allows(ServerName(name))] == []
    assert [name for name in refused if policy.allows(ServerName(name))] == []


@pytest.mark.parametrize(
    "label",
    [
        "xn--bcher-kva",
        "xn--fa-hia",  # faß, which IDNA 2003 had as fass
        "xn--3e0b707e",
        "xn--mgba3a4f16a",
        "xn--11b5bs3a9aj6g",
        "xn--i-7iq",  # i❤
        "xn--ls8h",  # one emoji
        "xn--1ug66vku9r",  # several that are joined to one
        "xn--vermgensberatung-pwb",
    ],
)
def test_internationalised_name_may_be_ordered(label: str) -> None:
    """Names that CAs issue for are allowed like any other: below a wildcard, by a pattern, and if any name is."""
    name = ServerName(f"{label}.example.com")
    assert HostPolicy.parse(("*.example.com",)).allows(name)
    assert HostPolicy.parse(("**.com",)).allows(name)
    assert HostPolicy.parse((r"re:[a-z0-9-]+\.example\.com",)).allows(name)
    assert HostPolicy.parse((), any_domain=True).allows(name)


@pytest.mark.parametrize(
    "label",
    [
        "xn--a",  # a control character
        "xn--0",
        "xn--abc",
        "xn--99999999",
        "xn--zzzzzzzzzzzzzzzzzz99999",
        "xn--" + "a" * 59,
        "xn--1ug",  # a joiner of nothing
    ],
)
@pytest.mark.parametrize("below", ["example.com", "xn--bcher-kva.example.com"])
def test_invalid_punycode_is_not_ordered(label: str, below: str) -> None:
    """CAs must not issue for a label that does not decode; if it is listed itself, the operator has decided."""
    name = ServerName(f"{label}.{below}")
    assert parse_server_name(name) == name
    for policy in (
        HostPolicy.parse((f"*.{below}",)),
        HostPolicy.parse(("**.com",)),
        HostPolicy.parse((r"re:.*\.com",)),
        HostPolicy.parse((), any_domain=True),
    ):
        assert not policy.allows(name)
        assert not policy.allows(ServerName(f"www.{name}"))
    assert HostPolicy.parse((name,)).allows(name)


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789-", max_size=59))
def test_any_label_can_be_looked_at(label: str) -> None:
    """Any text behind xn-- is allowed or not, and raises nothing."""
    name = ServerName(f"xn--{label}.example.com")
    assert HostPolicy.parse(("*.example.com",)).allows(name) in (True, False)
    assert cpu_seconds(lambda: HostPolicy(one_label=frozenset({"example.com"})).allows(name)) < 0.005


def test_any_domain_needs_a_dot() -> None:
    """``acme_allow_any_domain`` does not let a container's name be ordered; listing it does."""
    assert HostPolicy.parse((), any_domain=True).allows(ServerName("a.example"))
    assert not HostPolicy.parse((), any_domain=True).allows(ServerName("localhost"))
    assert HostPolicy.parse(("localhost",)).allows(ServerName("localhost"))


def test_policy_without_entries_is_false() -> None:
    """An addon without configuration allows nothing, and says so."""
    assert not HostPolicy.parse(())
    assert HostPolicy.parse(("a.test",))


def test_broken_pattern_is_a_config_error() -> None:
    """A regular expression that does not compile stops the start."""
    with pytest.raises(ConfigError, match=r"acme_domains.*regular expression"):
        HostPolicy.parse(("re:(",))


@pytest.mark.parametrize("entry", ["example.com", "*.example.com", "**.example.com", r"re:[a-z]+\.example\.com"])
def test_policy_with_any_entry_allows_something(entry: str) -> None:
    """Only one without entries is none: with it, no name at all is ordered on demand."""
    assert HostPolicy.parse((entry,))
    assert HostPolicy.parse((), any_domain=True)
    assert not HostPolicy.parse(())
