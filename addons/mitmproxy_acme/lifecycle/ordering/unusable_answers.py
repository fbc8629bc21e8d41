"""Unusable answers: a control node finds the stored certificate good, and the data node that asked for it does not.

Their clocks or their options differ. To ask again at once would give the same answer, twice a second for as long as a
client waits (seen in the simulator). This module knows why a certificate cannot be used, and when to ask again; it must
not know how a control node is asked.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from ...core.certificate import Certificate
from ...core.errors import BackingOff
from ...core.lru_cache import LruCache
from ...core.names import ServerName
from ...core.renewal import describe_duration
from ...core.structured_logging import fields
from .order_request import OrderRequest

logger = logging.getLogger(__name__)

# Seconds by a clock that is never set: the wrong one may be set at any time. Until a control node is asked again, and
# until the same cause is logged again if it has not come up meanwhile.
_ASK_AGAIN, _LOG_AGAIN = 60.0, 3_600.0
_REMEMBERED = 1_000


@dataclass(frozen=True, slots=True)
class _Answer:
    """Which certificate a control node found good, and when to ask again (monotonic seconds)."""

    fingerprint: bytes
    ask_at: float


class UnusableAnswers:
    """Those of one data node, for the last 1,000 names. Use it from one event loop."""

    def __init__(self, node: str, now: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        """``now`` gives Unix seconds, ``clock`` seconds that only grow."""
        self._node, self._now, self._clock = node, now, clock
        self._answers: LruCache[ServerName, _Answer] = LruCache(_REMEMBERED)
        self._came_up_at = dict[str, float]()  # by cause

    def __contains__(self, id: ServerName) -> bool:
        """Say whether asking for ``id`` is put off, as long as the same certificate is stored."""
        answer = self._answers.get(id)
        return answer is not None and self._clock() < answer.ask_at

    def repeat(self, request: OrderRequest, stored: Certificate | None) -> None:
        """Raise ``BackingOff`` if ``stored`` is what a control node answered with, and asking again is put off."""
        answer = self._answers.get(request.subject.id)
        if answer is None or stored is None or stored.fingerprint != answer.fingerprint:
            self._answers.forget(request.subject.id)
        elif (left := answer.ask_at - self._clock()) > 0:
            raise self._refusal(request, stored, left)

    def remember(self, request: OrderRequest, stored: Certificate) -> BackingOff:
        """Put asking off, and return what to raise: a control node has answered with ``stored``."""
        self._answers.put(request.subject.id, _Answer(stored.fingerprint, self._clock() + _ASK_AGAIN))
        return self._refusal(request, stored, _ASK_AGAIN)

    def _refusal(self, request: OrderRequest, stored: Certificate, seconds: float) -> BackingOff:
        subject, now = request.subject, self._now()
        event = "options_differ"
        if now >= stored.not_after:
            event, ended = "clocks_differ", describe_duration(now - stored.not_after)
            reason = (
                f"a control node finds the stored certificate valid, which ended {ended} ago by the clock of this node;"
                " set the clock that is wrong"
            )
        elif not stored.serves(subject, now):
            reason = (
                "a control node keeps a certificate that lacks some of the names; set the same acme_certificates on "
                "all nodes"
            )
        else:
            reason = (
                "a control node keeps a certificate with another kind of key; set the same acme_key_type on all nodes"
            )
        self._log(event, subject.id, reason, now - stored.not_after)
        return BackingOff(f"{subject}: {reason}", until=now + seconds)

    def _log(self, event: str, id: ServerName, reason: str, ended: float) -> None:
        """Log a cause when it comes up, and not for each name and visitor."""
        at, before = self._clock(), self._came_up_at.get(event, -math.inf)
        self._came_up_at[event] = at
        if at - before >= _LOG_AGAIN:
            seconds = round(ended) if event == "clocks_differ" else None
            logger.warning(
                "%s: %s (node %s)",
                id,
                reason,
                self._node,
                extra=fields(event, name=id, node=self._node, seconds=seconds),
            )
