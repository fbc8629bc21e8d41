"""The event recorder: what happened to certificates on this node, kept for people and written for the other nodes.

This module knows which events people see, and how many at most; it must not know how they are stored or shown.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from acme_storage import StorageError

from ..core.events import (
    CertificateExpiring,
    CertificateFailed,
    CertificateObtained,
    CertificateRemoved,
    Event,
    ExpiredRemoved,
)
from ..core.single_flight import SingleFlight
from ..core.thread_pools import ThreadPools
from ..core.token_bucket import TokenBucket
from ..store.event_log import SHOWN, EventKind, EventLog, LoggedEvent
from ..store.keys import EventId
from ..store.nodes import Node
from .storage_health import StorageHealth

logger = logging.getLogger(__name__)

# Strangers cause failures, by asking for names that fail; they must neither fill the storage nor hide what else
# happened. Each node records so many at once, and so many a second after that.
_FAILURES, _OTHERS = (20, 6 / 60), (100, 20 / 60)
_TRIM_EVERY = 20


class EventRecorder:
    """The last events of this node. Subscribe ``on_event``, and use it from one event loop."""

    def __init__(
        self,
        log: EventLog,
        node: Node,
        threads: ThreadPools,
        health: StorageHealth,
        now: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``now`` returns Unix seconds, ``clock`` seconds that only grow."""
        self._log = log
        self._node = node
        self._threads = threads
        self._health = health
        self._now = now
        self._failures, self._others = TokenBucket(*_FAILURES, clock), TokenBucket(*_OTHERS, clock)
        self._recent: deque[LoggedEvent] = deque(maxlen=SHOWN)
        self._writes: SingleFlight[EventId, None] = SingleFlight("event record")
        self._recorded = self._left_out = 0

    @property
    def recent(self) -> list[LoggedEvent]:
        """The last hundred events of this node, also those that are not stored because the storage was down."""
        return list(self._recent)

    def on_event(self, event: Event) -> None:
        """Record what happened, unless too much happened lately; write it in the background."""
        bucket = self._failures if isinstance(event, CertificateFailed | CertificateExpiring) else self._others
        describe = self._describe(event)
        if describe is None:
            return
        if not bucket.take():
            self._left_out += 1
            return
        id = EventId(int(self._now() * 1_000), self._recorded, self._node.id)
        recorded = describe(id, machine=self._node.host, left_out=self._left_out)
        self._recorded, self._left_out = self._recorded + 1, 0
        self._recent.append(recorded)
        self._writes.start(id, partial(self._write, recorded))

    async def wait_idle(self) -> None:
        """Wait until what happened is written."""
        await self._writes.wait_idle()

    def _describe(self, event: Event) -> "partial[LoggedEvent] | None":
        """Return the event without its id; None for one that is not for people."""
        match event:
            case CertificateObtained(subject, _, ca, seconds, renewal):
                kind = EventKind.RENEWED if renewal else EventKind.OBTAINED
                return partial(LoggedEvent, kind=kind, host=subject.id, ca=ca, seconds=round(seconds, 3))
            case CertificateFailed(subject, ca, _, reason, _, retry_at, _, seconds):
                failed = partial(LoggedEvent, kind=EventKind.FAILED, host=subject.id, ca=ca, reason=reason)
                return partial(failed, retry_at=retry_at, seconds=round(seconds, 3))
            case CertificateExpiring(subject, _, reason):
                return partial(LoggedEvent, kind=EventKind.EXPIRING, host=subject.id, reason=reason)
            case CertificateRemoved(host, revocation, _, replaced):
                return partial(LoggedEvent, kind=EventKind.REMOVED, host=host, reason=_why(revocation, replaced))
            case ExpiredRemoved(ids):
                first, more = min(ids), len(ids) - 1
                reason = "expired long ago"
                return partial(LoggedEvent, kind=EventKind.REMOVED, host=first, reason=reason, more=more)
            case _:
                return None

    async def _write(self, event: LoggedEvent) -> None:
        try:
            self._health.require()
            await self._threads.storage(self._log.write, event)
            if event.id.number % _TRIM_EVERY == 0:
                await self._threads.storage(self._log.trim)
        except StorageError as error:  # no trouble for the health: a data node may lack the right to write there
            logger.debug("an event is not in the storage for the other nodes: %s", error)


def _why(revocation: str | None, replaced: bool) -> str:
    what = f"revoked ({revocation})" if revocation else "deleted"
    return f"{what}, replaced by a certificate with a new key" if replaced else what
