"""``acme_orders_per_client``: how many new names each client can have ordered.

This module knows the option and which clients count together; it does not count.
"""

import ipaddress
from dataclasses import dataclass
from typing import Self

from ..core.errors import ConfigError
from ..core.rate_limits import Limit

_PREFIX = {4: 24, 6: 48}  # the most that one customer of a provider usually has
_AUTO = Limit(20, 3_600.0)


@dataclass(frozen=True, slots=True)
class OrdersPerClient:
    """``acme_orders_per_client``: how many new names a client can have ordered; ``limit`` None means off.

    Clients in private networks (a load balancer, the operator's own machines) count only with ``everywhere``.
    """

    limit: Limit | None
    everywhere: bool = True

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``auto``, ``20/1h`` or ``off``. Raises ``ConfigError``."""
        text = text.strip()
        if text in ("auto", "off"):
            return cls(_AUTO if text == "auto" else None, everywhere=False)
        try:
            return cls(Limit.parse(text))
        except ValueError as error:
            raise ConfigError(f"acme_orders_per_client: {error}; or auto, or off for no limit") from None

    def key(self, address: str | None) -> str | None:
        """Return the network that a client counts with: IPv4 /24 or IPv6 /48; None if the client does not count."""
        if self.limit is None or address is None:
            return None
        try:
            client = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:  # a Unix socket
            return None
        client = getattr(client, "ipv4_mapped", None) or client
        if not (self.everywhere or client.is_global):
            return None
        return str(ipaddress.ip_network((client, _PREFIX[client.version]), strict=False))
