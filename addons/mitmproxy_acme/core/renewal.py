"""When to renew a certificate: arithmetic over its lifetime, the operator's setting and the CA's window (RFC 9773).

This module knows times; it must not know storage, the network or a clock: ``now`` is always an argument.
"""

import math
import random
import re
from dataclasses import dataclass
from typing import Self

from .certificate import Certificate
from .errors import ConfigError

DAY = 86_400.0
_HOUR = 3_600.0
_UNITS = {"s": 1.0, "m": 60.0, "h": _HOUR, "d": DAY, "w": 7 * DAY}
_LONGEST_DURATION = 36_525 * DAY

# RFC 9773 section 4.3.3 leaves the interval to the CA; we ask at most each minute, and at least each day, because only
# asking reveals an early revocation. Let's Encrypt itself says six hours.
_ASK_AGAIN_LEAST, _ASK_AGAIN_MOST, ASK_AGAIN_DEFAULT = 60.0, DAY, 6 * _HOUR

# The part of the remaining lifetime that must be left for an attempt after a wait.
_SPARE = 1 / 10
# The part of the remaining lifetime over which the next attempts of many names are spread that wait for the same CA.
_SPREAD = 1 / 100
_SPREAD_AFTER_THE_END = 600.0  # seconds at most
# Whatever the CA suggests, a renewal starts before the last twentieth of the lifetime (as in Caddy), and before the
# last minute of very short lifetimes.
_LATEST = 1 / 20
# If a CA suggests the past for each new certificate, it is renewed once an hour, not in a loop.
_EARLIEST = 1 / 10
# Seconds by which the clocks of nodes may differ.
_CLOCKS_DIFFER = 60.0


@dataclass(frozen=True, slots=True)
class RenewalInfo:
    """What the CA said about renewing one certificate (RFC 9773 section 4.2).

    ``start`` and ``end`` bound the suggested window, ``ask_again`` is when to ask again: all Unix seconds.
    """

    start: float
    end: float
    ask_again: float
    explanation_url: str = ""

    @classmethod
    def suggest(cls, start: float, end: float, retry_after: float, now: float, explanation_url: str = "") -> Self:
        """Make one; ``retry_after`` (seconds) is limited to between a minute and a day."""
        wait = min(max(retry_after, _ASK_AGAIN_LEAST), _ASK_AGAIN_MOST)
        return cls(start, end, now + wait, explanation_url)

    def is_current(self, now: float) -> bool:
        """Say whether the CA need not be asked yet; a wait over a day is ignored: it comes from a wrong clock."""
        return 0 < self.ask_again - now <= _ASK_AGAIN_MOST

    def is_ordinary(self, now: float) -> bool:
        """Say whether there is nothing to tell a person: the window has not ended, and the CA explains nothing."""
        return now < self.end and not self.explanation_url


