"""The whole contract between certificates and databases: six methods; and three to read what others wrote.

This module knows no adapter and no meaning of any key. ``tests/acme_storage/contract.py`` holds every adapter
to what is written here.
"""

from typing import Protocol


class Storage(Protocol):
    """Small values under slash-separated ASCII keys.

    Every method blocks (call it off the event loop), may be called from any thread at the same time, and raises
    ``StorageUnavailable`` when the store cannot be reached, read or written. A key is one to 512 characters of
    ``[A-Za-z0-9._~:*@=+-]`` in parts between single slashes, no part being ``.`` or ``..``; ``a`` and ``a/b``
    can both hold a value. A value is up to 64 KiB of bytes. ``ttl`` is finite seconds, above zero; a value is
    absent to all methods from ``ttl`` seconds after it was written. Arguments outside these are a
    ``ValueError`` before the store is touched.
    """

    def get(self, key: str) -> bytes | None:
        """Return the value, or None where there is none.

        Raises ``StorageCorrupt`` when what lies there was not written by this adapter.
        """
        ...

    def put(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        """Write the value. The last writer wins; a reader sees one value or the other, never a mixture.

        It replaces the earlier value's ttl too: without ``ttl`` the value stays. When it returns, the value
        survives the death of this process; whether one with a ttl survives a power cut is up to the store.
        """
        ...

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        """Replace ``old`` by ``new`` if ``old`` is what is there; the only atomic operation.

        ``old`` None means absent, ``new`` None means delete (``ttl`` then means nothing), and ``new`` equal to
        ``old`` renews the ttl. Of any number of concurrent swaps from the same ``old``, in any number of
        processes, exactly one returns True. A corrupt record equals no ``old``.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the value, corrupt or not. Nothing happens where there is none."""
        ...

    def keys(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[str]:
        """Return the keys that begin with ``prefix`` and sort after ``after``: by code point, at most ``limit``.

        ``prefix`` is empty or ends in a slash; ``after`` need not exist. A corrupt record is listed, so that it
        can be found and deleted. A page costs what a page holds, as far as the store allows. Keys written or
        deleted meanwhile may be in it or not.
        """
        ...

    def close(self) -> None:
        """Let go of connections and files. Idempotent; the other methods may fail afterwards."""
        ...


class Raw(Protocol):
    """Keys and values that another program keeps in the same kind of server, in its own layout. Only for reading.

    Every method blocks and raises ``StorageUnavailable``. For one thread at a time.
    """

    def __str__(self) -> str:
        """Say which server, and where in it; no secret."""
        ...

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with ``prefix``, sorted; all at once."""
        ...

    def get(self, key: str) -> bytes | None:
        """Return the value, None where there is none (any more). Raises ``StorageCorrupt`` for what is no text."""
        ...

    def close(self) -> None:
        """Let go of connections. Idempotent."""
        ...
