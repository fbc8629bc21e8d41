"""What a transfer must know of each kind of record: whether it is broken, when it ends, and which of two is newer.

Sealed records move as they are, byte for byte; they are opened here only to compare them, where a key is known. This
module knows the records of each kind; it must not know where they come from or go.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ...core.account import Account
from ...core.backoff import BACKOFF_MEMORY, Backoff
from ...core.certificate import Certificate
from ...core.errors import CertificateError
from ...core.names import ServerName
from ...core.renewal import DAY, is_time
from .. import compromised_record
from ..encryption import RecordCipher
from ..keys import (
    ACCOUNTS_PREFIX,
    BACKOFFS_PREFIX,
    BUDGETS_PREFIX,
    CALENDAR_PREFIX,
    CERTIFICATES_PREFIX,
    COMPROMISED_PREFIX,
    EXPIRED_PREFIX,
    RENEWAL_INFO_PREFIX,
    USAGE_PREFIX,
    certificate_key,
    name_in_scope,
    parse_minute_key,
)
from ..new_names import stored_for
from ..rate_limiter import Bucket
from ..store import BEYOND_THE_END
from ..usage_marks import Usage, UsageMark
from .rules import Newer, Rules

# Seconds. How long to keep the record of a compromised certificate that no key opens: public CAs issue for 398 days at
# most.
_LONGEST_LIFETIME = 398 * DAY


@dataclass(frozen=True, slots=True)
class _Certificates:
    cipher: RecordCipher

    def read(self, key: str, record: bytes) -> Certificate:
        return Certificate.from_record(ServerName(key.removeprefix(CERTIFICATES_PREFIX)), self.cipher.open(key, record))

    def end(self, key: str, record: Certificate | None) -> None:
        return None

    def compare(self, source: Certificate, destination: Certificate) -> Newer:
        if source.fingerprint == destination.fingerprint:
            return Newer.SAME
        if source.begun <= destination.begun and source.not_after <= destination.not_after:
            return Newer.DESTINATION
        if source.begun >= destination.begun and source.not_after >= destination.not_after:
            return Newer.SOURCE
        return Newer.UNCLEAR

    def describe(self, record: Certificate) -> str:
        return f"the certificate of {_day(record.begun)}, valid until {_day(record.not_after)}"


@dataclass(frozen=True, slots=True)
class _Compromised:
    cipher: RecordCipher
    now: Callable[[], float]

    def read(self, key: str, record: bytes) -> Certificate:
        opened = self.cipher.open(key, record)
        return compromised_record.from_record(ServerName(key.removeprefix(COMPROMISED_PREFIX)), opened)

    def end(self, key: str, record: Certificate | None) -> float:
        return BEYOND_THE_END + (record.not_after if record is not None else self.now() + _LONGEST_LIFETIME)

    def compare(self, source: Certificate, destination: Certificate) -> Newer:
        return Newer.SAME if source.fingerprint == destination.fingerprint else Newer.UNCLEAR

    def describe(self, record: Certificate) -> str:
        return f"the note that the certificate of {_day(record.begun)} has yet to be revoked"


@dataclass(frozen=True, slots=True)
class _Accounts:
    cipher: RecordCipher

    def read(self, key: str, record: bytes) -> Account:
        return Account.from_record(self.cipher.open(key, record))

    def end(self, key: str, record: Account | None) -> None:
        return None

    def compare(self, source: Account, destination: Account) -> Newer:
        if source == destination:
            return Newer.SAME
        if source.thumbprint != destination.thumbprint:
            return Newer.UNCLEAR
        known = zip(_details(source), _details(destination), strict=True)
        return Newer.SOURCE if any(there and not here for there, here in known) else Newer.DESTINATION

    def describe(self, record: Account) -> str:
        return f"the key of the account {record.uri or f'at {record.directory}, which has no URL yet'}"


def _details(account: Account) -> tuple[str, ...]:
    return account.uri, account.key, account.next_key, account.eab_kid, account.eab_hmac_key


class _Calendar:
    def read(self, key: str, record: bytes) -> float:
        try:
            parse_minute_key(key)
            at = float(record)
        except ValueError:
            raise _broken(key) from None
        return _require_time(key, at)

    def end(self, key: str, record: float | None) -> None:
        return None

    def compare(self, source: float, destination: float) -> Newer:
        return Newer.SAME  # within the same minute, which is part of the key

    def describe(self, record: float) -> str:
        return ""


class _Expired:
    """Only the key says something."""

    def read(self, key: str, record: bytes) -> float:
        try:
            return 60.0 * parse_minute_key(key)[0]
        except ValueError:
            raise _broken(key) from None

    def end(self, key: str, record: float | None) -> None:
        return None

    def compare(self, source: float, destination: float) -> Newer:
        return Newer.SAME

    def describe(self, record: float) -> str:
        return ""


class _RenewalInfos:
    """What matters is when to ask the CA again: it says the rest anew."""

    def read(self, key: str, record: bytes) -> float:
        return _require_time(key, _json(key, record, "info", dict).get("ask_again"))

    def end(self, key: str, record: float | None) -> None:
        return None

    def compare(self, source: float, destination: float) -> Newer:
        return Newer.SOURCE if source > destination else Newer.DESTINATION

    def describe(self, record: float) -> str:
        return ""


class _Budgets:
    """A bucket ends when it is full. Of two the emptier one counts: the CA may have counted what both say."""

    def read(self, key: str, record: bytes) -> float:
        full_at = Bucket.from_record(record).full_at
        if full_at <= 0:
            raise _broken(key)
        return full_at

    def end(self, key: str, record: float | None) -> float | None:
        return record

    def compare(self, source: float, destination: float) -> Newer:
        return Newer.SOURCE if source > destination else Newer.DESTINATION

    def describe(self, record: float) -> str:
        return ""


class _Usage:
    """Of one certificate's two marks, a used one wins: what is in use is renewed."""

    def read(self, key: str, record: bytes) -> UsageMark:
        mark = UsageMark.from_record(record)
        if mark is None:
            raise _broken(key)
        return mark

    def end(self, key: str, record: UsageMark | None) -> None:
        return None

    def compare(self, source: UsageMark, destination: UsageMark) -> Newer:
        here, there = ((mark.begun, mark.usage is Usage.USED) for mark in (source, destination))
        return Newer.SOURCE if here > there else Newer.DESTINATION

    def describe(self, record: UsageMark) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class _Backoffs:
    has_record: Callable[[str], bool]
    now: Callable[[], float]

    def read(self, key: str, record: bytes) -> Backoff:
        backoff = Backoff.from_record(record)
        if backoff is None:
            raise _broken(key)
        return backoff

    def end(self, key: str, record: Backoff | None) -> float:
        """Return what ``BackoffRegistry`` decides: a month, and less for a name that never had a certificate."""
        if record is None:
            return self.now() + BACKOFF_MEMORY
        since = record.since or self.now()
        name = name_in_scope(key.removeprefix(BACKOFFS_PREFIX))
        new = name is not None and not self.has_record(certificate_key(name))
        return since + (stored_for(record, since) if new else BACKOFF_MEMORY)

    def compare(self, source: Backoff, destination: Backoff) -> Newer:
        return Newer.SOURCE if source.until > destination.until else Newer.DESTINATION

    def describe(self, record: Backoff) -> str:
        return ""


