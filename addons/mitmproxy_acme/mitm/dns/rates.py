"""How much of a flood of DNS is answered in full, for the network of an address; and the one line about it.

This module knows counts and networks; it must not know sockets or messages. Use it from one event loop.
"""

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable

from ...core.lru_cache import LruCache
from ...core.structured_logging import fields
from ..token_bucket import TokenBucket

logger = logging.getLogger(__name__)

# What the clients of one network may cause; resolvers of a CA ask for the names of all orders at once.
_PER_SECOND, _AT_ONCE = 100.0, 400
_NETWORKS = 4_096
_TALLY_EVERY, _FLOOD = 60.0, 3_000
_IPV4_BYTES, _IPV6_BYTES = 3, 7  # a /24 and a /56, the customary size of one customer's network


class Rates:
    """A rate for each network that asks; the networks that asked last are remembered."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` returns seconds that only grow."""
        self._clock = clock
        self._by_network: LruCache[bytes, TokenBucket] = LruCache(_NETWORKS)

    def take(self, address: str) -> bool:
        """Take one of the network of an IP address, and say whether there was one."""
        network = _network(address)
        rate = self._by_network.get(network)
        if rate is None:
            rate = TokenBucket(_AT_ONCE, _PER_SECOND, self._clock)
            self._by_network.put(network, rate)
        return rate.take()


def _network(address: str) -> bytes:
    ip = ipaddress.ip_address(address.partition("%")[0])
    return ip.packed[: _IPV4_BYTES if ip.version == 4 else _IPV6_BYTES]


class FloodTally:
    """Counts messages, and says once a minute how many there were where they were a flood."""

    def __init__(self) -> None:
        self._messages = self._dropped = self._truncated = 0

    def message(self) -> None:
        if not self._messages:
            asyncio.get_running_loop().call_later(_TALLY_EVERY, self._say)
        self._messages += 1

    def dropped(self) -> None:
        self._dropped += 1

    def truncated(self) -> None:
        self._truncated += 1

    def _say(self) -> None:
        if self._messages >= _FLOOD:
            logger.info(
                "DNS: %d messages came within a minute; %d were dropped, and for %d the answer was left to TCP",
                self._messages,
                self._dropped,
                self._truncated,
                extra=fields("dns_flood"),
            )
        self._messages = self._dropped = self._truncated = 0
