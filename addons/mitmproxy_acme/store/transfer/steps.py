"""What became of each record of a transfer.

This module knows outcomes; it must not know how they come about.
"""

from dataclasses import dataclass
from enum import Enum


class StepOutcome(Enum):
    """What became of one record."""

    COPIED = "copied"
    UNCHANGED = "the same at both"
    KEPT = "newer at the destination"
    OVERWRITTEN = "overwritten"
    REMOVED = "deleted at the source, and now at the destination"
    ENDED = "over, not copied"
    CONFLICT = "in conflict"
    BROKEN = "broken at the source"
    FAILED = "not stored by the destination"


WRITTEN = frozenset({StepOutcome.COPIED, StepOutcome.OVERWRITTEN, StepOutcome.REMOVED})
"""The outcomes that changed the destination."""
TROUBLE = frozenset({StepOutcome.CONFLICT, StepOutcome.BROKEN, StepOutcome.FAILED})
"""The outcomes after which the destination lacks something that a person must look at."""


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome for the record under ``key``; ``why`` explains what is not plain."""

    key: str
    outcome: StepOutcome
    why: str = ""
