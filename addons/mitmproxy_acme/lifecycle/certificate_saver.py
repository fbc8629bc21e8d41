"""Keeper: a new certificate is stored at once, or as soon as it can be.

This module knows the loop and one way to save; it must not know how a certificate came about.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from acme_storage import StorageError

from ..core.certificate import Certificate
from ..core.errors import RecordRefused
from ..core.names import ServerName, Subject
from ..core.renewal import RenewBefore, first_check_at
from ..core.single_flight import SingleFlight
from ..core.structured_logging import fields
from ..core.thread_pools import ThreadPools
from ..store.certificate_writer import CertificateWriter
from ..store.store import Slot

logger = logging.getLogger(__name__)

_SAVE_AGAIN = 3.0


class CertificateSaver:
    """Keeps the certificates of one manager. Use it from one event loop."""

    def __init__(
        self,
        saving: CertificateWriter,
        threads: ThreadPools,
        wish: RenewBefore,
        now: Callable[[], float],
        on_scheduled: Callable[[float], None],
    ) -> None:
        """``on_scheduled`` hears when the renewer is to look at what was stored."""
        self._saving = saving
        self._threads = threads
        self._wish = wish
        self._now = now
        self._on_scheduled = on_scheduled
        self._saves: SingleFlight[ServerName, None] = SingleFlight("save")

    async def keep(self, subject: Subject, slot: Slot, certificate: Certificate) -> Certificate:
        """Store it, and return it or a faster node's. With storage down it is returned all the same, and stored later.

        So it is where another node stored one meanwhile that no key here opens. Raises nothing.
        """
        try:
            return await self._save(subject, slot, certificate)
        except (RecordRefused, StorageError) as error:
            logger.warning(
                "%s: the new certificate is held in memory only for now: %s",
                *(subject, error),
                extra=fields("certificate_unsaved", name=subject.id, reason=str(error)),
            )
            self._saves.start(subject.id, lambda: self._save_later(subject, slot, certificate))
            return certificate

    async def wait_idle(self) -> None:
        """Wait until nothing is left to be stored."""
        await self._saves.wait_idle()

    async def _save(self, subject: Subject, slot: Slot, certificate: Certificate) -> Certificate:
        look = first_check_at(certificate, self._wish)
        saved = await self._threads.storage(
            self._saving.save, subject, slot, certificate, check_at=look, now=self._now()
        )
        self._on_scheduled(look)  # after it is stored, so that the look finds it
        return saved

    async def _save_later(self, subject: Subject, slot: Slot, certificate: Certificate) -> None:
        while self._now() < certificate.not_after:
            await asyncio.sleep(_SAVE_AGAIN)
            with contextlib.suppress(RecordRefused, StorageError):
                await self._save(subject, slot, certificate)
                logger.info(
                    "%s: the certificate that was held in memory only is stored",
                    subject,
                    extra=fields("certificate_saved", name=subject.id),
                )
                return