def rules_by_prefix(
    cipher: RecordCipher, has_record: Callable[[str], bool], now: Callable[[], float]
) -> Mapping[str, Rules[Any]]:
    """Return the rules of each kind that moves. ``has_record`` says whether the source has a record under a key."""
    return {
        ACCOUNTS_PREFIX: _Accounts(cipher),
        COMPROMISED_PREFIX: _Compromised(cipher, now),
        BUDGETS_PREFIX: _Budgets(),
        BACKOFFS_PREFIX: _Backoffs(has_record, now),
        CALENDAR_PREFIX: _Calendar(),
        EXPIRED_PREFIX: _Expired(),
        RENEWAL_INFO_PREFIX: _RenewalInfos(),
        USAGE_PREFIX: _Usage(),
        CERTIFICATES_PREFIX: _Certificates(cipher),
    }


def _json(key: str, record: bytes, name: str, kind: type) -> Any:
    try:
        value = json.loads(record)[name]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _broken(key) from None
    if not isinstance(value, kind):
        raise _broken(key)
    return value


def _require_time(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not is_time(value):
        raise _broken(key)
    return float(value)


def _broken(key: str) -> CertificateError:
    return CertificateError(f"the record {key} is broken")


def _day(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC" if is_time(moment) else "an impossible date"
