"""What can go wrong with a store, in three classes.

    StorageError
    ├── StorageUnavailable   the store cannot be reached, read or written now; trying later may help
    └── StorageCorrupt       the store returned something that we cannot have written

This module knows no particular database: each adapter translates its client's exceptions into these.
"""


class StorageError(Exception):
    """A store failed. The message says which store, what was tried, and how to fix it."""


class StorageUnavailable(StorageError):
    """The store cannot be reached, read or written now (down, no permission, disk full, timeout)."""


class StorageCorrupt(StorageError):
    """A record is not what the adapter wrote: cut short, edited by hand, or written by another program."""
