"""Proofs: what validators are shown, whichever node ordered; and how many strangers may ask for.

This module knows lookups; it must not know how a validator asks. The bounds are for those who invent what they ask for:
so many are looked up at once, so many may wait, and a wrong one is remembered.
"""

import asyncio
import logging

from acme_storage import StorageError

from ..flights import Flights
from ..manager import Manager
from ..recent import Recent

logger = logging.getLogger(__name__)

# CAs ask from several places at once, and for the names of all nodes (90 requests for 30 names, seen).
_LOOKUPS, _WAITING = 4, 1_000
_UNKNOWN_MEMORY, _UNKNOWN = 10.0, 4_096


class Proofs:
    """The proofs of one manager's storage. Use it from the event loop."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._lookups = asyncio.Semaphore(_LOOKUPS)
        self._looks: Flights[tuple[str, str], str | None] = Flights("challenge")
        self._unknown: Recent[tuple[str, str], float] = Recent(_UNKNOWN)

    async def find(self, type: str, place: str) -> str | None:
        """Return the proof of a challenge that waits for validation; None where none does, or storage is down."""
        here = self._manager.store.published_here(type, place)
        if here is not None or self._is_known_unknown((type, place)):
            return here
        if len(self._looks) >= _WAITING:
            return None
        try:
            return await self._looks.join((type, place), lambda: self._look_up(type, place))
        except StorageError as error:
            logger.warning("a challenge cannot be looked up: %s", error)
            return None

    async def _look_up(self, type: str, place: str) -> str | None:
        async with self._lookups:
            found = await self._manager.threads.storage(self._manager.store.proof, type, place)
        if found is None:
            self._unknown.put((type, place), self._manager.now() + _UNKNOWN_MEMORY)
        return found

    def _is_known_unknown(self, what: tuple[str, str]) -> bool:
        until = self._unknown.get(what)
        # Not for longer: the clock may have been set back, and the place may be an order's by now.
        return until is not None and 0 < until - self._manager.now() <= _UNKNOWN_MEMORY
