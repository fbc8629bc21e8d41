"""Ways: what a command can do with the certificates, by whichever way there is.

    remote   through the admin API of a running proxy, which then orders
    local    on the storage itself, with a manager of this process, which then orders

This module knows what both promise, and which is taken; it must not know how either does it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from ..admin.certificate_rows import State
from ..admin.documents import Document
from ..config.config import Config
from ..core.errors import NotFound
from ..core.names import ServerName
from ..core.thread_pools import in_a_thread
from . import terminal

_ANSWERS_WITHIN = 10.0  # seconds in which a proxy has said all that there is to say of its state

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


class Certificates(Protocol):
    """The certificates of a cluster. Use it from one event loop.

    Every method raises ``StorageError`` (local) or ``RequestFailed`` (remote) where the way itself fails.
    """

    @property
    def way(self) -> str:
        """One line that says which way it is."""
        ...

    def listed(self, *, search: str = "", states: Collection[State] = ()) -> AsyncIterator[Document]:
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


@contextlib.asynccontextmanager
async def opened(config: Config, confdir: Path) -> AsyncIterator[Certificates]:
    """Give the way that there is, having said which on standard error. Raises ``ConfigError``."""
    from .storage_backend import Local  # here, for it imports the values above

    certificates = await _by_a_proxy(config) or await Local.open(config, confdir)
    terminal.remark(certificates.way)
    try:
        yield certificates
    except asyncio.CancelledError:  # a second Ctrl-C: what is under way is not waited for
        raise
    except BaseException:
        await certificates.close()
        raise
    await certificates.close()


async def _by_a_proxy(config: Config) -> Certificates | None:
    """Return the way by the admin API that the options name; None where nobody listens. Raises ``ConfigError``."""
    from .api_backend import Remote, something_else  # here, for it imports the values above

    address, token = config.admin, config.admin_token
    if address is None:
        return None
    try:  # in a thread, so that Ctrl-C ends it, and with a bound for what never ends its reply
        async with asyncio.timeout(_ANSWERS_WITHIN):
            return await in_a_thread(lambda: Remote.connect(address, token))
    except TimeoutError:
        raise something_else(address) from None
