"""What a command can do with the certificates of a cluster, and what became of one of them.

This module knows what every backend promises; it must not know any of them.
"""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Protocol, Self

from ..admin import problems
from ..admin.certificate_rows import State
from ..admin.certificate_service import Outcome
from ..admin.documents import Document
from ..core.names import ServerName

_LIMITED = (problems.RATE_LIMITED.type, problems.CA_LIMIT_REACHED.type)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one certificate.

    ``document`` describes it if there is one; ``reason`` and ``retry_at`` (RFC 3339) say why it failed and when to try
    again. ``limited`` says that the CA wants fewer orders, ``unvalidated`` that it could not validate a name, ``stop``
    why no other certificate can be obtained now either.
    """

    host: str
    outcome: Outcome
    document: Document | None = None
    reason: str = ""
    retry_at: str | None = None
    limited: bool = False
    unvalidated: bool = False
    stop: str = ""

    @classmethod
    def failed(cls, host: str, problem: str, reason: str, retry_at: str | None, stop: str) -> Self:
        """Return the result of a failure; ``problem`` is its type (``admin.problems``)."""
        return cls(
            host,
            Outcome.FAILED,
            reason=reason,
            retry_at=retry_at,
            limited=problem in _LIMITED,
            unvalidated=problem == problems.CHALLENGE_FAILED.type,
            stop=stop,
        )


class Backend(Protocol):
    """The certificates of a cluster. Use it from one event loop.

    Every method raises ``StorageError`` (storage) or ``RequestFailed`` (admin API) if the backend itself fails.
    """

    @property
    def description(self) -> str:
        """One line that says which backend this is."""
        ...

    def select(self, *, search: str = "", states: Collection[State] = ()) -> AsyncIterator[Document]:
        """Yield all that match, sorted by host; ``search`` is part of a name, ``states`` are alternatives."""
        ...

    async def get(self, name: ServerName) -> Document:
        """Describe the certificate for ``name``. Raises ``NotFound``."""
        ...

    async def issue(self, name: ServerName) -> Result:
        """Obtain a certificate for ``name`` unless one is stored."""
        ...

    async def renew(self, name: ServerName) -> Result:
        """Order a new certificate, due or not."""
        ...

    async def revoke(self, name: ServerName, reason: str) -> str:
        """Revoke and delete it; return a further sentence for the person, empty if there is nothing more to say.

        Raises ``NotFound``, and ``AcmeError`` if the certificate stays as it is.
        """
        ...

    async def close(self) -> None:
        """Wait for running work to end, then close."""
        ...
