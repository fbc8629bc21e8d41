"""Keys: what stands in them comes out again, and all of them are such as every storage takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_storage.checks import is_key
from mitmproxy_acme.keeping import places
from mitmproxy_acme.limits import domain_scopes, identifier_scope, identifiers_scope
from mitmproxy_acme.names import ServerName, parse_address

_DIRECTORY = "https://[2001:db8::2]:14000/dir"
_NAMES = ["a.test", "*.a.test", "192.0.2.1", "::1", "2001:db8::1", "1:2:3:4:5:6:7:8"]
names = pytest.mark.parametrize("name", list(map(ServerName, _NAMES)))


@names
def test_name_stands_in_every_key(name: ServerName) -> None:
    """A DNS name, a wildcard, or an address of either kind."""
    scopes = (identifier_scope(name), identifiers_scope((name,)), *domain_scopes((name,)))
    keys = (
        places.certificate_key(name),
        places.lease_key(name),
        places.calendar_key(7, name),
        places.change_key(1.0, 2, "node", name),
        places.request_key(name),
        places.refusal_key(name),
        places.renewal_info_key(name),
        places.backoff_key(name),
        places.backoff_key(places.name_at(name, _DIRECTORY)),
        *(places.budget_key(_DIRECTORY, scope.kind, scope.mark) for scope in scopes),
    )
    assert [key for key in keys if not is_key(key)] == []
    assert len(set(keys)) == len(keys)


@names
def test_name_is_read_back(name: ServerName) -> None:
    """Of the calendar, of an announcement, and of the scope of a backoff."""
    assert places.listed(places.calendar_key(61, name)) == (61, name)
    assert places.changed(places.change_key(1.0, 2, "node", name)) == ("node", name)
    assert places.named(name) == name
    assert places.named(places.name_at(name, _DIRECTORY)) == name


@given(st.ip_addresses())
def test_address_comes_back_from_its_key(address: object) -> None:
    """Any that may have a certificate."""
    name = parse_address(str(address))
    if name is not None:
        key = places.certificate_key(name)
        assert is_key(key)
        assert parse_address(key.removeprefix(places.certificate_prefix())) == name


def test_ca_is_no_name() -> None:
    """Its scope is told apart, by its directory and as its key has it."""
    for scope in (_DIRECTORY, places.scope_of(_DIRECTORY), places.scope_of("https://ca.test/dir")):
        assert places.named(scope) is None
        assert is_key(places.backoff_key(scope))
