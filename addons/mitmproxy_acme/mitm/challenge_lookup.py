"""Proofs: what validators are shown, whichever node ordered; and how little a stranger's question costs.

This module knows lookups; it must not know how a validator asks. Nothing is remembered about what was not found: a
stranger chooses what to ask for, and may ask for the name of an order that begins a moment later.
"""

from acme_storage import StorageError

from ..lifecycle.manager import Manager
from .shared_read import WAITING, SharedRead

type What = tuple[str, str]


class ChallengeLookup:
    """The proofs of one manager's storage. Use it from the event loop."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._wanted: set[What] = set()
        self._looks = SharedRead("challenges", self._look)

    def here(self, type: str, place: str) -> str | None:
        """Return the proof of an order of this node: no storage, no wait."""
        return self._manager.store.published_here(type, place)

    async def find(self, type: str, place: str) -> str | None:
        """Return the proof of a challenge of any node that waits for validation.

        None where there is none, or where storage does not tell, which is logged once. Storage is read a bounded number
        of times a second, however many ask for whatever; a proof that was published before this call is found.
        """
        what = (type, place)
        here = self.here(type, place)
        # While a look hangs, those who gave up stay wanted.
        if here is not None or len(self._wanted) >= WAITING:
            return here
        self._wanted.add(what)
        found = await self._looks.join()
        return found.get(what) if found is not None else None

    async def _look(self) -> dict[What, str] | None:
        wanted, self._wanted = self._wanted, set()
        try:
            self._manager.health.require()
            return await self._manager.threads.storage(self._manager.store.proofs, wanted)
        except StorageError as error:
            self._manager.health.trouble(error)
            return None
