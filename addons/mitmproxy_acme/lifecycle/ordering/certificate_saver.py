"""Certificate saver: a new certificate is stored at once, or as soon as the storage takes it.

This module knows the loop and one way to save; it must not know where a certificate comes from.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from acme_storage import StorageError

from ...core.certificate import Certificate
from ...core.errors import RecordRefused
from ...core.events import CheckScheduled, Events
from ...core.names import ServerName, Subject
from ...core.renewal import RenewBefore, first_check_at
from ...core.single_flight import SingleFlight
from ...core.structured_logging import fields
from ...core.thread_pools import ThreadPools
from ...store.certificate_writer import CertificateWriter
from ...store.store import Slot

logger = logging.getLogger(__name__)

_SAVE_AGAIN = 3.0


class CertificateSaver:
    """Saves the certificates of one node. Use it from one event loop."""

    def __init__(
        self,
        writer: CertificateWriter,
        threads: ThreadPools,
        events: Events,
        renew_before: RenewBefore,
        now: Callable[[], float],
    ) -> None:
        self._writer = writer
        self._threads = threads
        self._events = events
        self._renew_before = renew_before
        self._now = now
        self._saves: SingleFlight[ServerName, None] = SingleFlight("save")

    async def save(self, subject: Subject, slot: Slot, certificate: Certificate) -> Certificate:
        """Store it over what ``slot`` saw; return it, or the one that a faster node stored. Raises nothing.

        While storage is down, or where another node stored one meanwhile that no key here decrypts, it is returned all
        the same, and stored later.
        """
        try:
            return await self._save(subject, slot, certificate)
        except (RecordRefused, StorageError) as error:
            logger.warning(
                "%s: the new certificate is held in memory only for now: %s",
                subject,
                error,
                extra=fields("certificate_unsaved", name=subject.id, reason=str(error)),
            )
            self._saves.start(subject.id, lambda: self._save_later(subject, slot, certificate))
            return certificate

    async def wait_idle(self) -> None:
        """Wait until nothing is left to be stored."""
        await self._saves.wait_idle()

    async def _save(self, subject: Subject, slot: Slot, certificate: Certificate) -> Certificate:
        check_at = first_check_at(certificate, self._renew_before)
        saved = await self._threads.storage(
            self._writer.save, subject, slot, certificate, check_at=check_at, now=self._now()
        )
        self._events.publish(CheckScheduled(check_at))  # after it is stored, so that the check finds it
        return saved

    async def _save_later(self, subject: Subject, slot: Slot, certificate: Certificate) -> None:
        while self._now() < certificate.not_after:
            await asyncio.sleep(_SAVE_AGAIN)
            with contextlib.suppress(RecordRefused, StorageError):
                await self._save(subject, slot, certificate)
                # The storage may have come back as an older copy, which this node has read meanwhile.
                self._writer.changes.doubt(subject.id)
                logger.info(
                    "%s: the certificate that was held in memory only is stored",
                    subject,
                    extra=fields("certificate_saved", name=subject.id),
                )
                return
