"""What can go wrong with a store, in three classes.

    StorageError
    ├── StorageUnavailable   the store cannot be reached, read or written now; trying later may help
    └── StorageCorrupt       the store answered with something it could not have been given by us

This module knows nothing of any particular database: each adapter maps its client's exceptions here.
"""


class StorageError(Exception):
    """A store failed. The message says which store, what was tried, and what would mend it."""


class StorageUnavailable(StorageError):
    """The store cannot be reached, read or written now (down, no permission, disk full, timeout)."""


class StorageCorrupt(StorageError):
    """A record is not what the adapter wrote: cut short, overwritten by hand, of another program."""
