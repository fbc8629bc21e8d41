"""The change feed: what a node stored or deleted, so that the others look again within seconds.

This module knows announcements; it must not know what a node holds, nor what it does about one. An announcement is
only a hint to look: one too many costs a look, and the truth is under the certificate's own key.
"""

import time

from acme_storage import Storage

from ..names import ServerName
from .store import change_key, change_prefix, changed

# How often a node reads the feed (seconds). Announced, read and looked up: together within the ten that are promised.
READ_EVERY = 3.0
# Longer than any pause between two readings of a node that is well. One that did not read for longer looks at all that
# it holds; that would not find deletions, so these are told for a day.
ANNOUNCED_FOR = 60.0
_DELETED_FOR = 86_400.0


class Changes:
    """What ``node`` tells and hears through one storage. Blocks, raises ``StorageError``; read from one thread at once.

    Nothing here compares clocks of different nodes.
    """

    def __init__(self, storage: Storage, node: str) -> None:
        self._storage = storage
        self._node = node
        self._read: set[str] = set()

    def announce(self, id: ServerName, *, deleted: bool = False) -> None:
        """Tell the other nodes that the certificate was replaced, or deleted."""
        ttl = _DELETED_FOR if deleted else ANNOUNCED_FOR
        self._storage.put(change_key(time.time_ns(), self._node, id), b"", ttl=ttl)

    def news(self) -> list[ServerName]:
        """Return what other nodes changed since the last call, each once."""
        listed = self._storage.keys(change_prefix())
        new = [changed(key) for key in listed if key not in self._read]
        self._read = set(listed)
        return list(dict.fromkeys(id for node, id in new if node != self._node))
