"""Client usage: which certificates this node's clients were served, noted in memory and written in the background.

This module knows notes and when to write them; it must not know what a handshake is, or what follows from a mark.
"""

import asyncio
import logging
from collections.abc import Callable
from itertools import islice

from acme_storage import StorageError

from ..config.config import Config
from ..core.certificate import Certificate
from ..core.events import CertificateObtained, CertificateRemoved, CheckScheduled, Event, Events, IdleChanged
from ..core.lru_cache import LruCache
from ..core.names import ServerName
from ..core.structured_logging import fields
from ..core.thread_pools import ThreadPools
from ..store.change_feed import ChangeFeed
from ..store.renewal_schedule import RenewalSchedule, ScheduledCheck
from ..store.usage_marks import UsageMarks

logger = logging.getLogger(__name__)

# Seconds. A node that is killed loses the notes of this time; a name is then renewed needlessly, or served late once.
_WRITE_EVERY = 5.0
# Marks that a thread writes before others have a turn.
_PART = 50
# Notes that are kept while the storage is down; there are only as many as certificates that clients were served.
_MOST = 100_000

type _Notes = dict[ServerName, float]


class ClientUsage:
    """The notes of one node. Use it from one event loop. ``run`` never returns; cancel it, then ``flush``.

    Each certificate that a client is served is written once, by the first node: its mark is read first.
    """

    def __init__(
        self,
        config: Config,
        marks: UsageMarks,
        schedule: RenewalSchedule,
        changes: ChangeFeed,
        threads: ThreadPools,
        events: Events,
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._marks = marks
        self._schedule = schedule
        self._changes = changes
        self._threads = threads
        self._events = events
        self._now = now
        self.served: dict[ServerName, Certificate] = {}
        """What clients were served lately, by id. Handshakes write here: even a method call would cost each of them."""
        self._used: _Notes = {}
        self._obtained: _Notes = {}
        self._marked: LruCache[ServerName, float] = LruCache(config.cache_size)
        self._failing = False
        events.subscribe(self._happened)

    def _happened(self, event: Event) -> None:
        if isinstance(event, CertificateObtained) and not event.subject.managed:
            self._obtained[event.certificate.id] = event.certificate.begun
        elif isinstance(event, CertificateRemoved) and not event.replaced:
            for notes in (self.served, self._used, self._obtained):
                notes.pop(event.id, None)

    def has_asked(self, certificate: Certificate) -> bool:
        """Say whether a client of this node has asked for it, as far as this process has noted in the storage."""
        marked = self._marked.get(certificate.id)
        return marked is not None and marked >= certificate.begun

    async def run(self) -> None:
        """Rest, and write what was noted, again and again."""
        while True:
            await asyncio.sleep(_WRITE_EVERY)
            try:
                await self.flush()
            except Exception:  # logged, so that one fault does not end all notes
                logger.exception("which certificates clients asked for could not be noted")

    async def flush(self) -> None:
        """Write what was noted; what the storage does not take is kept for the next time. Raises nothing."""
        noted = self._used | {id: certificate.begun for id, certificate in self.served.items()}
        self.served.clear()
        used = {id: begun for id, begun in noted.items() if self._is_new(id, begun)}
        obtained = {id: begun for id, begun in self._obtained.items() if used.get(id, 0.0) < begun}
        self._used, self._obtained = {}, {}
        try:
            await self._write(self._mark_obtained, obtained)
            for id, begun in (await self._write(self._mark_used, used)).items():
                self._marked.put(id, begun)
            self._failing = False
        except StorageError as error:
            self._log(error)
        finally:  # what is not written yet; all of it if this is cancelled
            self._obtained = _bounded(obtained | self._obtained)
            self._used = _bounded(used | self._used)

    def _is_new(self, id: ServerName, begun: float) -> bool:
        marked = self._marked.get(id)
        return (marked is None or marked < begun) and not self._config.manages(id)

    async def _write(self, write: Callable[[_Notes], list[ServerName]], notes: _Notes) -> _Notes:
        """Write a part at a time, take what is written from ``notes``, and return it in the end."""
        written: _Notes = {}
        while notes:
            part = dict(islice(notes.items(), _PART))
            revived = await self._threads.storage(write, part)
            written |= part
            for id in part:
                del notes[id]
            for id in revived:
                self._events.publish(IdleChanged(id, idle=False))
            if revived:
                self._events.publish(CheckScheduled(self._now()))
        return written

    def _mark_obtained(self, part: _Notes) -> list[ServerName]:
        for id, begun in part.items():
            self._marks.note_obtained(id, begun)
        return []

    def _mark_used(self, part: _Notes) -> list[ServerName]:
        """Mark them, and return those that were idle: they are checked for renewal at once. Blocks."""
        revived = []
        for id, begun in part.items():
            idle = self._marks.note_used(id, begun)
            if idle is not None:
                self._schedule.move(ScheduledCheck(id, idle.check_at), self._now())
                self._changes.announce(id, self._now())
                revived.append(id)
        return revived

    def _log(self, error: StorageError) -> None:
        """Log the first of several failures in a row."""
        if not self._failing:
            self._failing = True
            logger.warning(
                "which names clients ask for cannot be noted in the storage yet, so some may not be renewed: %s",
                error,
                extra=fields("usage_unsaved", reason=str(error)),
            )


def _bounded(notes: _Notes) -> _Notes:
    return dict(islice(notes.items(), _MOST))
