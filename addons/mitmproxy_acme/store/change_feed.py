"""The change feed: what a node stored or deleted, so that other nodes read it again within seconds.

This module knows announcements; it must not know what a node has in memory, or what it does about them. An announcement
is only a hint: a needless one costs one read, because the truth is under the certificate's own key.
"""

import itertools

from acme_storage import Storage

from ..core.names import ServerName
from .keys import change_key, change_prefix, changes_before, parse_change_key

# How often a node reads the feed (seconds). Announcing and reading again take under the ten seconds that are promised.
READ_EVERY = 3.0
# Longer than any pause between two reads of a healthy node. A node that paused for longer reads all its certificates
# again; that would not find deletions, so these are announced for a day.
ANNOUNCED_FOR = 60.0
_DELETED_FOR = 86_400.0
# Announcements sort by their authors' clocks, so each read goes this far back. What a clock announces that is behind by
# more is found once in ``READ_ALL_EVERY`` seconds.
_CLOCKS_DIFFER = 600.0
READ_ALL_EVERY = ANNOUNCED_FOR / 2


class ChangeFeed:
    """What ``node`` announces and reads on one storage. Blocks, raises ``StorageError``; ``now`` is in Unix seconds.

    ``announce`` is safe from any thread; call ``read_new`` from one at a time.
    """

    def __init__(self, storage: Storage, node: str) -> None:
        self._storage = storage
        self._node = node
        self._announced = itertools.count()
        self._read: set[str] = set()

    def announce(self, id: ServerName, now: float, *, deleted: bool = False) -> None:
        """Tell other nodes that the certificate was replaced or deleted."""
        ttl = _DELETED_FOR if deleted else ANNOUNCED_FOR
        self._storage.put(change_key(now, next(self._announced), self._node, id), b"", ttl=ttl)

    def read_new(self, now: float, *, all: bool = False) -> list[ServerName]:
        """Return what other nodes changed since the last call, or ``all`` that is still announced; each id once."""
        after = "" if all else changes_before(now - _CLOCKS_DIFFER)
        listed = self._storage.keys(change_prefix(), after=after)
        new = [self._of_another(key) for key in listed if key not in self._read]
        earlier = {key for key in self._read if key <= after}  # not listed now, and still announced maybe
        self._read = earlier.union(listed)
        return list(dict.fromkeys(id for id in new if id is not None))

    def _of_another(self, key: str) -> ServerName | None:
        """Return the id that another node announced; None for this node's own announcement, and for any other key."""
        try:
            node, id = parse_change_key(key)
        except ValueError:
            return None
        return id if node != self._node else None
