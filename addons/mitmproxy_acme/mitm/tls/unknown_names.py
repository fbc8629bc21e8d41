"""What happens to a client that asks for a name without a certificate of ours, and when mitmproxy may make one for it.

This module knows what mitmproxy's own certificates cost; it must not know how a name gets one of ours. In reverse mode
anyone may invent names, and mitmproxy would sign a certificate for each of them on the event loop.
"""

import logging
from collections.abc import Callable
from weakref import WeakSet

from cachetools import LRUCache
from mitmproxy import connection, tls
from mitmproxy.proxy.mode_specs import ReverseMode

from ...config.config import Config
from ...core.log_throttle import LogThrottle
from ...core.names import parse_address
from ...core.structured_logging import fields
from ...core.token_bucket import TokenBucket
from .rejection import Alert, HandshakeRejected

logger = logging.getLogger(__name__)

# mitmproxy signs its own certificates for so many new names at once, and a second after that. It takes several ms for
# each, and caches the last 100; fewer names are remembered here, so that each of them is still in that cache.
_BURST, _PER_SECOND, _REMEMBERED = 100, 5, 50

_SERVER_NAME = 0  # the type of the extension (RFC 6066 section 1.1)


class UnknownNames:
    """The limits of one configuration. Use it from the event loop; nothing here waits."""

    def __init__(self, config: Config, has_own: Callable[[str], bool], clock: Callable[[], float]) -> None:
        """``has_own`` says whether the operator gave mitmproxy a certificate for a server name, as it was sent."""
        self._config = config
        self._has_own = has_own
        self._signed: LRUCache[str, bool] = LRUCache(_REMEMBERED)
        self._bucket = TokenBucket(_BURST, _PER_SECOND, clock)
        self._rejected_log, self._fallback_log = LogThrottle(clock), LogThrottle(clock)
        self._invalid: WeakSet[connection.Client] = WeakSet()

    def remember_invalid(self, hello: tls.ClientHelloData) -> None:
        """Remember a client that sent a server name which mitmproxy dropped as invalid: ``*.a``, ``a b``."""
        if any(type == _SERVER_NAME for type, _ in hello.client_hello.extensions):
            self._invalid.add(hello.context.client)

    def is_invalid(self, client: connection.Client) -> bool:
        """Say whether a client sent a server name that is not a host name."""
        return client in self._invalid

    def require_known(self, client: connection.Client) -> None:
        """Raise ``HandshakeRejected`` in reverse mode for a name that is neither ours nor in mitmproxy's ``certs``.

        A client that sends no name gets mitmproxy's certificate for the address that it reached, and so does one that
        sends this address: that certificate is always the same.
        """
        sni = client.sni or ""
        is_reverse = isinstance(client.proxy_mode, ReverseMode)
        if not is_reverse or self._config.unknown_names == "mitm" or self._has_own(sni):
            return
        if not self.is_invalid(client) and (not sni or _is_reached(client, sni)):
            return
        if count := self._rejected_log.count_event():
            logger.info(
                "refused %d handshake(s) for names that no option allows, the last one for %.100r",
                count,
                sni,
                extra=fields("unknown_names_refused", count=count),
            )
        raise HandshakeRejected(Alert.UNRECOGNIZED_NAME)

    def may_fall_back(self, client: connection.Client) -> bool:
        """Say whether mitmproxy may serve a certificate of its own for a name of ours that has none."""
        sni = client.sni
        if not sni or not isinstance(client.proxy_mode, ReverseMode) or self._signed.get(sni) or self._has_own(sni):
            return True
        if self._bucket.take():
            self._signed[sni] = True
            return True
        if count := self._fallback_log.count_event():
            logger.warning(
                "refused %d handshake(s) for new names without a certificate: mitmproxy signs %d of its own a second",
                count,
                _PER_SECOND,
                extra=fields("fallbacks_refused", count=count),
            )
        return False


def _is_reached(client: connection.Client, sni: str) -> bool:
    """Say whether a server name is the address that the client reached."""
    address = parse_address(sni)
    return address is not None and bool(client.sockname) and address == parse_address(client.sockname[0])
