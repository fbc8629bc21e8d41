"""Which upstream a request goes to (``acme_upstreams``), by the host that it names.

This module knows how requests name their host; it must not know connections, or when a request is sent. The answer is
for one request: over HTTP/2 and HTTP/3 a client may send requests for every host of the certificate on one connection
(RFC 9113 section 9.1.1), whatever server name its handshake had.
"""

import logging
from collections.abc import Callable
from enum import IntEnum

from mitmproxy import http
from mitmproxy.proxy import mode_specs

from ...config.config import Config
from ...config.upstreams import Upstream
from ...core.authority import parse_authority
from ...core.log_throttle import LogThrottle
from ...core.structured_logging import fields

logger = logging.getLogger(__name__)

_SCHEMES = frozenset({"http", "https", "http3"})


class Refusal(IntEnum):
    """The status code for a request that goes to no upstream."""

    NO_HOST = 400  # RFC 9112 section 3.2
    MISDIRECTED = 421  # RFC 9110 section 15.5.20


class UpstreamRouter:
    """The routes of one configuration. Use it from the event loop; nothing here waits."""

    def __init__(self, config: Config, clock: Callable[[], float]) -> None:
        self._config = config
        self._rules = config.upstreams
        self._refused_log = LogThrottle(clock)

    def routes(self, mode: mode_specs.ProxyMode) -> bool:
        """Say whether requests in this mode are routed."""
        return isinstance(mode, mode_specs.ReverseMode) and mode.scheme in _SCHEMES

    def find(self, authority: str | None) -> Upstream | Refusal | None:
        """Return the upstream of a request, or why it has none; None means the mode's own upstream."""
        if not authority:
            return Refusal.NO_HOST
        if (upstream := self._rules.find_exact(authority)) is not None:
            return upstream
        host = parse_authority(authority)
        if host is None:
            return Refusal.MISDIRECTED
        if (upstream := self._rules.find(host)) is not None:
            return upstream
        return None if self._config.subject(host) is not None else Refusal.MISDIRECTED

    def has_upstream(self, address: tuple[str, int], *, tls: bool) -> bool:
        """Say whether an entry has an upstream with this host and port, over TLS or not."""
        return self._rules.has_upstream(address, tls=tls)

    def report(self, refusal: Refusal, authority: str | None) -> None:
        """Log a refused request: at most one line a minute."""
        if count := self._refused_log.count_event():
            logger.info(
                "refused %d request(s) for hosts that neither acme_upstreams nor any other option lists, the last one "
                "for %.100r (HTTP %d)",
                count,
                authority or "",
                refusal,
                extra=fields("misdirected", count=count),
            )


def take_authority(request: http.Request) -> str | None:
    """Return the authority of a request, as the client wrote it, and make it the only one that the request names.

    None if there is none, or several in ``Host``. What an upstream is told must be what decided about the route: a
    target in absolute form replaces ``Host`` (RFC 9112 section 3.2.2), and so does ``:authority`` (RFC 9113 section
    8.3.1).
    """
    hosts, written = request.headers.get_all("Host"), request.data.authority
    # Not mitmproxy's own ``authority``, which turns A-labels into other letters: an upstream knows A-labels.
    authority = written.decode("utf-8", "surrogateescape") or (hosts[0] if len(hosts) == 1 else None)
    if request.is_http2 or request.is_http3:
        request.headers.pop("Host", None)
        request.data.authority = (authority or "").encode("utf-8", "surrogateescape")
        return authority
    if written and authority:
        request.headers["Host"] = authority
        request.data.authority = b""  # not every server takes the absolute form
    return authority
