"""What is known of each kind of record: which are broken, when they end, which of two is newer, what is lost."""

from dataclasses import replace
from typing import Any

import pytest
from cryptography.fernet import Fernet

from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.backoff import BACKOFF_MEMORY, Backoff
from mitmproxy_acme.core.errors import CertificateError, RecordRefused
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.store import compromised_record
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.transfer.record_rules import rules_by_prefix
from mitmproxy_acme.store.transfer.rules import Newer, Rules
from mitmproxy_acme.store.usage_marks import Usage, UsageMark
from tests.mitmproxy_acme.fakes import DIRECTORY, EPOCH, UNSEALED, make_certificate

NAME = ServerName("a.test")
CERTIFICATE = make_certificate([NAME])
ACCOUNT = Account(DIRECTORY, "thumb", "https://ca.test/acct/1", '{"d": "secret"}')
MINUTE = "00500000/01~a.test"


def rules(kind: str, *, stored: bool = True, cipher: RecordCipher = UNSEALED) -> Rules[Any]:
    return rules_by_prefix(cipher, lambda _: stored, lambda: EPOCH)[f"{kind}/"]


@pytest.mark.parametrize(
    ("key", "record"),
    [
        (f"certificates/{NAME}", b"{}"),
        (f"compromised/{NAME}", CERTIFICATE.to_record()),
        ("accounts/ca", b"{}"),
        (f"calendar/{MINUTE}", b"soon"),
        (f"calendar/{MINUTE}", b"nan"),
        (f"calendar/{MINUTE}", b"-1"),
        (f"calendar/{MINUTE}", b"1e300"),
        ("calendar/a.test", b"1800000000"),
        ("expired/a.test", b""),
        *(
            (f"renewal-info/{NAME}", record)
            for record in (
                b"",
                b"[" * 100_000,
                b"7",
                b"[]",
                b"{}",
                b'{"info": 7}',
                b'{"info": {}}',
                b'{"info": {"ask_again": true}}',
                b'{"info": {"ask_again": "soon"}}',
                b'{"info": {"ask_again": 1e300}}',
                b'{"info": {"ask_again": -1}}',
            )
        ),
        ("budgets/ca/orders/account", b'{"full_at": 0, "scope": ""}'),
        ("budgets/ca/orders/account", b"{}"),
        (f"usage/{NAME}", b"{}"),
        (f"backoffs/{NAME}", b"{}"),
    ],
)
def test_broken_record_is_named_and_not_quoted(key: str, record: bytes) -> None:
    """No proxy could use it, so it is not copied."""
    with pytest.raises(CertificateError) as caught:
        rules(key.partition("/")[0]).read(key, record)
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "record", "parsed"),
    [
        (f"calendar/{MINUTE}", b"1800000000.5", 1_800_000_000.5),
        (f"expired/{MINUTE}", b"", 60.0 * (500_000 * 60 + 1)),
        (f"renewal-info/{NAME}", b'{"id": "x", "info": {"ask_again": 1800000000}}', 1_800_000_000.0),
        ("budgets/ca/orders/account", b'{"full_at": 1800000000, "scope": ""}', 1_800_000_000.0),
        (f"certificates/{NAME}", CERTIFICATE.to_record(), CERTIFICATE),
        (f"compromised/{NAME}", compromised_record.to_record(CERTIFICATE), CERTIFICATE),
        ("accounts/ca", ACCOUNT.to_record(), ACCOUNT),
    ],
)
def test_record_is_read(key: str, record: bytes, parsed: object) -> None:
    """Of certificates and accounts the whole, of the others what decides."""
    found = rules(key.partition("/")[0]).read(key, record)
    assert getattr(found, "fingerprint", found) == getattr(parsed, "fingerprint", parsed)


@pytest.mark.parametrize("kind", ["certificates", "compromised", "accounts"])
def test_sealed_record_without_a_key_is_none_that_is_broken(kind: str) -> None:
    """It moves as it is: who has the key can read it."""
    key = f"{kind}/{NAME}"
    sealed = RecordCipher([Fernet.generate_key().decode()]).seal(key, CERTIFICATE.to_record())
    with pytest.raises(RecordRefused):
        rules(kind).read(key, sealed)


_YOUNGER = make_certificate([NAME], now=EPOCH + DAY)
_SHORTER = make_certificate([NAME], now=EPOCH + DAY, lifetime=DAY)
_USED, _UNUSED = UsageMark(EPOCH, Usage.USED), UsageMark(EPOCH, Usage.UNUSED)


