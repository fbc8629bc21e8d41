"""The whole contract between certificates and databases: six methods.

This module knows no adapter and no meaning of any key. ``tests/acme_storage/contract.py`` holds every adapter to
what is written here.
"""

from typing import Protocol


class Storage(Protocol):
    """Small values under slash-separated ASCII keys.

    Every method blocks (call it off the event loop), may be called from any thread at the same time, and raises
    ``StorageUnavailable`` when the store cannot be reached, read or written. A key is one to 512 characters of
    ``[A-Za-z0-9._~:*@=+-]`` in parts between single slashes, no part being ``.`` or ``..``; ``ValueError``
    otherwise. A value is up to 64 KiB of bytes. ``ttl`` is seconds, above zero; an expired value is absent to all
    methods.
    """

    def get(self, key: str) -> bytes | None:
        """Return the value, or None where there is none.

        Raises ``StorageCorrupt`` when what lies there was not written by this adapter.
        """
        ...

    def put(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        """Write the value. The last writer wins; a reader sees one value or the other, never a mixture.

        When it returns, the value survives the death of this process.
        """
        ...

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        """Replace ``old`` by ``new`` if ``old`` is what is there; the only atomic operation.

        ``old`` None means absent, ``new`` None means delete. Of any number of concurrent swaps from the same
        ``old``, in any number of processes, exactly one returns True. A corrupt record equals no ``old``.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the value, corrupt or not. Nothing happens where there is none."""
        ...

    def keys(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[str]:
        """Return the keys that begin with ``prefix`` and sort after ``after``: by code point, at most ``limit``.

        ``prefix`` is empty or ends in a slash. A page costs what a page holds, as far as the store allows.
        """
        ...

    def close(self) -> None:
        """Let go of connections and files. Idempotent; the other methods may fail afterwards."""
        ...
