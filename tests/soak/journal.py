"""What happened in a run: visits, streams, faults, and the lives of the nodes. All times are Unix seconds.

Knows no servers; must not know which failure has an excuse. Every method is safe from any thread.
"""

import threading
import time
from collections import Counter
from dataclasses import dataclass

from tests.soak.faults import NODES, Fault

SERVED, REFUSED, SILENT, EXPIRED, FOREIGN = "served", "refused", "silent", "expired", "foreign"
"""What a handshake ends with: a trusted certificate; an alert or a closed connection; nothing in time; or one that has
expired, or is for another name or of an unknown CA."""


@dataclass(frozen=True)
class Held:
    """A certificate that a node has served, and when it did last."""

    at: float
    not_after: float


@dataclass(frozen=True)
class Failure:
    """A handshake that ended with anything but a trusted certificate; ``held`` is what the node had served before."""

    node: int
    name: str
    begun: float
    ended: float
    outcome: str
    detail: str
    held: Held | None


@dataclass(frozen=True)
class Stream:
    """A download that took long: ``trouble`` is empty where it came whole."""

    node: int
    begun: float
    ended: float
    trouble: str


@dataclass
class Struck:
    """A fault that was done: from before it began until after everything it struck was up again."""

    fault: Fault
    begun: float
    ended: float = float("inf")


class Journal:
    """Everything that the rules and the report look at."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[tuple[int, str], Held] = {}
        # When a certificate, known by its name and its end, was first served by any node.
        self._first: dict[tuple[str, float], float] = {}
        self.served: Counter[int] = Counter()
        self.failures: list[Failure] = []
        self.streams: list[Stream] = []
        self.struck: list[Struck] = []
        # Since when each node has its memory: it loses it when it starts again.
        self.lives: list[list[float]] = [[0.0] for _ in range(NODES)]

    def serve(self, node: int, name: str, begun: float, not_after: float) -> None:
        """Note a trusted handshake."""
        with self._lock:
            self.served[node] += 1
            self._held[node, name] = Held(begun, not_after)
            self._first.setdefault((name, not_after), time.time())

    def was_served(self, name: str, not_after: float, before: float) -> bool:
        """Say whether some node had served a certificate by then: it was not lost on the way from the CA."""
        with self._lock:
            return self._first.get((name, not_after), float("inf")) < before

    def fail(self, node: int, name: str, begun: float, ended: float, outcome: str, detail: str) -> None:
        """Note any other end of a handshake."""
        with self._lock:
            held = self._held.get((node, name))
            self.failures.append(Failure(node, name, begun, ended, outcome, detail, held))

    def end_stream(self, stream: Stream) -> None:
        with self._lock:
            self.streams.append(stream)

    def strike(self, fault: Fault, now: float) -> Struck:
        """Note that a fault begins."""
        with self._lock:
            struck = Struck(fault, now)
            self.struck.append(struck)
            return struck

    def begin_life(self, node: int, now: float) -> None:
        """Note that a node starts with an empty memory."""
        with self._lock:
            self.lives[node].append(now)

    def is_of_life(self, node: int, earlier: float, later: float) -> bool:
        """Say whether a node kept its memory between two moments."""
        with self._lock:
            return not any(earlier < begun <= later for begun in self.lives[node])
