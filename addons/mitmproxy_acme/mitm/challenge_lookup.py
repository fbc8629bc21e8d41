"""Looks up what a validator expects, for orders of any node, at a bounded cost for the storage.

This module knows lookups; it must not know how a validator asks. It does not remember what it did not find: a stranger
chooses what to ask for, and may ask for a challenge that an order publishes a moment later.
"""

from acme_storage import StorageError

from ..lifecycle.manager import Manager
from ..lifecycle.predecessor import Predecessor
from .shared_read import MAX_WAITING, SharedRead

type _Key = tuple[str, str]


class ChallengeLookup:
    """The published challenges of one manager's storage. Use it from the event loop.

    A challenge is found by its type and by its token, or by the name that the validator sends (tls-alpn-01).
    """

    def __init__(self, manager: Manager | Predecessor) -> None:
        self._manager = manager
        before = manager.predecessor if isinstance(manager, Manager) else None
        self._before = ChallengeLookup(before) if before is not None else None
        self._wanted: set[_Key] = set()
        self._reads = SharedRead("challenges", self._read)

    def find_local(self, type: str, token: str) -> str | None:
        """Return the value of a challenge of this node's own orders: no storage, no wait."""
        local = self._manager.store.local_proof(type, token)
        return self._before.find_local(type, token) if local is None and self._before is not None else local

    async def find(self, type: str, token: str) -> str | None:
        """Return the value of a challenge that waits for validation, of an order of any node.

        None if there is none, or if the storage fails, which is logged once. Storage is read a bounded number of times
        a second, for any number of callers. A challenge that was published before this call is found.
        """
        local = self.find_local(type, token)
        # While a read hangs, the keys of callers that gave up remain.
        if local is not None or len(self._wanted) >= MAX_WAITING:
            return local
        key = (type, token)
        self._wanted.add(key)
        values = await self._reads.join()
        found = values.get(key) if values is not None else None
        return await self._before.find(type, token) if found is None and self._before is not None else found

    async def _read(self) -> dict[_Key, str] | None:
        wanted, self._wanted = self._wanted, set()
        if isinstance(self._manager, Predecessor) and not self._manager.is_asked:
            return None
        try:
            self._manager.health.require()
            return await self._manager.threads.storage(self._manager.store.proofs, wanted)
        except StorageError as error:
            self._manager.health.trouble(error)
            return None
