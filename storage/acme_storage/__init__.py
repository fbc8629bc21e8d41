"""Stores for small values, all with one contract: ``open_storage`` takes a URL and returns a ``Storage``.

``open_reader`` reads what other programs store in the same kinds of servers.

This package knows databases, and nothing about certificates, ACME or mitmproxy.
"""

from acme_storage.checks import is_key
from acme_storage.errors import StorageCorrupt, StorageError, StorageUnavailable
from acme_storage.protocol import Reader, Storage
from acme_storage.registry import find_plain_text, open_reader, open_storage

__all__ = [
    "Reader",
    "Storage",
    "StorageCorrupt",
    "StorageError",
    "StorageUnavailable",
    "find_plain_text",
    "is_key",
    "open_reader",
    "open_storage",
]
