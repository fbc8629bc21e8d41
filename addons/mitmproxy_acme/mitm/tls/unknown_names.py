"""Strangers: who asks for a name that has no certificate of ours, and whether mitmproxy may make one for them.

This module knows what mitmproxy's own certificates cost, and how many are signed; it must not know how a name gets one
of ours. In reverse mode anyone may invent names, and mitmproxy would sign a certificate for each of them on the loop.
"""

import logging
from collections.abc import Callable
from weakref import WeakSet

from mitmproxy import connection, tls
from mitmproxy.proxy import mode_specs

from ...config.config import Config
from ...core.log_throttle import LogThrottle
from ...core.lru_cache import LruCache
from ...core.names import parse_address
from ...core.structured_logging import fields
from ..token_bucket import TokenBucket
from .rejection import Alert, HandshakeRejected

logger = logging.getLogger(__name__)

# For names of ours without a certificate: so many new ones at once, and so many a second. A certificate takes mitmproxy
# several ms, and it keeps the last 100; a name is remembered here for less long than that, and costs nothing again.
_BURST, _A_SECOND, _KEPT = 100, 5, 50

_SERVER_NAME = 0  # the type of the extension (RFC 6066 section 1.1)


class UnknownNames:
    """The bounds of one configuration. Use it from the event loop; nothing here waits."""

    def __init__(self, config: Config, has_own: Callable[[str], bool], clock: Callable[[], float]) -> None:
        """``has_own`` says whether the operator gave mitmproxy a certificate for a server name, as it was sent."""
        self._config = config
        self._has_own = has_own
        self._signed: LruCache[str, bool] = LruCache(_KEPT)
        self._pace = TokenBucket(_BURST, _A_SECOND, clock)
        self._unknown, self._unpaced = LogThrottle(clock), LogThrottle(clock)
        self._unreadable: WeakSet[connection.Client] = WeakSet()

    def note_unnamed(self, hello: tls.ClientHelloData) -> None:
        """Remember a client for which mitmproxy has no server name, if it sent one that is none: ``*.a``, ``a b``."""
        if any(type == _SERVER_NAME for type, _ in hello.client_hello.extensions):
            self._unreadable.add(hello.context.client)

    def is_unreadable(self, client: connection.Client) -> bool:
        """Say whether a client sent a server name that is no host name."""
        return client in self._unreadable

    def require_known(self, client: connection.Client) -> None:
        """Raise ``HandshakeRejected`` in reverse mode for a name that is neither ours nor in mitmproxy's ``certs``.

        A client that sends no name gets mitmproxy's certificate for the address that it reached, and so does one that
        sends this address: that certificate is always the same.
        """
        sni = client.sni or ""
        if not is_reverse(client) or self._config.unknown_names == "mitm" or self._has_own(sni):
            return
        if not self.is_unreadable(client) and (not sni or _is_reached(client, sni)):
            return
        if count := self._unknown.add():
            logger.info(
                "refused %d handshake(s) for names that no option lets have a certificate, the last one for %.100r",
                *(count, sni),
                extra=fields("unknown_names_refused", count=count),
            )
        raise HandshakeRejected(Alert.UNRECOGNIZED_NAME)

    def may_fall_back(self, client: connection.Client) -> bool:
        """Say whether mitmproxy may serve a certificate of its own for a name of ours that has none."""
        sni = client.sni
        if not sni or not is_reverse(client) or self._signed.get(sni) or self._has_own(sni):
            return True
        if self._pace.take():
            self._signed.put(sni, True)
            return True
        if count := self._unpaced.add():
            logger.warning(
                "refused %d handshake(s) for new names without a certificate: mitmproxy signs %d of its own a second",
                *(count, _A_SECOND),
                extra=fields("fallbacks_refused", count=count),
            )
        return False


def is_reverse(client: connection.Client) -> bool:
    """Say whether the client came through a reverse mode: elsewhere it goes to any host of the world."""
    return isinstance(client.proxy_mode, mode_specs.ReverseMode)


def _is_reached(client: connection.Client, sni: str) -> bool:
    """Say whether a server name is the address that the client reached."""
    address = parse_address(sni)
    return address is not None and bool(client.sockname) and address == parse_address(client.sockname[0])
