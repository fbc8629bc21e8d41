"""Refusals: answered from memory for some seconds, so that visitors of a name without a certificate cost nothing.

This module knows errors and until when they are repeated; it must not know why a name is refused.
"""

from collections.abc import Callable

from acme_storage import StorageError

from ..core.errors import AcmeError, NoControlNode
from ..core.lru_cache import LruCache
from ..core.names import ServerName

# How long a refusal is repeated before storage is asked again: another node may have mended it. One that concerns no
# name in particular is over sooner.
_MEMORY, _SHORT_MEMORY = 10.0, 1.0
_REFUSALS = 10_000

type Refusal = AcmeError | StorageError


class NegativeCache:
    """What was refused lately, by the id of the certificate. Use it from one thread."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._refused: LruCache[ServerName, tuple[float, Refusal]] = LruCache(_REFUSALS)

    def repeat(self, id: ServerName) -> None:
        """Raise what ``id`` was refused with, while that holds."""
        # One that would hold for longer is from before the clock was set back, and is over.
        if (refused := self._refused.get(id)) is not None and 0 < refused[0] - self._now() <= _MEMORY:
            raise _bare(refused[1])

    def remember(self, id: ServerName, error: Refusal, until: float | None = None) -> None:
        """Repeat ``error`` for some seconds, and not beyond ``until`` (Unix seconds).

        What is kept is the message and the fields: its traceback and its causes hold whole frames, some 7 KB.
        """
        end = self._now() + (_SHORT_MEMORY if isinstance(error, StorageError | NoControlNode) else _MEMORY)
        self._refused.put(id, (end if until is None else min(end, until), _bare(error)))

    def forget(self, id: ServerName) -> None:
        self._refused.forget(id)


def _bare(error: Refusal) -> Refusal:
    """Return the same error without where it came from: no traceback, no cause, no context."""
    bare = type(error).__new__(type(error), *error.args)
    bare.__dict__.update(error.__dict__)
    return bare
