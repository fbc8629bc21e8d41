"""Challenge domains: the DNS names at which a CA looks, and their aliases in our zone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmproxy_acme.core.challenge_domains import ChallengeDomain, is_digest, parse_zone
from mitmproxy_acme.core.errors import ConfigError

ZONE = "acme.example.com"
ACCOUNT = "_ujmmovf2vn55tgye"
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
HOSTS = st.lists(LABELS, min_size=1, max_size=12).map(".".join).filter(lambda host: not host.split(".")[-1].isdigit())


def test_place_of_a_wildcard_is_that_of_its_base() -> None:
    """RFC 8555 section 8.4; with the account's label in front for dns-account-01."""
    assert (
        str(ChallengeDomain.for_name("*.example.com"))
        == str(ChallengeDomain.for_name("example.com"))
        == "_acme-challenge.example.com"
    )
    assert str(ChallengeDomain.for_name("example.com", ACCOUNT)) == f"{ACCOUNT}._acme-challenge.example.com"


@pytest.mark.parametrize(
    "name",
    [
        "example.com",
        "_acme-challenge",
        "x_acme-challenge.example.com",
        "foo._acme-challenge.example.com",
        "_acme-challenge._acme-challenge.example.com",
        "_acme-challenge.a_b.example.com",
        f"{ACCOUNT}.{ACCOUNT}._acme-challenge.example.com",
        "._acme-challenge.example.com",
        "_acme-challenge.",
        "",
    ],
)
def test_other_names_are_no_place(name: str) -> None:
    """Only the two labels that the challenges have, before a host name."""
    assert ChallengeDomain.parse(name) is None


@pytest.mark.parametrize(
    ("name", "above"),
    [
        ("x.y._acme-challenge.example.com", "_acme-challenge.example.com"),
        (f"x.{ACCOUNT}._acme-challenge.example.com", f"{ACCOUNT}._acme-challenge.example.com"),
        (f"{ACCOUNT}.x._acme-challenge.example.com", "_acme-challenge.example.com"),
        ("_acme-challenge._acme-challenge.example.com", "_acme-challenge.example.com"),
        ("x._acme-challenge.a_b.example.com", None),
        ("www.example.com", None),
    ],
)
def test_nearest_place_above_a_name(name: str, above: str | None) -> None:
    """It is the account's domain if there is one."""
    assert ChallengeDomain.parse_above(name) == (ChallengeDomain.parse(above) if above else None)


@given(host=HOSTS, account=st.sampled_from(["", ACCOUNT]))
def test_alias_stands_for_one_place(host: str, account: str) -> None:
    """It fits DNS, leads back where it can be read, and is no digest where it can."""
    place = ChallengeDomain.for_name(host, account)
    assert ChallengeDomain.parse(str(place)) == place
    alias = place.alias(ZONE)
    part = alias.removesuffix(f".{ZONE}")
    assert len(alias) <= 253
    assert all(0 < len(label) <= 63 for label in alias.split("."))
    assert is_digest(part) or ChallengeDomain.parse_alias(part) == place


def test_alias_reads_well_and_a_long_one_fits() -> None:
    """The name itself and the zone; beyond 253 characters a digest that differs by account."""
    assert ChallengeDomain.for_name("www.example.com").alias(ZONE) == "www.example.com.acme.example.com"
    assert ChallengeDomain.for_name("*.example.com", ACCOUNT).alias(ZONE) == f"{ACCOUNT}.example.com.acme.example.com"
    long = ".".join(["a" * 60] * 4)
    digests = {ChallengeDomain.for_name(long).alias(ZONE), ChallengeDomain.for_name(long, ACCOUNT).alias(ZONE)}
    assert len(digests) == 2
    assert all(is_digest(digest.removesuffix(f".{ZONE}")) for digest in digests)


def test_zone_that_leaves_no_room_is_refused() -> None:
    """The message says what would be right, also for an invalid name."""
    assert parse_zone("ACME.example.com.") == ZONE
    assert parse_zone("") == ""
    with pytest.raises(ConfigError, match=r"acme_dns_zone: .* has 239 characters"):
        parse_zone(".".join(["a" * 59] * 4))
    with pytest.raises(ConfigError, match="acme_dns_zone: 'a b' is not a host name"):
        parse_zone("a b")