@dataclass(frozen=True, slots=True)
class RenewBefore:
    """``acme_renew_before``: the time to renew before the end, in seconds or as a part of the lifetime.

    With neither it is ``auto``.
    """

    seconds: float | None = None
    part: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``auto``, ``14d`` or ``25%``. Raises ``ConfigError``."""
        if text == "auto":
            return cls()
        if match := re.fullmatch(r"([0-9]{1,2})%", text):
            part = int(match[1]) / 100
            if part > 0:
                return cls(part=part)
        try:
            return cls(seconds=parse_duration(text))
        except ValueError:
            raise ConfigError(
                f"acme_renew_before: {text!r} is not a time to renew; write auto, a duration such as 14d, or 25%"
            ) from None

    @property
    def auto(self) -> bool:
        return self.seconds is None and self.part is None

    def margin(self, lifetime: float) -> float:
        """Return how many seconds before its end a certificate of this lifetime is due.

        A margin in days is at most half of the lifetime: with 14d, a six-day certificate would otherwise be ordered
        again as soon as it is issued.
        """
        if self.seconds is not None:
            return min(self.seconds, lifetime / 2)
        if self.part is not None:
            return lifetime * self.part
        # CAs advise a third; short lifetimes leave less room for a bad weekend, so half (as nginx-acme does).
        return lifetime / 2 if lifetime < 10 * DAY else lifetime / 3


def renew_at(certificate: Certificate, setting: RenewBefore, info: RenewalInfo | None, now: float = math.inf) -> float:
    """Return the Unix time at which to renew ``certificate``.

    The moment in the CA's window is random (RFC 9773 section 4.2), but the same on every node and at every check: its
    seed is the certificate. With ``now``, it does not count when a certificate was obtained if that is to come: the
    clock that said so was ahead, and would put the renewal off to shortly before the end (seen in the simulator).
    """
    begun = begun_by(certificate, now)
    lifetime = certificate.not_after - begun
    if info is None or not setting.auto:
        return certificate.not_after - setting.margin(lifetime)
    moment = info.start + _draw(certificate) * (info.end - info.start)
    earliest = begun + min(lifetime * _EARLIEST, _HOUR)
    latest = certificate.not_after - max(lifetime * _LATEST, min(lifetime / 3, 60.0))
    return max(min(moment, latest), earliest)


def first_check_at(certificate: Certificate, setting: RenewBefore, now: float = math.inf) -> float:
    """Return the Unix time of the first check of a new certificate: early, to ask the CA for its window.

    Spread over some hours, because a hundred certificates may be ordered together; the same on every node. ``now`` is
    as for ``renew_at``.
    """
    if not setting.auto:
        return renew_at(certificate, setting, None, now)
    begun = begun_by(certificate, now)
    early = min((certificate.not_after - begun) / 10, ASK_AGAIN_DEFAULT) * (1 + _draw(certificate)) / 2
    return begun + early  # always before half of its life is over, when it is due


def begun_by(certificate: Certificate, now: float) -> float:
    """Return when we first had it (Unix seconds); when it began, if that is said to be still to come."""
    return certificate.begun if certificate.begun <= now + _CLOCKS_DIFFER else certificate.not_before


def in_time(wait: float, left: float, least: float) -> float:
    """Return ``wait``, shortened if the certificate has only ``left`` to live (all in seconds).

    It is at most a quarter of that, so that attempts come closer together towards the end, and at least ``least``. For
    an expired certificate ``wait`` is unchanged.
    """
    return min(wait, max(left / 4, least)) if left > 0 else wait


def spread_after(certificate: Certificate, at: float) -> float:
    """Return a Unix time from ``at`` on, later by up to a hundredth of what the certificate has left then.

    While a CA is down, all names that become due wait for the same moment: together they would be a burst for the
    storage at each attempt, and for the CA when it is back. Each certificate and each ``at`` has another moment.
    """
    left = certificate.not_after - at
    span = left * _SPREAD if left > 0 else min(certificate.lifetime * _SPREAD, _SPREAD_AFTER_THE_END)
    draw = random.Random(certificate.fingerprint + str(int(at)).encode()).random()  # noqa: S311  # spreads load
    return at + span * draw


def is_in_time(wait: float, left: float) -> bool:
    """Say whether a wait ends well before a certificate with ``left`` seconds to live expires.

    True for an expired certificate.
    """
    return left <= 0 or wait <= left * (1 - _SPARE)


def is_expiring(certificate: Certificate, now: float) -> bool:
    """Say whether to warn a person: less than a third of the lifetime is left."""
    return certificate.not_after - now < certificate.lifetime / 3


def _draw(certificate: Certificate) -> float:
    return random.Random(certificate.fingerprint).random()  # noqa: S311  # spreads load, keeps no secret


LAST_TIME = 253_402_300_799.0
"""The last second of the year 9999, which certificates have that do not end (RFC 5280 section 4.1.2.5)."""


def is_time(at: float) -> bool:
    """Say whether ``at`` (Unix seconds) is between 1970 and the year 9999, so that a date can show it."""
    return 0 <= at < LAST_TIME + 1


def parse_duration(text: str) -> float:
    """Return the seconds of ``90s``, ``10m``, ``2h``, ``14d`` or ``1w``. Raises ``ValueError``."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhdw])", text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match is not None else 0.0
    if seconds <= 0:
        raise ValueError(f"{text!r} is not a duration; write a number and one of s, m, h, d, w, such as 10m")
    if seconds > _LONGEST_DURATION:  # a date would not show the time after it, and infinity not even a number
        raise ValueError(f"{text!r} is longer than a hundred years; write a shorter duration, such as 365d")
    return seconds


def describe_duration(seconds: float) -> str:
    """Return a duration for people: ``45 s``, ``12 min``, ``3 h``, ``59 days``."""
    for unit, size in (("days", DAY), ("h", _HOUR), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
