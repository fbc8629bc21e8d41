"""Faults: what can go wrong, and when it does, drawn from a seed.

Knows kinds and times; must not know how a fault is done, or what it excuses.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NODES = 3
RUN_WITH_WORKERS = 1
"""The node that is ``mitmproxy-acme run --workers 2``."""
WRONG_CLOCK = 2
"""The only node whose clock can be set."""

# Seconds before the first fault, and without any at the end: by then everything must work again.
_QUIET_START, QUIET_END = 8.0, 12.0
# Between the end of a fault and the beginning of the next, unless they overlap.
_GAPS = (1.0, 5.0)
_OVERLAPPING = 0.3


@dataclass(frozen=True)
class Kind:
    """A kind of fault: what it strikes (``node``, ``store`` or ``ca``), and how long it may last, in seconds."""

    name: str
    strikes: str
    shortest: float
    longest: float


NODE_KINDS = (
    Kind("killed", "node", 0.5, 5),
    Kind("paused", "node", 1, 8),
    Kind("restarted", "node", 0, 0),
)
CLOCK_KINDS = (Kind("clock a day ahead", "node", 4, 12), Kind("clock a day behind", "node", 4, 12))
STORE_KINDS = (
    Kind("killed", "store", 0.5, 6),
    Kind("restarted", "store", 0, 0),
    Kind("paused", "store", 1, 6),
    Kind("black-holed", "store", 1, 6),
    Kind("unreachable", "store", 1, 6),
)
DISK_KINDS = (Kind("disk full", "store", 2, 8),)
CA_KINDS = (
    Kind("unreachable", "ca", 2, 10),
    Kind("slow", "ca", 4, 10),
    Kind("restarted without its state", "ca", 0, 0),
)


@dataclass(frozen=True)
class Fault:
    """A kind of fault, from ``at`` on for so many ``seconds``, since the start; ``node`` is which one it strikes."""

    kind: Kind
    at: float
    seconds: float
    node: int | None = None

    @property
    def target(self) -> str:
        return self.kind.strikes if self.node is None else f"node {self.node + 1}"

    @property
    def end(self) -> float:
        return self.at + self.seconds

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.target} {self.kind.name}{lasting}"


def draw_faults(seed: int, seconds: float, kinds: Sequence[Kind]) -> list[Fault]:
    """Return the faults of a run of so many seconds, by time; no two strike one target at once."""
    return list(_draw(random.Random(seed), seconds - QUIET_END, kinds))


def _draw(source: random.Random, until: float, kinds: Sequence[Kind]) -> Iterator[Fault]:
    at, busy = _QUIET_START, dict[str, float]()
    while True:
        fault = _draw_fault(source, at, kinds)
        if fault.end > until:
            return
        # A node takes some seconds to start, and a store to be found again.
        if busy.get(fault.target, 0.0) <= fault.at:
            busy[fault.target] = fault.end + 6.0
            yield fault
            overlaps = source.random() < _OVERLAPPING
            at = fault.at + 1.0 if overlaps else fault.end + source.uniform(*_GAPS)
        else:
            at += 0.5


def _draw_fault(source: random.Random, at: float, kinds: Sequence[Kind]) -> Fault:
    # First what is struck, then how: else the many ways to lose a store would hide the others.
    strikes = source.choice(sorted({kind.strikes for kind in kinds}))
    kind = source.choice([kind for kind in kinds if kind.strikes == strikes])
    node = None
    if kind.strikes == "node":
        node = WRONG_CLOCK if kind in CLOCK_KINDS else source.randrange(NODES)
    return Fault(kind, at, source.uniform(kind.shortest, kind.longest), node)
