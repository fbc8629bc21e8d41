"""DnsServer: the address of a DNS server, as options and arguments write it.

This module knows the text; it must not ask the server anything.
"""

import ipaddress
from dataclasses import dataclass
from typing import Self

from .errors import ConfigError


@dataclass(frozen=True, slots=True)
class DnsServer:
    """A DNS server: an IP address and a port."""

    address: str
    port: int = 53

    @classmethod
    def parse(cls, text: str, option: str) -> Self:
        """Read ``192.0.2.1``, ``192.0.2.1:5353``, ``::1`` or ``[::1]:5353``. Raises ``ConfigError``."""
        host, colon, port = text.strip().rpartition(":")
        if not colon or host.endswith(":") or (":" in host and not host.startswith("[")) or text.strip().endswith("]"):
            host, port = text.strip(), "53"
        try:
            address = str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
            if not 0 < int(port) < 65_536:
                raise ValueError
        except ValueError:
            raise ConfigError(
                f"{option}: {text!r} is not the address of a DNS server; write an IP address such as 192.0.2.1 or "
                "192.0.2.1:5353"
            ) from None
        return cls(address, int(port))
