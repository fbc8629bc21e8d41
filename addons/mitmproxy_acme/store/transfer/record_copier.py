"""Copies one record: decides between two different ones, writes by ``swap``, and reads back what it wrote.

A record that another process writes at the destination meanwhile is never overwritten unseen: ``swap`` fails, and the
decision is made again. This module knows one key at a time; it must not know which keys there are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from acme_storage import Storage, StorageCorrupt, StorageUnavailable

from ...core.errors import CertificateError, RecordRefused
from ..encryption import RecordCipher
from .kinds import kind_of
from .rules import Newer, Rules
from .sources import Source, SourceRecord
from .steps import WRITTEN, Step, StepOutcome

# More than other writers can plausibly come between. A storage that gives back other bytes than it took ends here too.
_ATTEMPTS = 5
_CLOSED = "no key here opens it: set the acme_storage_key of the proxies, so that the two can be compared"


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A usable record of the source; ``parsed`` is None if no key opens it."""

    value: bytes
    parsed: Any
    end: float | None


class RecordCopier:
    """Copies records from ``source`` to ``destination``. Safe from any thread; raises ``StorageUnavailable``.

    With ``dry`` it writes nothing, and returns what it would do.
    """

    def __init__(
        self,
        source: Source,
        destination: Storage,
        rules: Mapping[str, Rules[Any]],
        cipher: RecordCipher,
        now: Callable[[], float],
        *,
        dry: bool,
    ) -> None:
        self._source = source
        self._destination = destination
        self._rules = rules
        self._cipher = cipher
        self._now = now
        self._dry = dry

    def copy(self, key: str, *, overwrite: bool = False) -> Step | None:
        """Copy one record, and say what became of it; None if it was deleted at the source meanwhile.

        ``overwrite`` replaces a newer or undecidable certificate or account at the destination.
        """
        rules = self._rules_of(key)
        try:
            record = self._source.read(key)
            if record is None:
                return None
            candidate = _candidate(rules, key, record)
        except (StorageCorrupt, CertificateError) as error:
            return Step(key, StepOutcome.BROKEN, str(error))
        if candidate.end is not None and candidate.end <= self._now():
            return Step(key, StepOutcome.ENDED)
        try:
            return self._write(rules, key, candidate, overwrite=overwrite)
        except (ValueError, StorageCorrupt) as error:  # a value that no storage takes; the text shows none of it
            return Step(key, StepOutcome.FAILED, str(error))

    def remove(self, key: str, deleted_at: float) -> Step | None:
        """Delete a certificate that was deleted at the source at ``deleted_at``, unless it is from later."""
        rules = self._rules_of(key)
        try:
            value = self._destination.get(key)
            certificate = rules.read(key, value) if value is not None else None
        except (StorageCorrupt, CertificateError, RecordRefused) as error:
            return Step(
                key, StepOutcome.CONFLICT, f"it was deleted at the source, and stays at the destination: {error}"
            )
        if certificate is None or certificate.begun > deleted_at:
            return None
        removed = self._dry or self._destination.swap(key, value, None)
        return Step(key, StepOutcome.REMOVED) if removed else None

    def _write(self, rules: Rules[Any], key: str, candidate: _Candidate, *, overwrite: bool) -> Step:
        for _ in range(_ATTEMPTS):
            current = self._current(key)
            step = self._decide(rules, key, candidate, current, overwrite=overwrite)
            if step.outcome not in WRITTEN or self._dry:
                return step
            if trouble := self._swap(key, current, candidate):
                return Step(key, StepOutcome.FAILED, trouble)
            if self._destination.get(key) == candidate.value:
                return step
        return Step(key, StepOutcome.FAILED, "the destination gives back another value than it was given")

    def _current(self, key: str) -> bytes | None:
        """Return the value at the destination; a record that the destination itself cannot read is deleted."""
        try:
            return self._destination.get(key)
        except StorageCorrupt:
            if not self._dry:
                self._destination.delete(key)
            return None

    def _swap(self, key: str, current: bytes | None, candidate: _Candidate) -> str:
        """Try to write; return why the destination does not take this record, although it answers."""
        ttl = candidate.end - self._now() if candidate.end is not None else None
        if ttl is not None and ttl <= 0:
            return "it ended while it was copied"
        try:
            self._destination.swap(key, current, candidate.value, ttl=ttl)
        except StorageUnavailable as error:
            if self._destination.get(key) != candidate.value:
                return str(error)
        return ""

    def _decide(
        self, rules: Rules[Any], key: str, candidate: _Candidate, current: bytes | None, *, overwrite: bool
    ) -> Step:
        if current is None:
            return Step(key, StepOutcome.COPIED)
        if current == candidate.value:
            return Step(key, StepOutcome.UNCHANGED)
        try:
            stored = rules.read(key, current)
        except CertificateError:  # broken: no proxy can use it
            return Step(key, StepOutcome.COPIED)
        except RecordRefused as error:
            return _undecided(
                key, f"at the destination: {error}", "a record that no key here opens", overwrite=overwrite
            )
        if candidate.parsed is None:
            return _undecided(key, f"at the source: {_CLOSED}", rules.describe(stored), overwrite=overwrite)
        return self._compare(rules, key, candidate, current, stored, overwrite=overwrite)

    def _compare(
        self, rules: Rules[Any], key: str, candidate: _Candidate, current: bytes, stored: Any, *, overwrite: bool
    ) -> Step:
        match rules.compare(candidate.parsed, stored):
            case Newer.SOURCE:
                return Step(key, StepOutcome.COPIED)
            case Newer.SAME:
                resealed = self._cipher.is_current(key, candidate.value) and not self._cipher.is_current(key, current)
                return Step(key, StepOutcome.COPIED if resealed else StepOutcome.UNCHANGED)
            case Newer.DESTINATION:
                lost = rules.describe(stored)
                if overwrite and lost:
                    return Step(key, StepOutcome.OVERWRITTEN, f"{lost} is lost")
                return Step(key, StepOutcome.KEPT, lost)
        here, there = rules.describe(stored), rules.describe(candidate.parsed)
        return _undecided(key, f"the destination has {here}, the source {there}", here, overwrite=overwrite)

    def _rules_of(self, key: str) -> Rules[Any]:
        kind = kind_of(key)
        if kind is None or not kind.moves:
            raise ValueError(f"records such as {key} do not move")
        return self._rules[kind.prefix]


def _candidate(rules: Rules[Any], key: str, record: SourceRecord) -> _Candidate:
    """Return what to copy. Raises ``CertificateError`` for a broken record."""
    try:
        parsed = rules.read(key, record.value)
    except RecordRefused:
        parsed = None
    return _Candidate(record.value, parsed, record.end if record.end is not None else rules.end(key, parsed))


def _undecided(key: str, why: str, lost: str, *, overwrite: bool) -> Step:
    if overwrite and lost:
        return Step(key, StepOutcome.OVERWRITTEN, f"{lost} is lost")
    return Step(key, StepOutcome.CONFLICT, why)
