"""Storage keys: what they contain can be read back, and every storage accepts them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_storage.checks import is_key
from mitmproxy_acme.core.names import ServerName, parse_address
from mitmproxy_acme.core.rate_limits import domain_scopes, identifier_scope, identifiers_scope
from mitmproxy_acme.store import keys

_DIRECTORY = "https://[2001:db8::2]:14000/dir"
_NAMES = ["a.test", "*.a.test", "192.0.2.1", "::1", "2001:db8::1", "1:2:3:4:5:6:7:8"]
names = pytest.mark.parametrize("name", list(map(ServerName, _NAMES)))


@names
def test_name_stands_in_every_key(name: ServerName) -> None:
    """A DNS name, a wildcard, or an address of either kind."""
    scopes = (identifier_scope(name), identifiers_scope((name,)), *domain_scopes((name,)))
    every = (
        keys.certificate_key(name),
        keys.lease_key(name),
        keys.calendar_key(7, name),
        keys.change_key(1.0, 2, "node", name),
        keys.request_key(name),
        keys.refusal_key(name),
        keys.renewal_info_key(name),
        keys.backoff_key(name),
        keys.backoff_key(keys.name_scope(name, _DIRECTORY)),
        *(keys.budget_key(_DIRECTORY, scope.kind, scope.mark) for scope in scopes),
    )
    assert [key for key in every if not is_key(key)] == []
    assert len(set(every)) == len(every)


@names
def test_name_is_read_back(name: ServerName) -> None:
    """In the calendar, in an announcement, and in the scope of a backoff."""
    assert keys.parse_minute_key(keys.calendar_key(61, name)) == (61, name)
    assert keys.parse_change_key(keys.change_key(1.0, 2, "node", name)) == ("node", name)
    assert keys.name_in_scope(name) == name
    assert keys.name_in_scope(keys.name_scope(name, _DIRECTORY)) == name


@given(st.ip_addresses())
def test_address_comes_back_from_its_key(address: object) -> None:
    """Any that may have a certificate."""
    name = parse_address(str(address))
    if name is not None:
        key = keys.certificate_key(name)
        assert is_key(key)
        assert parse_address(key.removeprefix(keys.CERTIFICATES_PREFIX)) == name


def test_event_is_read_back() -> None:
    """And the later one sorts first."""
    earlier, later = keys.EventId(1_800_000_000_123, 7, "0a1b2c3d"), keys.EventId(1_800_000_000_124, 0, "0a1b2c3d")
    assert keys.parse_event_key(keys.event_key(earlier)) == earlier
    assert is_key(keys.event_key(earlier))
    assert keys.event_key(later) < keys.events_after(1_800_000_000.1235) < keys.event_key(earlier)
    assert str(earlier) == "1800000000123.7~0a1b2c3d"


@pytest.mark.parametrize("key", ["events/1", "events/8199999999876.x~a", "events/8199999999876.1~a/b", "events/"])
def test_foreign_event_key_is_refused(key: str) -> None:
    """Whichever node wrote it."""
    with pytest.raises(ValueError, match="events/"):
        keys.parse_event_key(key)


def test_ca_is_no_name() -> None:
    """Its scope is recognised, by the directory and by its key part."""
    for scope in (_DIRECTORY, keys.key_part(_DIRECTORY), keys.key_part("https://ca.test/dir")):
        assert keys.name_in_scope(scope) is None
        assert is_key(keys.backoff_key(scope))


def test_part_of_a_url_stays_what_it_is() -> None:
    """Accounts, limits and backoffs are stored under it: of another release too."""
    assert keys.key_part("https://ca.test/directory") == "ca.test~b37908d4ca9f0ca8"
    assert keys.key_part("a.test") == "a.test"
