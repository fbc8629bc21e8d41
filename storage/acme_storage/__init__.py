"""Stores for small values, one contract for all: ``open_storage`` takes a URL and gives a ``Storage``.

``open_raw`` reads what other programs keep in servers of the same kinds.

This package knows databases, and nothing of certificates, ACME or mitmproxy.
"""

from acme_storage.errors import StorageCorrupt, StorageError, StorageUnavailable
from acme_storage.protocol import Raw, Storage
from acme_storage.urls import find_plain_text, open_raw, open_storage

__all__ = [
    "Raw",
    "Storage",
    "StorageCorrupt",
    "StorageError",
    "StorageUnavailable",
    "find_plain_text",
    "open_raw",
    "open_storage",
]
