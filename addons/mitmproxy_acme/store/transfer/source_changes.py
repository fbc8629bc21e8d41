"""What proxies change at the source while a transfer runs, from the change feed.

This module knows announcements and their times; it must not know what is done about them.
"""

from acme_storage import Storage

from ...core.names import ServerName
from ..keys import CHANGES_PREFIX, parse_change_key, parse_change_time


class SourceChanges:
    """The announcements in one storage. Blocks, raises ``StorageError``; use it from one thread."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._read: set[str] = set()

    def read_new(self) -> dict[ServerName, float]:
        """Return the ids that were announced since the last call, each with its last time (Unix seconds).

        The first call returns all that are still announced: deletions of the last day among them.
        """
        listed = self._storage.keys(CHANGES_PREFIX)
        new = [key for key in listed if key not in self._read]
        self._read = set(listed)
        changes: dict[ServerName, float] = {}
        for key in new:  # sorted by time
            try:
                changes[parse_change_key(key)[1]] = parse_change_time(key)
            except ValueError:  # not ours
                continue
        return changes
