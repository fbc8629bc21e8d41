"""What every measurement of scripts/bench has in common: what was wished for, and when a figure means nothing.

Knows no measurement.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from scripts.bench_client import Visit
from scripts.bench_report import Row

PATIENCE = 200  # seconds: Caddy needs 92 for its managed names
REPEATS = 3  # of what takes us seconds, and Caddy a minute


@dataclass(frozen=True)
class Wishes:
    """What the caller wants, and where progress goes."""

    rows: Collection[str]
    rounds: int
    slow: bool
    say: Callable[[str], None]


class Untrusted(Exception):
    """A handshake that had to be trusted was not; the figures would mean nothing."""


def trusted(visit: Visit) -> float:
    """Its milliseconds. Raises Untrusted."""
    if not visit.trusted:
        raise Untrusted(f"a client was not served a trusted certificate (after {visit.milliseconds:.0f} ms)")
    return visit.milliseconds


Measurement = Callable[[Wishes], list[Row]]
"""Sets a stage of its own, measures, and returns its rows."""
