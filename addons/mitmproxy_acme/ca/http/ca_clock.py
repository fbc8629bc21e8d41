"""CA clock: how far the clock of this machine is ahead of the CA's, as the replies tell it.

This module knows the header Date (RFC 9110 section 6.6.1); it must not know what follows from a difference.
"""

import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

_LONGEST_DATE = 64  # the header of RFC 9110 has 29 characters


class _Heard(NamedTuple):
    time: float  # Unix seconds
    at: float  # monotonic seconds


class CaClock:
    """The clock of one CA. Date has whole seconds, and a reply may be under way for a while. Use it from any thread."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._heard: _Heard | None = None

    def hear(self, headers: Mapping[str, str]) -> None:
        """Note the time that a reply tells; one that tells none changes nothing."""
        date = headers.get("Date", "")
        if len(date) > _LONGEST_DATE:
            return
        try:
            self._heard = _Heard(parsedate_to_datetime(date).timestamp(), self._monotonic())
        except (ValueError, TypeError, OverflowError):  # the rest of the reply may be right
            return

    def ahead(self, now: float) -> float | None:
        """Return how many seconds ``now`` (Unix) is ahead of the CA's clock; None if the CA told no time.

        It goes on from the last reply, by a clock that is never set; but that clock stops while the machine sleeps.
        """
        heard = self._heard
        return now - heard.time - (self._monotonic() - heard.at) if heard is not None else None
