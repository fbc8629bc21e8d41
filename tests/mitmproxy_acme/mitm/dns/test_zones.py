"""What a DNS query is answered: only the decisions, without a message."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.challenge_domains import ChallengeDomain
from mitmproxy_acme.mitm.dns.zones import Reply, ResponseCode, TxtRecords, Zones

ZONE = "acme.example.test"
ACCOUNT = "_ujmmovf2vn55tgye"
LONG = ".".join(["a" * 59] * 4)


def zones(**options: Any) -> Zones:
    defaults = {
        "acme_challenges": ("dns-01",),
        "acme_dns_zone": ZONE,
        "acme_certificates": ("*.w.example.test", f"m.example.test,{LONG}"),
        "acme_domains": ("*.d.test",),
        "acme_dns_nameservers": ("ns.example.test",),
        "acme_tos_accepted": True,
    }
    return Zones(Config.from_options(defaults | options))


def ask(
    of: Zones, name: str, type: str = "TXT", published: Mapping[str, tuple[str, ...]] = MappingProxyType({})
) -> Reply | None:
    """Answer as the nameserver does; ``published`` has the values by host."""
    owner = of.locate(name)
    if owner is None:
        return None
    return of.reply(
        owner,
        type,
        TxtRecords({str(ChallengeDomain.for_name(host)): values for host, values in published.items()}, ZONE),
    )


@pytest.mark.parametrize(
    "name",
    [
        "example.test",
        "elsewhere.test",
        "_acme-challenge.elsewhere.test",
        "_acme-challenge.www.w.example.test",
        "x._acme-challenge.elsewhere.test",
        "xacme.example.test",
        "test",
        "",
    ],
)
def test_names_in_no_zone_of_ours_are_refused(name: str) -> None:
    """Also the challenge of a name that may have no certificate here."""
    assert zones().locate(name) is None


@pytest.mark.parametrize("host", ["w.example.test", "m.example.test", "a.d.test"])
def test_txt_records_are_at_the_alias_and_at_the_delegated_name(host: str) -> None:
    """The base of a managed wildcard, a managed name, and an on-demand one; all values at once."""
    for name, apex in ((f"{host}.{ZONE}", ZONE), (f"_acme-challenge.{host}", f"_acme-challenge.{host}")):
        assert ask(zones(), name, "TXT", {host: ("1", "2")}) == Reply(ResponseCode.NOERROR, apex, values=("1", "2"))
        nothing = ask(zones(), name)
        assert nothing == Reply(ResponseCode.NOERROR, apex)
        assert nothing.is_negative
        assert ask(zones(), name, "CAA", {host: ("1",)}) == Reply(ResponseCode.NOERROR, apex)


def test_account_has_a_name_of_its_own() -> None:
    """dns-account-01 shares no values with dns-01, or with another account."""
    name = f"{ACCOUNT}._acme-challenge.m.example.test"
    published, others = (
        TxtRecords({name: ("1",)}, ZONE),
        (f"_{'a' * 16}.m.example.test.{ZONE}", f"m.example.test.{ZONE}"),
    )
    for asked in (f"{ACCOUNT}.m.example.test.{ZONE}", name, *others, "_acme-challenge.m.example.test"):
        owner = zones().locate(asked)
        assert owner is not None
        assert zones().reply(owner, "TXT", published).values == (("1",) if ACCOUNT in asked else ())


@pytest.mark.parametrize("above", ["test", "example.test", "d.test"])
def test_name_above_an_alias_is_empty_and_exists(above: str) -> None:
    """NXDOMAIN for an empty non-terminal would deny the names below it as well (RFC 8020)."""
    assert ask(zones(), f"{above}.{ZONE}") == Reply(ResponseCode.NOERROR, ZONE)


@pytest.mark.parametrize(
    "part", ["foo", "elsewhere.test", "x.m.example.test", "a.b.d.test", "a_b", ACCOUNT, f"{ACCOUNT}.elsewhere.test"]
)
def test_name_that_does_not_exist_is_nxdomain(part: str) -> None:
    """Of the zone that it would be in."""
    assert ask(zones(), f"{part}.{ZONE}") == Reply(ResponseCode.NXDOMAIN, ZONE)


def test_zone_has_what_any_node_orders() -> None:
    """Nodes may allow different names; above a published record of another node's name no name is denied either."""
    published = {"www.elsewhere.test": ("1",)}
    assert ask(zones(), f"www.elsewhere.test.{ZONE}", "TXT", published) == Reply(
        ResponseCode.NOERROR, ZONE, values=("1",)
    )
    assert ask(zones(), f"elsewhere.test.{ZONE}", "A", published) == Reply(ResponseCode.NOERROR, ZONE)
    assert ask(zones(), f"elsewhere.test.{ZONE}", "A") == Reply(ResponseCode.NXDOMAIN, ZONE)


