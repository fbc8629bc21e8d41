"""Attempts: an order that failed at one CA, and how the log says so.

This module knows what is said; it must not know what is counted, or what is tried next.
"""

import logging
from dataclasses import dataclass

from .backoff import Backoff
from .errors import IssuanceError
from .logs import fields
from .names import Subject
from .renewal import describe_duration

logger = logging.getLogger("mitmproxy_acme.failures")


@dataclass(frozen=True, slots=True)
class Attempt:
    """An order that failed: at the CA named ``ca``, after so many ``seconds``; ``following`` names who is asked now.

    ``served_until`` is when the certificate ends (Unix seconds) that the name has meanwhile; 0 where it has none.
    """

    ca: str
    directory: str
    seconds: float
    node: str
    following: str = ""
    served_until: float = 0.0


def say(subject: Subject, error: IssuanceError, attempt: Attempt, backoff: Backoff, now: float) -> None:
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
