"""The change feed: what a node stored or deleted, so that the others look again within seconds.

This module knows announcements; it must not know what a node holds, nor what it does about one. An announcement is
only a hint to look: one too many costs a look, and the truth is under the certificate's own key.
"""

import itertools

from acme_storage import Storage

from ..core.names import ServerName
from .keys import change_key, change_prefix, changed, changes_before

# How often a node reads the feed (seconds). Announced, read and looked up: together within the ten that are promised.
READ_EVERY = 3.0
# Longer than any pause between two readings of a node that is well. One that did not read for longer looks at all that
# it holds; that would not find deletions, so these are told for a day.
ANNOUNCED_FOR = 60.0
_DELETED_FOR = 86_400.0
# Announcements sort by their authors' clocks, and so far back is read again each time: clocks may differ by as much.
_CLOCKS_DIFFER = 600.0


class ChangeFeed:
    """What ``node`` tells and hears through one storage. Blocks, raises ``StorageError``; ``now`` is in Unix seconds.

    ``announce`` is safe from any thread, ``news`` is for one at a time.
    """

    def __init__(self, storage: Storage, node: str) -> None:
        self._storage = storage
        self._node = node
        self._told = itertools.count()
        self._heard: set[str] = set()

    def announce(self, id: ServerName, now: float, *, deleted: bool = False) -> None:
        """Tell the other nodes that the certificate was replaced, or deleted."""
        ttl = _DELETED_FOR if deleted else ANNOUNCED_FOR
        self._storage.put(change_key(now, next(self._told), self._node, id), b"", ttl=ttl)

    def read_new(self, now: float, *, all: bool = False) -> list[ServerName]:
        """Return what other nodes changed since the last call, each once; ``all`` that is still told, after a pause."""
        after = "" if all else changes_before(now - _CLOCKS_DIFFER)
        listed = self._storage.keys(change_prefix(), after=after)
        new = [self._of_another(key) for key in listed if key not in self._heard]
        self._heard = set(listed)
        return list(dict.fromkeys(id for id in new if id is not None))

    def _of_another(self, key: str) -> ServerName | None:
        """Return what another node announced; None for what is this one's own, or nobody's."""
        try:
            node, id = changed(key)
        except ValueError:
            return None
        return id if node != self._node else None
