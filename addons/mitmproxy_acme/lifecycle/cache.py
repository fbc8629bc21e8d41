"""Cache: the certificates in memory, by name, which handshakes are answered with at once.

This module knows names, and how to read again what is stored; it must not know how a certificate is obtained.
"""

import logging
from collections.abc import Callable, Container
from itertools import islice

from ..config.config import Config
from ..core.certificate import Certificate
from ..core.errors import RecordRefused
from ..core.instrumentation import Instrumentation
from ..core.lru_cache import LruCache
from ..core.names import ServerName, Subject, covering_wildcard
from ..core.renewal import renew_at
from ..core.structured_logging import fields
from ..core.thread_pools import ThreadPools
from ..store.store import Store
from .negative_cache import NegativeCache

logger = logging.getLogger(__name__)

_REPORTED = 1_000
_MOST_OVERDUE = 200


class Cache:
    """At most ``acme_cache_size`` names, the least recently used go first; a name with two kinds of keys is two.

    Use it from one event loop.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        threads: ThreadPools,
        measures: Instrumentation,
        refusals: NegativeCache,
        now: Callable[[], float],
    ) -> None:
        """``refusals`` forgets a name whose certificate comes."""
        self._config = config
        self._store = store
        self._threads = threads
        self._measures = measures
        self._refusals = refusals
        self._now = now
        self._held: LruCache[ServerName, Certificate] = LruCache(config.cache_size)
        # The fingerprint that was kept instead of an earlier record, where that is logged.
        self._reported: LruCache[ServerName, bytes] = LruCache(_REPORTED)
        self.chained: set[str] = set()
        """The directories of CAs that have delivered intermediates, as far as this process has seen."""

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: ServerName) -> Certificate | None:
        """Return the unexpired certificate for a name, or for one with a kind of key: no await, no lock, no thread."""
        now = self._now()
        certificate = self._held.get(key)
        if certificate is None or now >= certificate.not_after:
            certificate = self._held.get(covering_wildcard(key))
        hit = certificate is not None and now < certificate.not_after
        self._measures.cache(hit=hit)
        return certificate if hit else None

    def held(self) -> dict[ServerName, Certificate]:
        """Return the unexpired certificates by their ids."""
        now = self._now()
        return {certificate.id: certificate for certificate in self._held.values() if now < certificate.not_after}

    def find(self, subject: Subject) -> Certificate | None:
        """Return the unexpired certificate of a subject, and not one that covers its names. Takes constant time."""
        now = self._now()
        held = (self._held.get(key) for key in subject.lookup_keys)
        ours = (one for one in held if one is not None and one.id == subject.id and now < one.not_after)
        return next(ours, None)

    def put(self, subject: Subject, certificate: Certificate) -> Certificate:
        """Serve it for all names of ``subject``, unless an unexpired one of later date is held already. Return it.

        Anybody who can write to the storage can put back a replaced certificate, sealed or not: no node that serves its
        successor takes it.
        """
        for key in subject.lookup_keys:
            held = self._held.get(key)
            if held is not None and certificate.precedes(held) and self._now() < held.not_after:
                self._log_put_back(held)
            else:
                self._held.put(key, certificate)
        self._refusals.forget(subject.id)
        if certificate.chain:
            self.chained.add(certificate.ca)
        return certificate

    def _log_put_back(self, held: Certificate) -> None:
        if self._reported.get(held.id) != held.fingerprint:
            self._reported.put(held.id, held.fingerprint)
            logger.warning(
                "%s: the stored certificate was issued before the one that is served, which is kept: somebody put back "
                "an earlier record",
                held.id,
                extra=fields("certificate_put_back", name=held.id),
            )

    async def refresh(self) -> list[Certificate]:
        """Read again each certificate that is overdue: another node may have renewed it. Raises ``StorageError``.

        At most the 200 that were used last: idle names stay overdue for weeks. Expired ones are dropped: a handshake
        for their names reads the storage. Return those that were overdue.
        """
        held = self._held.items()
        expired, overdue = await self._threads.storage(self._overdue, held, self._now())
        for key in expired:
            self._held.forget(key)
        await self.reload(overdue)
        return list(overdue.values())

    def _overdue(
        self, held: list[tuple[ServerName, Certificate]], now: float
    ) -> tuple[list[ServerName], dict[ServerName, Certificate]]:
        """Return the names whose certificate has expired, and by id the certificates that are overdue. Blocks."""
        expired = [key for key, certificate in held if now >= certificate.not_after]
        lasting = (certificate for _, certificate in reversed(held) if now < certificate.not_after)
        renew_before = self._config.renew_before
        overdue = (held for held in lasting if renew_at(held, renew_before, None, now) <= now)
        return expired, {certificate.id: certificate for certificate in islice(overdue, _MOST_OVERDUE)}

    async def reload(self, ids: Container[ServerName] | None = None) -> set[ServerName]:
        """Read again what is stored under these ids; without ids, under all that are held.

        Return the ids of certificates that are held and no longer stored. They are served on: a storage that has lost
        its values is no reason to order all of them again. Raises ``StorageError``.
        """
        absent = set[ServerName]()
        held = {certificate.id: certificate for certificate in self._held.values()}
        for id, old in held.items():
            if ids is not None and id not in ids:
                continue
            subject = self._config.subject(id)
            try:
                slot = await self._threads.storage(self._store.slot, id)
            except RecordRefused:  # the one in memory is served on
                continue
            if subject is not None and (newer := slot.satisfying(subject, old, self._now())) is not None:
                self.put(subject, newer)
            elif slot.record is None and not slot.corrupt:
                absent.add(id)
        return absent

    def forget(self, id: ServerName) -> None:
        """Serve no longer the certificate of this id, which was deleted."""
        # Not by the names in it: an imported wildcard is held under a name that it covers.
        for key, certificate in self._held.items():
            if certificate.id == id:
                self._held.forget(key)
