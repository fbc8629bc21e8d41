"""``acme_ask``: the operator's own service decides whether a name may be ordered on demand.

This module knows one HTTP request; it must not know what a yes leads to. Both answers are remembered: scanners ask for
the same wrong name a thousand times (caddyserver/caddy#6245).
"""

from collections.abc import Callable

import requests

from ...core.errors import NameNotAllowed
from ...core.expiring_cache import ExpiringCache
from ...core.names import ServerName
from ...core.thread_pools import ThreadPools

_TIMEOUT = 5
_REMEMBER_YES, _REMEMBER_NO, _REMEMBER_FAILURE = 300.0, 60.0, 10.0
_ANSWERS = 10_000


class AskClient:
    """Asks ``url?domain=NAME``, and keeps at most 10,000 answers. Use it from one event loop."""

    def __init__(self, url: str, threads: ThreadPools, now: Callable[[], float]) -> None:
        self._url = url
        self._threads = threads
        # The refusal of each name, empty where it is allowed.
        self._answers: ExpiringCache[ServerName, str] = ExpiringCache(_ANSWERS, _REMEMBER_YES, now)

    async def require(self, name: ServerName, *, anew: bool = False) -> None:
        """Return if a 2xx reply allows ``name``. Raises ``NameNotAllowed`` otherwise, also without a reply within 5 s.

        With ``anew`` a remembered refusal does not count: a person asks, who may have removed its cause.
        """
        remembered = self._answers.get(name)
        if remembered is None or (anew and remembered):
            refusal, seconds = await self._threads.ask(self._ask, name)
            self._answers.put(name, refusal, seconds)
        else:
            refusal = remembered
        if refusal:
            raise NameNotAllowed(refusal)

    def _ask(self, name: ServerName) -> tuple[str, float]:
        """Return the refusal, empty for none, and for how many seconds to remember it. Blocks."""
        try:
            with requests.Session() as session:
                session.trust_env = False  # HTTPS_PROXY may be this very proxy
                response = session.get(
                    self._url, params={"domain": name}, timeout=_TIMEOUT, allow_redirects=False, stream=True
                )
        except requests.RequestException as error:
            return (
                f"{name}: acme_ask does not answer ({type(error).__name__}), so nothing is ordered",
                _REMEMBER_FAILURE,
            )
        if 200 <= response.status_code < 300:
            return "", _REMEMBER_YES
        return f"{name}: acme_ask answered {response.status_code}", _REMEMBER_NO
