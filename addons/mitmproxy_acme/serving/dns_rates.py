"""Rates: how often something may happen, in all or for the network of an address.

This module knows token buckets; it must not know what they are for. Use it from one event loop.
"""

import asyncio
import ipaddress

from ..recent import Recent

# What the clients of one network may cause; resolvers of a CA ask for the names of all orders at once.
_PER_SECOND, _AT_ONCE = 100.0, 400
_NETWORKS = 4_096
_IPV4_BYTES, _IPV6_BYTES = 3, 7  # a /24 and a /56, the customary size of one customer's network


class Rate:
    """At most ``at_once`` at a time, and ``per_second`` in the long run."""

    def __init__(self, per_second: float, at_once: float) -> None:
        self._per_second, self._at_once = per_second, at_once
        self._left = at_once
        self._at = float("-inf")

    def take(self) -> bool:
        """Take one, and say whether there was one."""
        now = asyncio.get_running_loop().time()
        self._left = min(self._at_once, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Rates:
    """A rate for each network that asks; the networks that asked last are remembered."""

    def __init__(self) -> None:
        self._by_network: Recent[bytes, Rate] = Recent(_NETWORKS)

    def take(self, address: str) -> bool:
        """Take one of the network of an IP address, and say whether there was one."""
        network = _network(address)
        rate = self._by_network.get(network)
        if rate is None:
            rate = Rate(_PER_SECOND, _AT_ONCE)
            self._by_network.put(network, rate)
        return rate.take()


def _network(address: str) -> bytes:
    ip = ipaddress.ip_address(address.partition("%")[0])
    return ip.packed[: _IPV4_BYTES if ip.version == 4 else _IPV6_BYTES]
