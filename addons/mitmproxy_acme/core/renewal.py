"""When a certificate is due: pure arithmetic over its life, the operator's wish and the CA's (RFC 9773).

This module knows times; it must not know storage, the network or a clock: ``now`` is always an argument.
"""

import random
import re
from dataclasses import dataclass
from typing import Self

from .certificate import Certificate
from .errors import ConfigError

DAY = 86_400.0
_HOUR = 3_600.0
_UNITS = {"s": 1.0, "m": 60.0, "h": _HOUR, "d": DAY, "w": 7 * DAY}

# RFC 9773 section 4.3.3 leaves the rhythm to the CA; nothing is asked more often than each minute, nor less than
# each day, for an early revocation is only seen by asking. Six hours is what Let's Encrypt says itself.
_ASK_AGAIN_LEAST, _ASK_AGAIN_MOST, ASK_AGAIN_DEFAULT = 60.0, DAY, 6 * _HOUR

# The part of what is left of a life that must be there for an attempt after a wait.
_SPARE = 1 / 10
# Whatever a CA suggests, the last twentieth of a life is too late to begin (Caddy draws the same line), and so is the
# last minute, of lives that are not much longer.
_LATEST = 1 / 20
# And a CA that suggests the past for each new certificate is followed once an hour, not in a loop.
_EARLIEST = 1 / 10


@dataclass(frozen=True, slots=True)
class RenewalInfo:
    """What the CA said of one certificate (RFC 9773 section 4.2).

    ``start`` and ``end`` bound the suggested window, ``ask_again`` is when to look anew: all Unix seconds.
    """

    start: float
    end: float
    ask_again: float
    explanation_url: str = ""

    @classmethod
    def suggest(cls, start: float, end: float, retry_after: float, now: float, explanation_url: str = "") -> Self:
        """Make one, with ``retry_after`` (seconds) held between a minute and a day."""
        wait = min(max(retry_after, _ASK_AGAIN_LEAST), _ASK_AGAIN_MOST)
        return cls(start, end, now + wait, explanation_url)

    def is_current(self, now: float) -> bool:
        """Say whether the CA need not be asked yet; one that says so for longer than a day is from a wrong clock."""
        return 0 < self.ask_again - now <= _ASK_AGAIN_MOST

    def is_ordinary(self, now: float) -> bool:
        """Say whether there is nothing to tell a person: the window is not over, and the CA explains nothing."""
        return now < self.end and not self.explanation_url


@dataclass(frozen=True, slots=True)
class RenewBefore:
    """``acme_renew_before``: seconds or a part of the life before the end; neither is ``auto``."""

    seconds: float | None = None
    part: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``auto``, ``14d`` or ``25%``. Raises ``ConfigError``."""
        if text == "auto":
            return cls()
        if match := re.fullmatch(r"(\d{1,2})%", text):
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
        """Return the seconds before the end at which a certificate of this lifetime is due.

        A margin in days is never more than half of the life: 14d and a certificate of six days would otherwise
        order again as soon as it is issued.
        """
        if self.seconds is not None:
            return min(self.seconds, lifetime / 2)
        if self.part is not None:
            return lifetime * self.part
        # A third is the CAs' own advice; short lives leave less room for a bad weekend, so half (nginx-acme too).
        return lifetime / 2 if lifetime < 10 * DAY else lifetime / 3


def renew_at(certificate: Certificate, wish: RenewBefore, info: RenewalInfo | None) -> float:
    """Return the Unix time at which ``certificate`` is to be renewed.

    The moment in the CA's window is drawn at random (RFC 9773 section 4.2), yet the same for every node and every
    look: its seed is the certificate.
    """
    if info is None or not wish.auto:
        return certificate.not_after - wish.margin(certificate.lifetime)
    moment = info.start + _draw(certificate) * (info.end - info.start)
    life = certificate.lifetime
    earliest = certificate.begun + min(life * _EARLIEST, _HOUR)
    latest = certificate.not_after - max(life * _LATEST, min(life / 3, 60.0))
    return max(min(moment, latest), earliest)


def first_check_at(certificate: Certificate, wish: RenewBefore) -> float:
    """Return the Unix time at which a new certificate is first looked at: early, to ask the CA for its window.

    Spread over some hours, for a hundred certificates that were ordered together; the same for every node.
    """
    due = renew_at(certificate, wish, None)
    if not wish.auto:
        return due
    early = min(certificate.lifetime / 10, ASK_AGAIN_DEFAULT) * (1 + _draw(certificate)) / 2
    return min(due, certificate.begun + early)


def in_time(wait: float, left: float, least: float) -> float:
    """Return ``wait``, or less of it where a certificate has only so much of its life ``left`` (all in seconds).

    A quarter of that, so that attempts come closer together as the end nears, and not below ``least``. Where nothing
    is left there is nothing to be in time for.
    """
    return min(wait, max(left / 4, least)) if left > 0 else wait


def is_in_time(wait: float, left: float) -> bool:
    """Say whether so long a wait ends before a certificate with ``left`` to live does, with some to spare (seconds).

    Where nothing is left there is nothing to be in time for.
    """
    return left <= 0 or wait <= left * (1 - _SPARE)


def is_expiring(certificate: Certificate, now: float) -> bool:
    """Say whether a person should be told: less than a third of the life is left."""
    return certificate.not_after - now < certificate.lifetime / 3


def _draw(certificate: Certificate) -> float:
    return random.Random(certificate.fingerprint).random()  # noqa: S311  # spreads load, keeps no secret


def is_time(at: float) -> bool:
    """Say whether ``at`` (Unix seconds) is from 1970 on, and before the year 10000: what a date can show."""
    return 0 <= at < 253_402_300_800


def parse_duration(text: str) -> float:
    """Return the seconds of ``90s``, ``10m``, ``2h``, ``14d`` or ``1w``. Raises ``ValueError``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{text!r} is not a duration; write a number and one of s, m, h, d, w, such as 10m")
    return float(match[1]) * _UNITS[match[2]]


def describe_duration(seconds: float) -> str:
    """Say a duration the way a person would: ``45 s``, ``12 min``, ``3 h``, ``59 days``."""
    for unit, size in (("days", DAY), ("h", _HOUR), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
