"""The whole contract between certificates and databases: six methods; and three to read what others stored.

This module knows no adapter, and not what any key means. ``tests/acme_storage/contract.py`` tests every adapter against
this text.
"""

from typing import Protocol


class Storage(Protocol):
    """Small values under slash-separated ASCII keys.

    Every method blocks (call it off the event loop), may be called from any thread at the same time, and raises
    ``StorageUnavailable`` if the store cannot be reached, read or written. A key has 1 to 512 characters of
    ``[A-Za-z0-9._~:*@=+-]`` in parts between single slashes, and no part may be ``.`` or ``..``; ``a`` and ``a/b`` can
    both hold a value. A value has up to 64 KiB. ``ttl`` is in seconds, finite and above zero; a value is absent to all
    methods from ``ttl`` seconds after it was written. Other arguments raise ``ValueError`` before the store is used.
    """

    def get(self, key: str) -> bytes | None:
        """Return the value, or None if there is none.

        Raises ``StorageCorrupt`` if the stored record was not written by this adapter.
        """
        ...

    def put(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        """Write the value. The last writer wins; a reader sees one value or the other, never a mixture.

        It replaces the earlier value's ttl too: without ``ttl`` the value is permanent. When it returns, the value
        survives the death of this process; whether a value with a ttl survives a power cut depends on the store.
        """
        ...

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        """Replace ``old`` by ``new`` if ``old`` is the current value; the only atomic operation.

        ``old`` None means absent, ``new`` None means delete (``ttl`` is then ignored), and ``new`` equal to ``old``
        renews the ttl. Of any number of concurrent swaps from the same ``old``, in any number of processes, exactly one
        returns True. A corrupt record equals no ``old``.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the value, corrupt or not; do nothing if there is none."""
        ...

    def keys(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[str]:
        """Return the keys that begin with ``prefix`` and sort after ``after``: by code point, at most ``limit``.

        ``prefix`` is empty or ends in a slash; ``after`` need not exist. A corrupt record is listed, so that it can be
        found and deleted. A page costs only its own size, as far as the store allows. Keys that are written or deleted
        meanwhile may be included or not.
        """
        ...

    def close(self) -> None:
        """Close connections and files. Idempotent; the other methods may fail afterwards."""
        ...


class Reader(Protocol):
    """Keys and values that another program stores in the same kind of server, in its own layout. Read-only.

    Every method blocks and raises ``StorageUnavailable``. Use it from one thread at a time.
    """

    def __str__(self) -> str:
        """Return which server and which part of it, without secrets."""
        ...

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with ``prefix``, sorted; all at once."""
        ...

    def get(self, key: str) -> bytes | None:
        """Return the value, None if there is none (any more). Raises ``StorageCorrupt`` unless it is text."""
        ...

    def close(self) -> None:
        """Close connections. Idempotent."""
        ...
