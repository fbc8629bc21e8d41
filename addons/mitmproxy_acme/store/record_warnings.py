"""Warnings about stored records: each is logged once, until the record changes.

This module knows which warnings were logged; it must not know what a record is.
"""

import logging
import threading

from ..core.structured_logging import fields

logger = logging.getLogger(__name__)

_MOST = 10_000


class RecordWarnings:
    """The warnings of one process. Safe from any thread."""

    def __init__(self) -> None:
        self._logged: dict[str, int] = {}
        self._lock = threading.Lock()

    def warn_once(self, key: str, record: bytes | None, message: str, *arguments: object) -> None:
        """Log a warning about ``record`` under ``key``, unless the last warning for that key was about this record."""
        mark = hash(record)
        with self._lock:
            if self._logged.get(key) == mark:
                return
            if len(self._logged) >= _MOST:
                self._logged.clear()
            self._logged[key] = mark
        logger.warning(message, *arguments, extra=fields("record_unusable", key=key))
