"""Records that an earlier release has written are read, with their fields as they are in storages of today.

A test that writes and reads by the same code does not notice a change of both.
"""

import io
import json

import pytest

from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import RecordRefused
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.event_log import EventKind, LoggedEvent
from mitmproxy_acme.store.keys import (
    EventId,
    account_key,
    backoff_key,
    calendar_key,
    certificate_key,
    challenge_key,
    change_key,
    refusal_key,
    renewal_info_key,
    request_key,
)
from mitmproxy_acme.store.transfer.encrypted_file import EncryptedReader, key_from
from tests.mitmproxy_acme.fakes import EPOCH, make_certificate

_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
_SEALED = (
    b'{"sealed": 1, "key_id": "23ebe385195af6de", '
    b'"sealed_key": "7oojq4Fml7LasXVfgcBOvG3X53AcZAE4xIzfLDqOsi/XZsxFYJn/2w71BA=="}'
)
_A = ServerName("a.test")


def test_record_of_a_certificate() -> None:
    """The key is in a field of its own, and the version first: a later one is refused, and not taken for broken."""
    fields = json.loads(make_certificate(["a.test"]).to_record())
    assert {name: type(value) for name, value in fields.items()} == {
        "version": int,
        "ca": str,
        "chain": str,
        "key": str,
        "obtained": float,
    }
    assert fields["version"] == 1
    with pytest.raises(RecordRefused):
        Certificate.from_record(_A, json.dumps(fields | {"version": 2}).encode())


def test_record_of_an_account() -> None:
    account = Account("https://ca.test/directory", "thumb", "https://ca.test/account/1", "KEY", contact="me@a.test")
    written = (
        b'{"version": 1, "directory": "https://ca.test/directory", "thumbprint": "thumb", '
        b'"uri": "https://ca.test/account/1", "key": "KEY", "contact": "me@a.test"}'
    )
    assert account.to_record() == written
    assert Account.from_record(written) == account


def test_record_of_a_backoff() -> None:
    backoff = Backoff(2, EPOCH + 0.5, "no such host")
    written = b'{"failures": 2, "until": 1800000000.5, "reason": "no such host", "since": 0.0}'
    assert backoff.to_record() == written
    assert Backoff.from_record(written) == backoff


def test_sealed_record_is_opened() -> None:
    """By the key that sealed it, for the storage key that it was sealed for; a later format is refused."""
    cipher = RecordCipher([_KEY])
    assert cipher.open("refusals/a.test", _SEALED) == b'{"failures": 2}'
    assert cipher.is_current("refusals/a.test", _SEALED)
    assert cipher.sign_key("requests/a.test") == "requests/a.test~e10391a8f70acb6be33515f300e0a6a7"
    assert cipher.verify_key("requests/a.test~e10391a8f70acb6be33515f300e0a6a7") == "requests/a.test"
    with pytest.raises(RecordRefused):
        cipher.open("refusals/a.test", _SEALED.replace(b'"sealed": 1', b'"sealed": 2'))


def test_without_a_key_no_record_is_current() -> None:
    """Nor one that an earlier key sealed, or that is in clear text."""
    other = RecordCipher(["ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=", _KEY])
    assert not RecordCipher(()).is_current("refusals/a.test", _SEALED)
    assert not other.is_current("refusals/a.test", _SEALED)
    assert not RecordCipher([_KEY]).is_current("certificates/a.test", b'{"key": "x"}')
    assert other.open("refusals/a.test", _SEALED) == b'{"failures": 2}'


def test_backup_is_opened() -> None:
    """By the key that a passphrase gives; 0.4 s of work are part of the format."""
    head, salt = b"mitmproxy-acme backup 1\n", bytes(range(32))
    body = bytes.fromhex("76b9d188219a4414ee0681566836a804e2b0595d82c6dad7")
    assert list(EncryptedReader(io.BytesIO(head + salt + body), lambda given: given).lines(100)) == [b"content"]
    key = key_from("a passphrase of a test")(salt)
    assert key.hex() == "8abc63ae19c505dec6121fead6d2088358c33242bb6105b9e8fc421d14cd5d4f"


def test_event_of_another_node() -> None:
    event = LoggedEvent(
        EventId(1_800_000_000_000, 3, "ab12cd34"), EventKind.FAILED, "a.test", "edge-1", "ca", 1.5, "no", EPOCH, 1, 2
    )
    assert LoggedEvent.from_record(event.id, event.to_record()) == event
    assert json.loads(event.to_record()) == {
        "kind": "failed",
        "host": "a.test",
        "machine": "edge-1",
        "ca": "ca",
        "seconds": 1.5,
        "reason": "no",
        "retry_at": EPOCH,
        "more": 1,
        "left_out": 2,
    }


@pytest.mark.parametrize(
    ("key", "written"),
    [
        (certificate_key(_A), "certificates/a.test"),
        (account_key("https://ca.test/directory"), "accounts/ca.test~b37908d4ca9f0ca8"),
        (calendar_key(30_000_007, _A), "calendar/00500000/07~a.test"),
        (change_key(EPOCH, 4, "node", _A), "changes/1800000000000.4~node~a.test"),
        (backoff_key("a.test"), "backoffs/a.test"),
        (challenge_key("http-01", "token"), "challenges/http-01/token"),
        (renewal_info_key(_A), "renewal-info/a.test"),
        (request_key(_A), "requests/a.test"),
        (refusal_key(_A), "refusals/a.test"),
    ],
)
def test_storage_key(key: str, written: str) -> None:
    """Nodes of two releases find what the other stored."""
    assert key == written
