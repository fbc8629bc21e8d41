"""Finding: one line of the report.

This module knows the three outcomes; it must not know what is looked at.
"""

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    PASS = "pass"  # noqa: S105  # an outcome, not a password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: ``what`` says what was seen and, unless it passed, what to do."""

    outcome: Severity
    what: str


def passed(what: str) -> Finding:
    return Finding(Severity.PASS, what)


def warn(what: str) -> Finding:
    return Finding(Severity.WARN, what)


def fail(what: str) -> Finding:
    return Finding(Severity.FAIL, what)
