"""Stores for small values, one contract for all: ``open_storage`` takes a URL and gives a ``Storage``.

This package knows databases, and nothing of certificates, ACME or mitmproxy.
"""

from acme_storage.errors import StorageCorrupt, StorageError, StorageUnavailable
from acme_storage.protocol import Storage
from acme_storage.urls import open_storage

__all__ = ["Storage", "StorageCorrupt", "StorageError", "StorageUnavailable", "open_storage"]
