"""Limits what a flood of DNS queries causes: long replies for each network, and one log line.

This module knows counts and networks; it must not know sockets or messages. Use it from one event loop.
"""

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable

from cachetools import LRUCache

from ...core.structured_logging import fields
from ...core.token_bucket import TokenBucket

logger = logging.getLogger(__name__)

# Replies for one network: so many at once, and a second. A CA's resolvers query the names of all orders at once.
_BURST, _PER_SECOND = 400, 100.0
_NETWORKS = 4_096
_LOG_EVERY, _FLOOD = 60.0, 3_000
_IPV4_BYTES, _IPV6_BYTES = 3, 7  # a /24 and a /56, the usual size of one customer's network


class ResponseRateLimit:
    """A token bucket for each network, of those that asked last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` returns monotonic seconds."""
        self._clock = clock
        self._buckets: LRUCache[bytes, TokenBucket] = LRUCache(_NETWORKS)

    def take(self, address: str) -> bool:
        """Take a token of the network of an IP address, or return False if there is none."""
        network = _network(address)
        bucket = self._buckets.get(network)
        if bucket is None:
            bucket = self._buckets[network] = TokenBucket(_BURST, _PER_SECOND, self._clock)
        return bucket.take()


def _network(address: str) -> bytes:
    ip = ipaddress.ip_address(address.partition("%")[0])
    return ip.packed[: _IPV4_BYTES if ip.version == 4 else _IPV6_BYTES]


class FloodLog:
    """Counts messages, and logs the numbers of a minute in which they were a flood."""

    def __init__(self) -> None:
        self._messages = self._dropped = self._truncated = 0

    def count_message(self) -> None:
        if not self._messages:
            asyncio.get_running_loop().call_later(_LOG_EVERY, self._log)
        self._messages += 1

    def count_dropped(self) -> None:
        self._dropped += 1

    def count_truncated(self) -> None:
        self._truncated += 1

    def _log(self) -> None:
        if self._messages >= _FLOOD:
            logger.info(
                "DNS: %d messages within a minute; %d were dropped, and %d got a truncated reply",
                self._messages,
                self._dropped,
                self._truncated,
                extra=fields("dns_flood"),
            )
        self._messages = self._dropped = self._truncated = 0
