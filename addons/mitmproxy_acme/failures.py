"""Failures: what failed, in which scope, and until when it is left alone.

This module knows backoffs in memory and in storage; it must not know how an order is made. A name's failure concerns
the name; a CA's, or that of our settings there, concerns every name.
"""

import contextlib
import logging
from collections.abc import Callable

from acme_storage import StorageError

from .backoff import Backoff
from .config import Config
from .errors import BackingOff, IssuanceError, IssuerUnavailable, SettingsRefused
from .keeping.store import Store
from .logs import fields
from .names import Subject
from .recent import Recent
from .renewal import describe_duration
from .threads import Threads

logger = logging.getLogger(__name__)

_REMEMBERED = 10_000


class Failures:
    """The backoffs of names (by id) and of the CA (by directory URL). Use it from one event loop.

    They are kept in storage, so that they outlive a restart and hold for every node; only a refusal of our settings
    is not, for a start with better ones should ask at once.
    """

    def __init__(
        self,
        config: Config,
        directory: str,
        store: Store,
        threads: Threads,
        now: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self._config = config
        self._directory = directory
        self._store = store
        self._threads = threads
        self._now = now
        self._draw = draw
        self._known: Recent[str, Backoff] = Recent(_REMEMBERED)

    def known(self, subject: Subject) -> BackingOff | None:
        """Return why nothing is asked now, as far as this process knows: no storage, no wait."""
        for scope in (self._directory, subject.id):
            if (backoff := self._active(self._known.get(scope))) is not None:
                return self._refusal(subject, backoff)
        return None

    def active(self) -> dict[str, Backoff]:
        """Return what this process leaves alone now: names, and the CA by its directory URL."""
        return {scope: backoff for scope, backoff in self._known.items() if self._active(backoff)}

    def active_for(self, scope: str) -> Backoff | None:
        """Return the same of one name, or of the CA."""
        return self._active(self._known.get(scope))

    async def check(self, subject: Subject) -> None:
        """Raise ``BackingOff`` while the name or the CA is left alone, whichever node failed there."""
        for scope in (self._directory, subject.id):
            stored = await self._threads.storage(self._store.backoff, scope)
            if stored is not None:
                self._known.put(scope, stored)
        if (refusal := self.known(subject)) is not None:
            raise refusal

    async def record(self, subject: Subject, error: IssuanceError, *, ca: str, seconds: float, node: str) -> Backoff:
        """Count a failure at ``ca``, which took so many seconds, and return the backoff that follows.

        One that comes while its scope is backing off already (of many orders that a CA's end interrupts) is not
        counted again.
        """
        whole_ca = isinstance(error, IssuerUnavailable | SettingsRefused)
        scope = self._directory if whole_ca else subject.id
        previous = self._known.get(scope)
        if (active := self._active(previous)) is not None:
            return active
        waits = self._config.fail_backoff.for_issuer() if whole_ca else self._config.fail_backoff
        at_least = error.retry_after or 0.0
        backoff = waits.after(previous, str(error), now=self._now(), draw=self._draw(), at_least=at_least)
        self._known.put(scope, backoff)
        wait = backoff.until - self._now()
        logger.warning(
            "%s: no certificate: %s; next attempt in %s (%s, %.2f s, node %s)",
            *(subject, error, describe_duration(wait), ca, seconds, node),
            extra=fields(
                "certificate_failed",
                name=subject.id,
                node=node,
                ca=ca,
                seconds=round(seconds, 3),
                reason=str(error),
                failures=backoff.failures,
                retry_in=round(wait),
            ),
        )
        if not isinstance(error, SettingsRefused):
            await self._save(scope, backoff)
        return backoff

    def leave(self, subject: Subject, reason: str, until: float) -> None:
        """Leave a name alone though nothing has failed, in this process: the others find out by themselves."""
        previous = self._known.get(subject.id)
        wait = describe_duration(until - self._now())
        logger.warning("%s: not ordered: %s; next attempt in %s", subject, reason, wait)
        self._known.put(subject.id, Backoff(previous.failures if previous else 0, until, reason))

    async def pardon(self, subject: Subject) -> None:
        """Let a name be tried again at once, for a person says so. Raises ``StorageError``."""
        self._known.forget(subject.id)
        await self._threads.storage(self._store.forget_backoff, subject.id)

    async def forget(self, subject: Subject) -> None:
        """A certificate came: the failures before it are history."""
        for scope in (self._directory, subject.id):
            if self._known.get(scope) is not None:
                self._known.forget(scope)
                with contextlib.suppress(StorageError):  # it ends by itself, and the certificate is what counts
                    await self._threads.storage(self._store.forget_backoff, scope)

    async def _save(self, scope: str, backoff: Backoff) -> None:
        try:
            await self._threads.storage(self._store.save_backoff, scope, backoff)
        except StorageError as error:
            logger.warning(
                "the backoff of %s is not stored, and ends with this process: %s",
                *(scope, error),
                extra=fields("backoff_unsaved", name=scope, reason=str(error)),
            )

    def _active(self, backoff: Backoff | None) -> Backoff | None:
        return backoff if backoff is not None and backoff.until > self._now() else None

    def _refusal(self, subject: Subject, backoff: Backoff) -> BackingOff:
        wait = describe_duration(backoff.until - self._now())
        return BackingOff(f"{subject}: left alone for {wait}, because {backoff.reason}", until=backoff.until)
