"""Cautious clock: the time by which something is removed for good.

A clock may be wrong by years: that of a machine without a battery until NTP has set it, or one that a person has set.
What one node takes for long expired may be valid for all others. This module knows the clock of this node and those
that other nodes announce; it must not know what is removed.
"""

import logging
from collections.abc import Callable

from ..core.renewal import DAY, describe_duration
from ..core.structured_logging import fields
from ..core.thread_pools import ThreadPools
from ..store.nodes import Nodes

logger = logging.getLogger(__name__)

# Seconds for which our clock must have gone evenly, and by how many it may be set meanwhile. NTP mends a clock sooner.
_PATIENCE, _EVEN = 3_600.0, 60.0
# Seconds. A time that is not announced anew for so long is not that of a node that is up: a record was copied.
_SILENT = 300.0
# Seconds. A clock that is behind ours by more is worth a warning. It holds everything back for so long at most: one
# wrong clock, or one forged record, must not end all housekeeping.
_BEHIND, _LONGEST = 600.0, 7 * DAY


class CautiousClock:
    """The clock of one node. Use it from one event loop."""

    def __init__(
        self,
        nodes: Nodes,
        node: str,
        threads: ThreadPools,
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        """``now`` gives Unix seconds, ``monotonic`` seconds of a clock that is never set."""
        self._nodes = nodes
        self._node = node
        self._threads = threads
        self._now = now
        self._monotonic = monotonic
        self._offset = 0.0  # between our two clocks, when they were last apart by another time
        self._even_since: float | None = None
        self._heard: dict[str, tuple[float, float]] = {}  # by node: the time it announced, and since when
        self._held_back: tuple[float, float] | None = None  # since when, and until when: monotonic

    def look(self) -> bool:
        """Say whether our clock has gone evenly for an hour. Call it now and then; it reads no storage."""
        at = self._monotonic()
        offset = self._now() - at
        if self._even_since is None or abs(offset - self._offset) > _EVEN:
            self._offset, self._even_since = offset, at
        return at - self._even_since >= _PATIENCE

    async def moment(self) -> float | None:
        """Return the time (Unix seconds) that our clock and those of all other nodes have passed.

        None while ours has not gone evenly for an hour. Where another clock is behind for a week, ours counts.
        Raises ``StorageError``.
        """
        if not self.look():
            return None
        announced = await self._threads.storage(self._nodes.clocks)
        own, earliest = self._now(), self._earliest(announced)
        if earliest is None or earliest >= own:
            return own
        return own if own - earliest > _BEHIND and self._is_out_of_patience(own - earliest) else earliest

    def _earliest(self, announced: dict[str, float]) -> float | None:
        """Return the earliest time that another node announces, if it is up."""
        at = self._monotonic()
        heard = {id: (told, at) for id, told in announced.items() if id != self._node}
        for id, (told, since) in self._heard.items():
            if id in heard and heard[id][0] == told:
                heard[id] = told, since
        self._heard = heard
        return min((told for told, since in heard.values() if at - since < _SILENT), default=None)

    def _is_out_of_patience(self, behind: float) -> bool:
        """Say whether another clock has been behind for a week, whenever we asked; warn of it at first."""
        at = self._monotonic()
        since, until = self._held_back or (at, at)
        if self._held_back is None or at - until > _PATIENCE:
            since = at
            self._warn(behind)
        self._held_back = since, at
        return at - since > _LONGEST

    def _warn(self, behind: float) -> None:
        logger.warning(
            "the clock of another node is %s behind this one's; until they agree, or for %s, what has expired in "
            "between is not removed (node %s)",
            describe_duration(behind),
            describe_duration(_LONGEST),
            self._node,
            extra=fields("clocks_differ", node=self._node, seconds=round(behind)),
        )
