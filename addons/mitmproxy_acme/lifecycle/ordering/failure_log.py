"""Failure log: an order that failed at one CA, and its log line.

This module knows what is logged; it must not know what is counted, or what is tried next.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from ...core.backoff import Backoff
from ...core.errors import IssuanceError
from ...core.log_throttle import LogThrottle
from ...core.names import Subject
from ...core.renewal import describe_duration
from ...core.structured_logging import fields

logger = logging.getLogger("mitmproxy_acme.lifecycle.ordering.backoff_registry")

_FIRST, _WINDOW = 20, 60.0


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An order that failed at the CA named ``ca`` after ``seconds``; ``following`` names the CA that is asked next.

    ``served_until`` is when the certificate ends (Unix seconds) that is served meanwhile; 0 where there is none.
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
    """Logs failed orders; of those for new names the first twenty, then one line a minute with their number."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` returns seconds that only grow."""
        self._clock = clock
        self._first, self._begun = 0, clock()
        self._throttle = LogThrottle(clock)

    def log(self, subject: Subject, error: IssuanceError, attempt: FailedAttempt, backoff: Backoff, now: float) -> None:
        """Log a failed order, unless it is one of a flood: then log some of them, with their number."""
        if not attempt.new or self._is_rare():
            _log(subject, error, attempt, backoff, now)
        elif count := self._throttle.count_event():
            _log(subject, error, attempt, backoff, now)
            logger.warning(
                "%d order(s) of new names failed since this was last logged; that was the last one",
                count,
                extra=fields("new_names_failed", node=attempt.node, count=count),
            )

    def _is_rare(self) -> bool:
        if self._clock() - self._begun >= _WINDOW:
            self._first, self._begun = 0, self._clock()
        self._first += 1
        return self._first <= _FIRST


def _log(subject: Subject, error: IssuanceError, attempt: FailedAttempt, backoff: Backoff, now: float) -> None:
    """Log a failed order, and what is done next: one line."""
    ca, wait = attempt.ca, backoff.until - now
    extra = fields(
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
    logger.warning(message, subject, error, then, ca, attempt.seconds, attempt.node, extra=extra)