@pytest.mark.parametrize(
    ("kind", "source", "destination", "newer"),
    [
        ("certificates", CERTIFICATE, CERTIFICATE, Newer.SAME),
        ("certificates", _YOUNGER, CERTIFICATE, Newer.SOURCE),
        ("certificates", CERTIFICATE, _YOUNGER, Newer.DESTINATION),
        ("certificates", CERTIFICATE, _SHORTER, Newer.UNCLEAR),
        ("certificates", _SHORTER, CERTIFICATE, Newer.UNCLEAR),
        ("compromised", CERTIFICATE, CERTIFICATE, Newer.SAME),
        ("compromised", CERTIFICATE, _YOUNGER, Newer.UNCLEAR),
        ("accounts", ACCOUNT, ACCOUNT, Newer.SAME),
        ("accounts", ACCOUNT, replace(ACCOUNT, thumbprint="other"), Newer.UNCLEAR),
        ("accounts", ACCOUNT, replace(ACCOUNT, uri=""), Newer.SOURCE),
        ("accounts", ACCOUNT, replace(ACCOUNT, key=""), Newer.SOURCE),
        ("accounts", replace(ACCOUNT, next_key="next"), ACCOUNT, Newer.SOURCE),
        ("accounts", replace(ACCOUNT, eab_kid="kid"), ACCOUNT, Newer.SOURCE),
        ("accounts", replace(ACCOUNT, eab_hmac_key="mac"), ACCOUNT, Newer.SOURCE),
        ("accounts", replace(ACCOUNT, uri=""), ACCOUNT, Newer.DESTINATION),
        ("accounts", replace(ACCOUNT, contact="a@b.test"), ACCOUNT, Newer.DESTINATION),
        ("calendar", 60.0, 70.0, Newer.SAME),
        ("expired", 60.0, 60.0, Newer.SAME),
        *((kind, 2.0, 1.0, Newer.SOURCE) for kind in ("renewal-info", "budgets")),
        *((kind, 1.0, there, Newer.DESTINATION) for kind in ("renewal-info", "budgets") for there in (1.0, 2.0)),
        ("usage", _USED, _UNUSED, Newer.SOURCE),
        ("usage", _UNUSED, _USED, Newer.DESTINATION),
        ("usage", _USED, _USED, Newer.DESTINATION),
        ("usage", replace(_UNUSED, begun=EPOCH + 1), _USED, Newer.SOURCE),
        ("backoffs", Backoff(1, EPOCH + 2, ""), Backoff(9, EPOCH + 1, ""), Newer.SOURCE),
        ("backoffs", Backoff(9, EPOCH + 1, ""), Backoff(1, EPOCH + 1, ""), Newer.DESTINATION),
    ],
)
def test_newer_of_two(kind: str, source: object, destination: object, newer: Newer) -> None:
    """Where neither is, a person must decide; a limit or a backoff is the more careful of the two."""
    assert rules(kind).compare(source, destination) is newer


@pytest.mark.parametrize(
    ("key", "record", "end"),
    [
        (f"certificates/{NAME}", CERTIFICATE, None),
        ("accounts/ca", ACCOUNT, None),
        (f"calendar/{MINUTE}", 60.0, None),
        (f"expired/{MINUTE}", 60.0, None),
        (f"renewal-info/{NAME}", 60.0, None),
        (f"usage/{NAME}", _USED, None),
        ("budgets/ca/orders/account", EPOCH + 7, EPOCH + 7),
        ("budgets/ca/orders/account", None, None),
        (f"compromised/{NAME}", CERTIFICATE, EPOCH + 91 * DAY),
        (f"compromised/{NAME}", None, EPOCH + 399 * DAY),
        (f"backoffs/{NAME}", None, EPOCH + BACKOFF_MEMORY),
        (f"backoffs/{NAME}", Backoff(1, EPOCH + 60, "", EPOCH - 5), EPOCH - 5 + BACKOFF_MEMORY),
        (f"backoffs/{NAME}", Backoff(1, EPOCH + 60, ""), EPOCH + BACKOFF_MEMORY),
    ],
)
def test_record_ends_when_its_writer_said(key: str, record: object, end: float | None) -> None:
    """Not later, because it was copied."""
    assert rules(key.partition("/")[0]).end(key, record) == end


@pytest.mark.parametrize("scope", [NAME, f"{NAME}@ca", "https_ca"])
def test_backoff_of_a_new_name_ends_early(scope: str) -> None:
    """Visitors can invent names: without a certificate at the source it is kept for twice its wait, or an hour."""
    backoff = Backoff(1, EPOCH + 7_200, "", EPOCH)
    assert rules("backoffs", stored=False).end(f"backoffs/{scope}", backoff) == EPOCH + 14_400
    short = Backoff(1, EPOCH + 60, "", EPOCH)
    assert rules("backoffs", stored=False).end(f"backoffs/{scope}", short) == EPOCH + 3_600


@pytest.mark.parametrize("scope", ["https://ca.test/directory", "a.test~revocation"])
def test_backoff_that_is_no_names_is_kept(scope: str) -> None:
    """It is a CA's, or of a revocation that has yet to be made."""
    backoff = Backoff(1, EPOCH + 60, "", EPOCH)
    assert rules("backoffs", stored=False).end(f"backoffs/{scope}", backoff) == EPOCH + BACKOFF_MEMORY


@pytest.mark.parametrize(
    ("kind", "record", "said"),
    [
        ("certificates", CERTIFICATE, "the certificate of 2027-01-15 08:00 UTC, valid until 2027-04-15 08:00 UTC"),
        ("compromised", CERTIFICATE, "the note that the certificate of 2027-01-15 08:00 UTC has yet to be revoked"),
        ("accounts", ACCOUNT, "the key of the account https://ca.test/acct/1"),
        ("accounts", replace(ACCOUNT, uri=""), f"the key of the account at {DIRECTORY}, which has no URL yet"),
        *((kind, 60.0, "") for kind in ("calendar", "expired", "renewal-info", "budgets")),
        ("usage", _USED, ""),
        ("backoffs", Backoff(1, 1.0, ""), ""),
    ],
)
def test_what_is_lost_is_said(kind: str, record: object, said: str) -> None:
    """Only of what a person may overwrite by force."""
    assert rules(kind).describe(record) == said
