"""Rules: what a transfer asks of each kind of record.

This module knows the questions; ``record_rules`` knows the answers.
"""

from enum import Enum
from typing import Protocol


class Newer(Enum):
    """Which of two different records of one key is newer; UNCLEAR: a person must decide."""

    SAME = "same"
    SOURCE = "source"
    DESTINATION = "destination"
    UNCLEAR = "unclear"


class Rules[T](Protocol):
    """The rules for one kind of record. ``T`` is the parsed record."""

    def read(self, key: str, record: bytes) -> T:
        """Parse a record. Raises ``CertificateError`` for a broken one, ``RecordRefused`` if no key opens it."""
        ...

    def end(self, key: str, record: T | None) -> float | None:
        """Return when the record ends (Unix seconds), as its writer decided; None for a permanent one.

        ``record`` is None if no key opens it.
        """
        ...

    def compare(self, source: T, destination: T) -> Newer: ...

    def describe(self, record: T) -> str:
        """Say in a few words what is lost if the record is overwritten, without secrets.

        Empty for a kind that is never overwritten by force: the newer record always serves better.
        """
        ...