def test_name_of_the_zone_itself_can_have_a_certificate() -> None:
    """Its challenge is in the zone anyway: no alias is needed."""
    inside = zones(acme_certificates=(f"www.{ZONE}",))
    name, published = f"_acme-challenge.www.{ZONE}", {f"www.{ZONE}": ("1",)}
    assert ask(inside, name, "TXT", published) == Reply(ResponseCode.NOERROR, ZONE, values=("1",))
    assert ask(inside, name, "A") == Reply(ResponseCode.NOERROR, ZONE)


def test_below_a_delegated_name_there_is_nothing() -> None:
    """NXDOMAIN of the zone that begins there."""
    apex = "_acme-challenge.m.example.test"
    assert ask(zones(), f"x.y.{apex}") == Reply(ResponseCode.NXDOMAIN, apex)


@pytest.mark.parametrize("open_policy", [{"acme_allow_any_domain": True}, {"acme_domains": ("re:.*\\.deep\\.test",)}])
def test_with_an_open_policy_no_name_is_denied(open_policy: dict[str, Any]) -> None:
    """If a policy does not list the names that it allows, every host name exists in the zone."""
    assert ask(zones(**open_policy), f"deep.test.{ZONE}") == Reply(ResponseCode.NOERROR, ZONE)
    assert ask(zones(**open_policy), f"a_b.{ZONE}") == Reply(ResponseCode.NXDOMAIN, ZONE)


@pytest.mark.parametrize("apex", [ZONE, "_acme-challenge.m.example.test"])
def test_apex_has_soa_and_nameservers(apex: str) -> None:
    """And no other records; ANY returns both (RFC 8482 allows less)."""
    nameservers = ("ns.example.test",)
    assert ask(zones(), apex, "SOA") == Reply(ResponseCode.NOERROR, apex, soa=True)
    assert ask(zones(), apex, "NS") == Reply(ResponseCode.NOERROR, apex, nameservers=nameservers)
    assert ask(zones(), apex, "ANY") == Reply(ResponseCode.NOERROR, apex, nameservers=nameservers, soa=True)
    assert ask(zones(), apex, "A") == Reply(ResponseCode.NOERROR, apex)
    assert ask(zones(acme_dns_nameservers=()), apex, "NS") == Reply(ResponseCode.NOERROR, apex)
    assert ask(zones(), f"m.example.test.{ZONE}", "NS") == Reply(ResponseCode.NOERROR, ZONE)


def test_alias_of_a_long_name_is_found_by_its_digest() -> None:
    """It exists while a value is published at it."""
    alias = ChallengeDomain.for_name(LONG).alias(ZONE)
    assert ask(zones(), alias, "TXT", {LONG: ("1",)}) == Reply(ResponseCode.NOERROR, ZONE, values=("1",))
    assert ask(zones(), alias, "TXT", {"m.example.test": ("1",)}) == Reply(ResponseCode.NXDOMAIN, ZONE)


def test_without_a_zone_only_delegated_names_are_answered() -> None:
    """A challenge may be delegated by its name, which needs no option."""
    assert zones(acme_dns_zone="").locate(ZONE) is None
    assert ask(zones(acme_dns_zone=""), "_acme-challenge.m.example.test") is not None
