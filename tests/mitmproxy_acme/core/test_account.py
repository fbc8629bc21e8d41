"""The record of an account at a CA."""

import json
from dataclasses import replace
from typing import Any

import pytest

from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.errors import CertificateError, RecordRefused

_ACCOUNT = Account("https://ca.test/directory", "thumb", "https://ca.test/account/1", "KEY", contact="me@a.test")


@pytest.mark.parametrize(
    "account",
    [
        _ACCOUNT,
        replace(_ACCOUNT, uri="", contact=None),
        replace(_ACCOUNT, next_key="NEXT"),
        replace(_ACCOUNT, eab_kid="kid", eab_hmac_key="mac"),
        replace(_ACCOUNT, next_key="NEXT", eab_kid="kid", eab_hmac_key="mac"),
    ],
)
def test_record_is_read_back(account: Account) -> None:
    assert Account.from_record(account.to_record()) == account


def test_secrets_are_in_one_field() -> None:
    """Which is sealed as a whole; and none is in a repr."""
    account = replace(_ACCOUNT, key="secret-1", next_key="secret-2", eab_kid="kid", eab_hmac_key="secret-3")
    fields = json.loads(account.to_record())
    assert json.loads(fields.pop("key")) == ["secret-1", "secret-2", "kid", "secret-3"]
    assert "secret" not in f"{fields} {account!r}"


@pytest.mark.parametrize(
    "changes",
    [
        {"key": 1},
        {"uri": None},
        {"contact": ["me@a.test"]},
        {"key": "[]"},
        {"key": '["KEY"]'},
        {"key": '["KEY", "NEXT", "kid"]'},
        {"key": '["KEY", 1]'},
        {"key": '["[nested", ""]'},
        {"key": '["KEY", "", "", "mac"]'},
        {"key": "[" * 100_000},
    ],
)
def test_other_record_is_broken(changes: dict[str, Any]) -> None:
    """Whatever a writer of the storage put there; nothing of it is in the error."""
    fields = json.loads(_ACCOUNT.to_record()) | changes
    with pytest.raises(CertificateError, match=r"^the account record is broken \(\w+\)$"):
        Account.from_record(json.dumps(fields).encode())


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b"1", b"\xff"])
def test_record_that_is_no_object_is_broken(record: bytes) -> None:
    with pytest.raises(CertificateError, match="the account record is broken"):
        Account.from_record(record)


def test_record_of_a_later_release_is_refused() -> None:
    """It is not overwritten, as a broken one is."""
    fields = json.loads(_ACCOUNT.to_record()) | {"version": 2}
    with pytest.raises(RecordRefused):
        Account.from_record(json.dumps(fields).encode())
