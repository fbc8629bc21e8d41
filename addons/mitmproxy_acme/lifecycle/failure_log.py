"""Attempts: an order that failed at one CA, and how the log says so.

This module knows what is said; it must not know what is counted, or what is tried next.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..core.backoff import Backoff
from ..core.errors import IssuanceError
from ..core.log_throttle import LogThrottle
from ..core.names import Subject
from ..core.renewal import describe_duration
from ..core.structured_logging import fields

logger = logging.getLogger("mitmproxy_acme.lifecycle.backoff_registry")

_FIRST, _WINDOW = 20, 60.0


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An order that failed: at the CA named ``ca``, after so many ``seconds``; ``following`` names who is asked now.

    ``served_until`` is when the certificate ends (Unix seconds) that the name has meanwhile; 0 where it has none.
    ``new`` is a name that is not listed and never had a certificate: strangers can invent any number of them.
    """

    ca: str
    directory: str
    seconds: float
    node: str
    following: str = ""
    served_until: float = 0.0
    new: bool = False


class FailureLog:
    """What is said of failed orders of new names: the first twenty, then one line a minute with their number."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` returns seconds that only grow."""
        self._clock = clock
        self._first, self._begun = 0, clock()
        self._tally = LogThrottle(clock)

    def say(self, subject: Subject, error: IssuanceError, attempt: FailedAttempt, backoff: Backoff, now: float) -> None:
        """Log a failed order, unless it is one of a flood; then say with some of them how many there were."""
        if not attempt.new or self._is_rare():
            say(subject, error, attempt, backoff, now)
        elif count := self._tally.count_event():
            say(subject, error, attempt, backoff, now)
            logger.warning(
                "%d order(s) of new names failed since this was last said, of which that was the last",
                count,
                extra=fields("new_names_failed", node=attempt.node, count=count),
            )

    def _is_rare(self) -> bool:
        if self._clock() - self._begun >= _WINDOW:
            self._first, self._begun = 0, self._clock()
        self._first += 1
        return self._first <= _FIRST


def say(subject: Subject, error: IssuanceError, attempt: FailedAttempt, backoff: Backoff, now: float) -> None:
    """Log a failed order, and what follows from it: one line."""
    ca, wait = attempt.ca, backoff.until - now
    said = fields(
        "failed_over" if attempt.following else "certificate_failed",
        name=subject.id,
        node=attempt.node,
        ca=ca,
        seconds=round(attempt.seconds, 3),
        reason=str(error),
        failures=backoff.failures,
        retry_in=round(wait),
    )
    if attempt.following:
        then = f"trying {attempt.following}, and {ca} again in {describe_duration(wait)}"
        message = "%s: %s; %s (%s, %.2f s, node %s)"
    else:
        then = f"next attempt in {describe_duration(wait)}"
        message = "%s: no certificate: %s; %s (%s, %.2f s, node %s)"
    logger.warning(message, subject, error, then, ca, attempt.seconds, attempt.node, extra=said)
