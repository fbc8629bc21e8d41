"""Server clock: the time of a server, as its HTTP replies tell it.

Where each node counted times to live by its own clock, a lease that a node with a wrong clock took was held for as long
as that was ahead. This module knows the header Date (RFC 9110 section 6.6.1); it must not know any store.
"""

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import requests

# Seconds by which the two clocks may differ before the server's counts. Date has whole seconds, and the reply may have
# been under way, or this process have been stopped, for a while.
_MAY_DIFFER = 30.0


class _Heard(NamedTuple):
    time: float  # Unix seconds
    at: float  # monotonic seconds


class ServerClock:
    """Gives Unix seconds: by the clock of this machine, unless that of the server differs by more than 30 s.

    It hears each reply in ``session``, and goes on from there by a clock that is never set. Use it from any thread.
    """

    def __init__(
        self,
        session: requests.Session,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now, self._monotonic = now, monotonic
        self._heard: _Heard | None = None
        session.hooks["response"].append(self._hear)

    def __call__(self) -> float:
        heard = self._heard
        return heard.time + self._monotonic() - heard.at if heard is not None else self._now()

    def _hear(self, reply: requests.Response, *_: Any, **__: Any) -> None:
        ours, at = self._now(), self._monotonic()
        try:
            told = parsedate_to_datetime(reply.headers["Date"]).timestamp()
        except (KeyError, TypeError, ValueError, OverflowError):  # from something between us and the server
            told = ours
        self._heard = _Heard(ours if abs(told - ours) <= _MAY_DIFFER else told, at)
