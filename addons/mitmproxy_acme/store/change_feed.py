"""The change feed: what a node stored or deleted, so that other nodes read it again within seconds.

This module knows announcements; it must not know what a node has in memory, or what it does about them. An announcement
is only a hint: a needless one costs one read, because the truth is under the certificate's own key.

    changes/TIME.NUMBER~NODE~ID  an announcement; expires
    changes/~MARK                says that the storage still has what was written since; any node may leave one
"""

import contextlib
import itertools
from collections import deque
from collections.abc import Collection, Mapping

from acme_storage import Storage, StorageError

from ..core.certificate import Certificate
from ..core.names import ServerName
from ..core.renewal import LAST_TIME, begun_by
from .keys import (
    CHANGES_PREFIX,
    change_key,
    changes_before,
    is_mark_key,
    mark_key,
    parse_change_key,
    parse_change_time,
)

# How often a node reads the feed (seconds). Announcing and reading again take under the ten seconds that are promised.
READ_EVERY = 3.0
# Longer than any pause between two reads of a healthy node. A node that paused for longer reads all its certificates
# again; that would not find deletions, so these are announced for a day.
ANNOUNCED_FOR = 60.0
_DELETED_FOR = 86_400.0
# The values of announcements. Those of earlier releases are empty, and may be of deletions.
_STORED, _DELETED = b"stored", b"deleted"
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
        self._unannounced: set[ServerName] = set()
        self._doubted: deque[ServerName] = deque()
        self._read: set[str] = set()
        self._marks_left = itertools.count()
        self._marks: set[str] = set()
        self._has_lost = False

    def announce(self, id: ServerName, now: float, *, deleted: bool = False) -> None:
        """Tell other nodes that the certificate was replaced or deleted.

        Where the storage fails, a replaced one is announced with the next ``read_new``.
        """
        ttl = _DELETED_FOR if deleted else ANNOUNCED_FOR
        value = _DELETED if deleted else _STORED
        try:
            self._storage.put(change_key(now, next(self._announced), self._node, id), value, ttl=ttl)
        except StorageError:
            if not deleted:  # who deletes announces it before, and does not delete then
                self._unannounced.add(id)
            raise
        self._unannounced.discard(id)

    def doubt(self, id: ServerName) -> None:
        """Have the next ``read_new`` return it: this node may hold another certificate than the stored one."""
        self._doubted.append(id)

    def read_new(self, now: float, *, all: bool = False) -> list[ServerName]:
        """Return what other nodes changed since the last call, or ``all`` that is still announced; each id once.

        And what is doubted.
        """
        after = "" if all else changes_before(now - _CLOCKS_DIFFER)
        listed = self._storage.keys(CHANGES_PREFIX, after=after)
        new = [self._of_another(key) for key in listed if key not in self._read]
        earlier = {key for key in self._read if key <= after}  # not listed now, and still announced maybe
        self._read = earlier.union(listed)
        marks = set(filter(is_mark_key, listed))
        self._has_lost = self._has_lost or not self._marks <= marks
        self._marks = marks
        self._announce_again(now)
        doubted = [self._doubted.popleft() for _ in range(len(self._doubted))]
        return list(dict.fromkeys([*doubted, *(id for id in new if id is not None)]))

    def deletions(self, ids: Collection[ServerName]) -> dict[ServerName, float]:
        """Return when each of these ids was last deleted (Unix seconds), as far as that is announced: for a day."""
        announced = ((key, _id_in(key)) for key in self._storage.keys(CHANGES_PREFIX))
        of_these = ((key, id) for key, id in announced if id is not None and id in ids)
        return {id: _time_in(key) for key, id in of_these if self._storage.get(key) != _STORED}  # the last one counts

    def take_loss(self) -> bool:
        """Say whether a mark that an earlier read found was gone in a later one; once for each time.

        Then the storage has lost what was written before: a Redis that was restarted and keeps nothing on disk, a
        failover to an old copy, a server that was emptied.
        """
        lost, self._has_lost = self._has_lost, False
        return lost

    @property
    def is_marked(self) -> bool:
        """Whether the last read found a mark."""
        return bool(self._marks)

    def leave_mark(self) -> None:
        """Leave a mark. Each is another one, so that all nodes notice that an earlier one is gone."""
        key = mark_key(f"{self._node}.{next(self._marks_left)}")
        self._storage.put(key, b"")
        self._marks.add(key)

    def _announce_again(self, now: float) -> None:
        """Tell what could not be told; the rest later, if the storage can still not be written."""
        with contextlib.suppress(StorageError):
            for id in tuple(self._unannounced):
                self.announce(id, now)

    def _of_another(self, key: str) -> ServerName | None:
        """Return the id that another node announced; None for this node's own announcement, and for any other key."""
        try:
            node, id = parse_change_key(key)
        except ValueError:
            return None
        return id if node != self._node else None


def is_deleted(certificate: Certificate, deletions: Mapping[ServerName, float], now: float) -> bool:
    """Say whether it, and not only a certificate before it, is one of these ``deletions``; clocks may differ."""
    at = deletions.get(certificate.id)
    return at is not None and begun_by(certificate, now) <= at + _CLOCKS_DIFFER


def _time_in(key: str) -> float:
    """Return when it was announced; for another key the end of time, so that it counts for every certificate."""
    try:
        return parse_change_time(key)
    except ValueError:
        return LAST_TIME


def _id_in(key: str) -> ServerName | None:
    try:
        return parse_change_key(key)[1]
    except ValueError:
        return None
