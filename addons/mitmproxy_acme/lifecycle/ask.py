"""``acme_ask``: the operator's own service decides whether a name may be ordered on demand.

This module knows one HTTP question; it must not know what a yes leads to. Answers are remembered both ways, for
scanners ask for the same wrong name a thousand times (caddyserver/caddy#6245).
"""

import collections
from collections.abc import Callable
from typing import NamedTuple

import requests

from ..core.errors import NameNotAllowed
from ..core.names import ServerName
from ..core.thread_pools import ThreadPools

_TIMEOUT = 5
_REMEMBER_YES, _REMEMBER_NO, _REMEMBER_FAILURE = 300.0, 60.0, 10.0
_ANSWERS = 10_000


class _Answer(NamedTuple):
    until: float
    refusal: str


class AskClient:
    """Asks ``url?domain=NAME``, and keeps at most 10,000 answers. Use it from one event loop."""

    def __init__(self, url: str, threads: ThreadPools, now: Callable[[], float]) -> None:
        self._url = url
        self._threads = threads
        self._now = now
        self._answers: collections.OrderedDict[ServerName, _Answer] = collections.OrderedDict()

    async def require(self, name: ServerName, *, anew: bool = False) -> None:
        """Return if a 2xx reply allows ``name``. Raises ``NameNotAllowed`` otherwise, also where none comes in 5 s.

        With ``anew`` a refusal that is remembered does not count: a person asks, who may have mended what it was for.
        """
        answer = self._answers.get(name)
        if anew and answer is not None and answer.refusal:
            answer = None
        if answer is None or not 0 < answer.until - self._now() <= _REMEMBER_YES:  # the clock may have been set back
            answer = self._answers[name] = await self._threads.ask(self._ask, name)
            self._answers.move_to_end(name)
            while len(self._answers) > _ANSWERS:
                self._answers.popitem(last=False)
        if answer.refusal:
            raise NameNotAllowed(answer.refusal)

    def _ask(self, name: ServerName) -> _Answer:
        try:
            with requests.Session() as session:
                session.trust_env = False  # HTTPS_PROXY may be this very proxy
                response = session.get(
                    self._url, params={"domain": name}, timeout=_TIMEOUT, allow_redirects=False, stream=True
                )
        except requests.RequestException as error:
            refusal = f"{name}: acme_ask cannot be asked ({type(error).__name__}), so nothing is ordered"
            return _Answer(self._now() + _REMEMBER_FAILURE, refusal)
        if 200 <= response.status_code < 300:
            return _Answer(self._now() + _REMEMBER_YES, "")
        return _Answer(self._now() + _REMEMBER_NO, f"{name}: acme_ask answered {response.status_code}")
