"""The bounds: how much the nodes may use, log and order in a run.

Knows numbers; must not know how they are counted. Measured on two cores; each bound is at least twice what was seen.
"""

from dataclasses import dataclass

from tests.soak.resources import Use

# What a process may use at rest after a run beyond what it used at rest before: memory that an interpreter does not
# give back, connections to the store that the most threads have opened at once.
MORE = Use(memory=50.0, descriptors=24, threads=12, tasks=24)
# The same memory for each hour: what a leak is told from.
_MEMORY_PER_HOUR = 20.0
# Lines of the log: for a certificate (ordered, obtained), for a fault (down, back, and a few for each name that is due
# meanwhile), and for a start.
_LINES_PER_CERTIFICATE, _LINES_PER_FAULT, _LINES_TO_START = 5, 80, 60
# Orders that came to nothing, and certificates that were obtained though a fresh one had been issued, by each fault: it
# may strike in the middle of orders for all that is due.
_WASTED_PER_FAULT = 8


@dataclass(frozen=True)
class Counted:
    """What was counted in a run: ``early`` is how many certificates were not needed yet."""

    seconds: float
    faults: int
    orders: int
    certificates: int
    early: int

    def most_lines(self) -> float:
        """Return how many lines a node may log."""
        return _LINES_TO_START + _LINES_PER_CERTIFICATE * self.certificates + _LINES_PER_FAULT * self.faults

    def most_wasted(self) -> int:
        return _WASTED_PER_FAULT * self.faults

    def most_memory(self) -> float:
        """Return by how many MB a process may have grown."""
        return MORE.memory + _MEMORY_PER_HOUR * self.seconds / 3_600
