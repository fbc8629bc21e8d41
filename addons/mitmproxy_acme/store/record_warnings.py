"""Complaints: what is wrong with a stored record, in the log once for as long as that record lies there.

This module knows what was said; it must not know what a record is.
"""

import logging
import threading

from ..core.structured_logging import fields

logger = logging.getLogger(__name__)

_MOST = 10_000


class RecordWarnings:
    """The complaints of one process. Safe from any thread."""

    def __init__(self) -> None:
        self._said: dict[str, int] = {}
        self._lock = threading.Lock()

    def say(self, key: str, record: bytes | None, message: str, *arguments: object) -> None:
        """Log a warning about ``record`` under ``key``, unless it was the last one about that key."""
        mark = hash(record)
        with self._lock:
            if self._said.get(key) == mark:
                return
            if len(self._said) >= _MOST:
                self._said.clear()
            self._said[key] = mark
        logger.warning(message, *arguments, extra=fields("record_unusable", key=key))
