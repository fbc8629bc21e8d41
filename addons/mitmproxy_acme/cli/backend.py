"""What a command can do with the certificates of a cluster, and what became of one of them.

This module knows what every backend promises; it does not know any of them.
"""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ..admin.certificate_rows import State
from ..admin.documents import Document
from ..core.errors import NotFound
from ..core.names import ServerName

# Why nothing was obtained though a certificate is there: it is of another CA, or of another kind of key.
STILL_THE_OLD = "no certificate came of acme_ca; the old one is still served"


class Outcome(StrEnum):
    """What became of one certificate; the values are what a person, and a JSON document, is told."""

    OBTAINED = "obtained"
    RENEWED = "renewed"
    STORED = "stored already"
    FAILED = "failed"
    LEFT = "not tried"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one certificate.

    ``document`` describes it where there is one; ``reason`` and ``retry_at`` (RFC 3339) say why it failed, and when it
    is tried again. ``limited`` says that the CA wants fewer orders, ``unvalidated`` that it could not validate a name,
    ``stop`` why none of the others would fare better.
    """

    host: str
    outcome: Outcome
    document: Document | None = None
    reason: str = ""
    retry_at: str | None = None
    limited: bool = False
    unvalidated: bool = False
    stop: str = ""


def not_found(name: str, failure: Document | None) -> NotFound:
    """Return the error that says why none is stored, where that is known; ``failure`` as ``documents`` writes it."""
    if failure is None:
        return NotFound(f"no certificate is stored for {name}")
    reason, retry_at = failure["reason"], failure["retry_at"]
    return NotFound(f"no certificate is stored for {name}: {reason}; to be tried again at {retry_at}")


class Backend(Protocol):
    """The certificates of a cluster. Use it from one event loop.

    Every method raises ``StorageError`` (local) or ``RequestFailed`` (remote) where the way itself fails.
    """

    @property
    def description(self) -> str:
        """One line that says which way it is."""
        ...

    def select(self, *, search: str = "", states: Collection[State] = ()) -> AsyncIterator[Document]:
        """Yield all that match, sorted by host; ``search`` is part of a name, ``states`` are any of several."""
        ...

    async def get(self, name: ServerName) -> Document:
        """Return what there is to say of the certificate for ``name``. Raises ``NotFound``."""
        ...

    async def issue(self, name: ServerName) -> Result:
        """Have a certificate for ``name``: stored already, or ordered now."""
        ...

    async def renew(self, name: ServerName) -> Result:
        """Order anew, whenever it is due."""
        ...

    async def revoke(self, name: ServerName, reason: str) -> str:
        """Revoke and forget; return what more there is to say of it, empty where there is nothing.

        Raises ``NotFound``, and ``AcmeError`` with the certificate left where it is.
        """
        ...

    async def close(self) -> None:
        """Let what is under way end."""
        ...
