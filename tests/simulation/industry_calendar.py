"""The calendar of the industry: from which day on certificates, and what was validated, last how long.

Knows the published rules and their sources; must not know how they are simulated (``calendar_run``).
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time

HOUR = 3_600.0
DAY = 86_400.0

_CABF = "https://cabforum.org/2025/04/11/ballot-sc081v3-introduce-schedule-of-reducing-validity-and-data-reuse-periods"
_LETSENCRYPT = "https://letsencrypt.org/2025/12/02/from-90-to-45"
_PROFILES = "https://letsencrypt.org/docs/profiles/"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a CA issues: certificates of ``lifetime`` seconds, by validations that are at most ``reuse`` seconds old."""

    lifetime: float
    reuse: float
    common_name: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """From the midnight (UTC) of ``begins`` on a CA issues by the terms ``after``; until then by those ``before``."""

    begins: date
    what: str
    before: Terms
    after: Terms
    source: str

    def __str__(self) -> str:
        return f"{self.what} {self.begins:%Y-%m-%d}"

    @property
    def at(self) -> float:
        """The Unix time of the change."""
        return datetime.combine(self.begins, time.min, UTC).timestamp()

    def terms(self, now: float) -> Terms:
        return self.before if now < self.at else self.after


_CLASSIC = Terms(90 * DAY, 30 * DAY)
_CLASSIC_2027, _CLASSIC_2028 = Terms(64 * DAY, 10 * DAY), Terms(45 * DAY, 7 * HOUR)

CALENDAR = (
    # Ballot SC-081v3: the longest that any public CA may issue for, and reuse the validation of a name.
    Change(date(2026, 3, 15), "baseline", Terms(398 * DAY, 398 * DAY), Terms(200 * DAY, 200 * DAY), _CABF),
    Change(date(2027, 3, 15), "baseline", Terms(200 * DAY, 200 * DAY), Terms(100 * DAY, 100 * DAY), _CABF),
    Change(date(2029, 3, 15), "baseline", Terms(100 * DAY, 100 * DAY), Terms(47 * DAY, 10 * DAY), _CABF),
    Change(date(2027, 2, 10), "classic", _CLASSIC, _CLASSIC_2027, _LETSENCRYPT),
    Change(date(2028, 2, 16), "classic", _CLASSIC_2027, _CLASSIC_2028, _LETSENCRYPT),
    Change(date(2026, 5, 13), "tlsserver", _CLASSIC, Terms(45 * DAY, 7 * HOUR, common_name=False), _LETSENCRYPT),
    # Not a date of the CA: an operator who writes profile=shortlived on the first day on which everybody may.
    Change(date(2026, 1, 15), "shortlived", _CLASSIC, Terms(160 * HOUR, 7 * HOUR, common_name=False), _PROFILES),
)
"""Each change, with where it is published."""
