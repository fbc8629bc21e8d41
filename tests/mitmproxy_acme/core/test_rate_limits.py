"""The arithmetic of token buckets, and what each of them counts for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_storage.checks import check_key
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.rate_limits import (
    Limit,
    LimitKind,
    account_scope,
    domain_scopes,
    identifier_scope,
    identifiers_scope,
    registered_domain,
)
from tests.mitmproxy_acme.fakes import EPOCH

FIVE = Limit(5, 3_600.0)
FULL = 0.0


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("300/3h", Limit(300, 10_800)),
        ("50/7d", Limit(50, 604_800)),
        ("1/90s", Limit(1, 90)),
        (" 5/1h ", Limit(5, 3_600)),
        ("2/1w", Limit(2, 604_800)),
    ],
)
def test_limit_is_written_as_how_many_in_how_long(text: str, limit: Limit) -> None:
    """The way CAs publish them."""
    assert Limit.parse(text) == limit


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "5/",
        "/3h",
        "0/3h",
        "-1/3h",
        "05/3h",
        "1.5/3h",
        "5/3",
        "5/0h",
        "5/3y",
        "5/3h/3h",
        "\u0665/3h",
        "off",
        "11/1s",
    ],
)
def test_what_is_no_limit_is_refused(text: str) -> None:
    """With one sentence that says what would be right."""
    with pytest.raises(ValueError, match=r"; write (a number and a duration|a number and one of|less)"):
        Limit.parse(text)


def test_bucket_empties_and_refills_one_by_one() -> None:
    """All tokens at once, then one in each fifth of the period until it is full, and never more."""
    full_at, lefts = FULL, []
    for _ in range(5):
        full_at = FIVE.spend(full_at, EPOCH)
        lefts.append(FIVE.remaining(full_at, EPOCH))
    assert lefts == [4, 3, 2, 1, 0]
    assert FIVE.next_at(full_at, EPOCH) == EPOCH + 720
    assert [FIVE.remaining(full_at, EPOCH + at) for at in (719, 720, 1_439, 1_440, 3_599, 3_600, 9_999)] == [
        *(0, 1, 1, 2, 4, 5),
        5,
    ]
    assert FIVE.next_at(full_at, EPOCH + 1_000) == EPOCH + 1_000


def test_empty_bucket_stays_empty() -> None:
    """Orders beyond the limit are not owed later."""
    empty = EPOCH + FIVE.period
    assert FIVE.spend(empty, EPOCH) == empty


def test_clock_that_was_ahead_closes_no_bucket() -> None:
    """By seconds it empties one; what was counted by more is forgotten, and counted anew."""
    assert FIVE.remaining(EPOCH + FIVE.period + 30, EPOCH) == 0
    far = EPOCH + FIVE.period + 90
    assert FIVE.remaining(far, EPOCH) == FIVE.capacity
    assert FIVE.next_at(far, EPOCH) == EPOCH
    assert FIVE.spend(far, EPOCH) == EPOCH + FIVE.interval


@given(capacity=st.integers(1, 5_000), interval=st.floats(0.1, 1e6), spent=st.integers(1, 200))
def test_token_is_there_at_the_moment_that_is_announced(capacity: int, interval: float, spent: int) -> None:
    """Whatever floats do: who waits until ``next_at`` is not sent away again, and who comes earlier is."""
    limit, full_at = Limit(capacity, capacity * interval), FULL
    for _ in range(min(spent, capacity)):
        full_at = limit.spend(full_at, EPOCH)
    assert limit.remaining(full_at, EPOCH) == capacity - min(spent, capacity)
    full_at = EPOCH + limit.period
    assert limit.remaining(full_at, limit.next_at(full_at, EPOCH)) == 1
    assert limit.remaining(full_at, EPOCH + 0.9 * limit.interval) == 0


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("example.com", "example.com"),
        ("a.b.example.com", "example.com"),
        ("*.b.example.com", "example.com"),
        ("new.blog.example.co.uk", "example.co.uk"),
        ("co.uk", "co.uk"),
        ("a.b.github.io", "b.github.io"),
        ("www.city.kawasaki.jp", "city.kawasaki.jp"),
        ("www.example.xn--p1ai", "example.xn--p1ai"),
        ("a.example.test", "example.test"),
        ("localhost", "localhost"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::7", "2001:db8:1:2::/64"),
    ],
)
def test_registered_domain_is_one_label_more_than_the_public_suffix(name: str, domain: str) -> None:
    """By the list that the library carries; what has none is its own."""
    assert registered_domain(ServerName(name)) == domain


def names(text: str) -> tuple[ServerName, ...]:
    return tuple(ServerName(name) for name in text.split())


def test_domains_count_once_each() -> None:
    """A certificate with many names under one domain is one certificate there (Let's Encrypt counts so)."""
    found = domain_scopes(names("a.example.com example.com b.example.org *.example.org"))
    assert [scope.name for scope in found] == ["example.com", "example.org"]


def test_set_of_identifiers_has_no_order() -> None:
    """The same names are the same set, in any order and however often; one name more is another."""
    one = identifiers_scope(names("a.test b.test"))
    assert one.mark == identifiers_scope(names("b.test a.test b.test")).mark
    assert one.mark != identifiers_scope(names("a.test b.test c.test")).mark
    assert one.name == "a.test (+1)"
    assert identifiers_scope(names("a.test")).name == "a.test"


def test_wildcard_is_validated_as_the_name_below_it() -> None:
    """So its failures are that name's."""
    assert identifier_scope(ServerName("*.a.test")) == identifier_scope(ServerName("a.test"))


@pytest.mark.parametrize("name", ["a.test", "*.a.test", "2001:db8::1", "192.0.2.7", ".".join(["a" * 61] * 4)])
def test_mark_may_stand_in_a_storage_key(name: str) -> None:
    """Whatever the name is, wildcards and addresses too, and each mark is one part of the key."""
    whom = (ServerName(name),)
    for scope in (account_scope(), *domain_scopes(whom), identifiers_scope(whom), identifier_scope(whom[0])):
        check_key(f"budgets/ca/{scope.kind}/{scope.mark}")
        assert "/" not in scope.mark
        assert len(scope.mark) <= 255
    assert account_scope().kind is LimitKind.ORDERS
