"""Finding: one line of the report.

This module knows the three severities; it must not know what is checked.
"""

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    PASS = "pass"  # noqa: S105  # a severity, not a password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: ``what`` says what was found and, unless it passed, what to do."""

    outcome: Severity
    what: str


def passed(what: str) -> Finding:
    return Finding(Severity.PASS, what)


def warn(what: str) -> Finding:
    return Finding(Severity.WARN, what)


def fail(what: str) -> Finding:
    return Finding(Severity.FAIL, what)
