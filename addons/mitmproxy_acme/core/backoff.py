"""How long to wait before the next attempt, for a name or a CA, after a failure.

This module knows the arithmetic and the record; it must not know storage, the network or a clock.
"""

import json
from dataclasses import asdict, dataclass
from typing import Self

from .errors import ConfigError
from .renewal import DAY, in_time, is_in_time, is_time, parse_duration

# The shortest wait before a renewal is tried again, however soon the certificate ends, unless ``acme_fail_backoff``
# starts with less.
_LEAST_WAIT = 60.0
# Failures of a name are forgotten after this time without an attempt.
BACKOFF_MEMORY = 30 * DAY
_LONGEST, _MOST_FAILURES = 500, 1_000_000
_FOR_ISSUER = (1, 2, 4, 8, 10)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Consecutive failures, the time of the next attempt, and the reason and time of the last failure.

    Times are Unix seconds; ``since`` is 0 if unknown.
    """

    failures: int
    until: float
    reason: str
    since: float = 0.0

    def to_record(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_record(cls, record: bytes) -> Self | None:
        """Read what ``to_record`` wrote; None for anything else: a broken record must not block a name for ever.

        People read the reason, and anyone who can write to the storage may have written it, so it becomes one line of
        at most 500 printable characters.
        """
        try:
            fields = json.loads(record)
            times = float(fields["until"]), float(fields.get("since", 0.0))
            reason = "".join(letter if letter.isprintable() else "?" for letter in str(fields["reason"])[:_LONGEST])
            backoff = cls(int(fields["failures"]), times[0], reason, times[1])
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return None
        return backoff if 0 <= backoff.failures <= _MOST_FAILURES and all(map(is_time, times)) else None


@dataclass(frozen=True, slots=True)
class BackoffSchedule:
    """The seconds to wait after the 1st, 2nd, … consecutive failure; the last value repeats."""

    seconds: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``acme_fail_backoff``: durations between commas. Raises ``ConfigError``."""
        try:
            return cls(tuple(parse_duration(part) for part in text.split(",")))
        except ValueError as error:
            raise ConfigError(f"acme_fail_backoff: {error}; separate several with commas: 1m,10m,100m,1d") from None

    @property
    def longest(self) -> float:
        """The longest possible backoff in seconds, for a CA too, with the random part.

        A stored backoff that is longer was written by a wrong clock, and would block its name or CA for ever.
        """
        return max(BACKOFF_MEMORY, (1 + max(_FOR_ISSUER)) * max(self.seconds))

    def for_ca(self) -> "BackoffSchedule":
        """Return the waits for a whole CA: they double, up to ten times the first.

        A CA's outage ends by itself, and every name waits for it: days would be too long.
        """
        first = self.seconds[0]
        return BackoffSchedule(tuple(first * factor for factor in _FOR_ISSUER))

    def next_backoff(
        self,
        previous: Backoff | None,
        reason: str,
        *,
        now: float,
        draw: float,
        at_least: float = 0.0,
        served_until: float = 0.0,
    ) -> Backoff:
        """Return the backoff that follows ``previous``.

        ``draw`` in [0, 1) adds up to a tenth, so that a cluster's names do not retry together. ``served_until`` is when
        the certificate to renew ends (Unix seconds): the wait is at most a quarter of the time until then, but at least
        a minute or the first wait, whichever is shorter. ``at_least`` is the CA's Retry-After in seconds: it is
        followed exactly if it ends in time for that certificate; otherwise the wait is half of the time until then.
        """
        failures, left = 1 + (previous.failures if previous else 0), served_until - now
        least = min(self.seconds[0], _LEAST_WAIT)
        wait = in_time(self.seconds[min(failures, len(self.seconds)) - 1], left, least)
        if not is_in_time(at_least, left):
            at_least = max(left / 2, least)
        return Backoff(failures, now + max(wait * (1 + draw / 10), at_least), reason, now)
