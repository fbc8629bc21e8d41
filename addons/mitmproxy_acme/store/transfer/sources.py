"""Where a transfer reads from: a storage, page by page; ``backup_source`` reads the same from a file.

This module knows pages of keys; it must not know what a record means.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from acme_storage import Storage, StorageCorrupt

_PAGE = 500


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """A record at the source. ``end`` is when it ends (Unix seconds); None if only the rules of its kind say."""

    value: bytes = field(repr=False)
    end: float | None = None


class Source(Protocol):
    """What a transfer reads."""

    def pages(self, prefix: str) -> Iterator[list[str]]:
        """Yield the sorted keys under ``prefix``, a page at a time."""
        ...

    def read(self, key: str) -> SourceRecord | None:
        """Return a record of the page that was yielded last; None if it was deleted meanwhile. Safe from any thread.

        Raises ``StorageCorrupt`` for one that the source cannot read.
        """
        ...


class StorageSource:
    """A storage as a source. Every method blocks and raises ``StorageError``."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def pages(self, prefix: str) -> Iterator[list[str]]:
        return key_pages(self._storage, prefix)

    def read(self, key: str) -> SourceRecord | None:
        value = self._storage.get(key)
        return SourceRecord(value) if value is not None else None

    def has(self, key: str) -> bool:
        """Say whether there is a record under a key, readable or not."""
        try:
            return self._storage.get(key) is not None
        except StorageCorrupt:
            return True


def key_pages(storage: Storage, prefix: str) -> Iterator[list[str]]:
    """Yield the sorted keys under ``prefix``, a page at a time. Raises ``StorageError``."""
    after = ""
    while page := storage.keys(prefix, after=after, limit=_PAGE):
        yield page
        after = page[-1]


def missing_pages(source: Iterator[list[str]], destination: Iterator[list[str]]) -> Iterator[list[str]]:
    """Yield the keys of ``source`` that ``destination`` lacks, a page at a time; both are sorted."""
    others = (key for page in destination for key in page)
    other = next(others, None)
    for page in source:
        missing = list[str]()
        for key in page:
            while other is not None and other < key:
                other = next(others, None)
            if key != other:
                missing.append(key)
        if missing:
            yield missing
