"""The TLS handshakes of this node in the last hour, for the page: by minute and result, and how long they were held.

This module knows minutes and differences of counters; it must not know what is counted (``metrics`` does). A handshake
costs nothing here: the counters are read once a minute, and when a watcher asks.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from ..core.instrumentation import Handshake
from .documents import Document, timestamp

_MINUTE, _MINUTES = 60.0, 60


@dataclass(frozen=True, slots=True)
class HandshakeCounts:
    """What was counted so far: handshakes by result, and held ones by the longest wait of their class (seconds)."""

    results: Mapping[Handshake, int]
    holds: Mapping[float, int]


class Counters(Protocol):
    """What counts handshakes."""

    def handshake_counts(self) -> HandshakeCounts: ...


class TrafficHistory:
    """``run`` never returns; cancel it. Use it from one event loop."""

    def __init__(self, counters: Counters, now: Callable[[], float]) -> None:
        self._counters = counters
        self._now = now
        self._samples: deque[tuple[float, HandshakeCounts]] = deque(maxlen=_MINUTES)
        self.sample()

    async def run(self) -> None:
        """Begin a new column at each full minute."""
        while True:
            await asyncio.sleep(_MINUTE - self._now() % _MINUTE)
            self.sample()

    def sample(self) -> None:
        """Begin a new column now."""
        self._samples.append((self._now(), self._counters.handshake_counts()))

    def document(self) -> Document:
        """Return the document of ``/acme/traffic``. The last column is still growing."""
        current = self._counters.handshake_counts()
        counts = [counts for _, counts in self._samples]
        columns = [*pairwise(counts), (counts[-1], current)]
        return {
            "begin_at": [timestamp(at) for at, _ in self._samples],
            "handshakes": {
                result: [after.results[result] - before.results[result] for before, after in columns]
                for result in current.results
            },
            "holds": [
                {"up_to_seconds": wait if wait != float("inf") else None, "count": count - counts[0].holds[wait]}
                for wait, count in current.holds.items()
            ],
        }
