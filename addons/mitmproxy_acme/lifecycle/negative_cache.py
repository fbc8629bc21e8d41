"""Negative cache: refusals are repeated from memory for some seconds, so that repeated visits cost nothing.

This module knows errors and how long they are repeated; it must not know why a name is refused.
"""

from collections.abc import Callable

from acme_storage import StorageError

from ..core.errors import AcmeError, NoControlNode
from ..core.expiring_cache import ExpiringCache
from ..core.names import ServerName

# Seconds before storage is read again: another node may have made up for the refusal. A refusal that concerns no name
# in particular ends sooner.
_LONG, _SHORT = 10.0, 1.0
_REFUSALS = 10_000

type Refusal = AcmeError | StorageError


class NegativeCache:
    """The latest refusals, by the id of the certificate. Use it from one thread."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._refusals: ExpiringCache[ServerName, Refusal] = ExpiringCache(_REFUSALS, _LONG, now)

    def repeat(self, id: ServerName) -> None:
        """Raise what ``id`` was refused with, until that expires."""
        if (refusal := self._refusals.get(id)) is not None:
            raise _bare(refusal)

    def remember(self, id: ServerName, error: Refusal, until: float | None = None) -> None:
        """Repeat ``error`` for some seconds, and not beyond ``until`` (Unix seconds).

        Only its message and its fields are kept: its traceback and its causes hold whole frames, some 7 KB.
        """
        seconds = _SHORT if isinstance(error, StorageError | NoControlNode) else _LONG
        if until is not None:
            seconds = min(seconds, until - self._now())
        self._refusals.put(id, _bare(error), seconds)

    def forget(self, id: ServerName) -> None:
        self._refusals.forget(id)


def _bare(error: Refusal) -> Refusal:
    """Return the same error without its origin: no traceback, no cause, no context."""
    bare = type(error).__new__(type(error), *error.args)
    bare.__dict__.update(error.__dict__)
    return bare
