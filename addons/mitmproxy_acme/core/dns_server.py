"""DnsServer: the address of a DNS server, as options and arguments write it.

This module knows the text; it must not ask the server anything.
"""

import ipaddress
from dataclasses import dataclass
from typing import Self

from .errors import ConfigError
from .host_port import parse_host_port


@dataclass(frozen=True, slots=True)
class DnsServer:
    """A DNS server: an IP address and a port."""

    address: str
    port: int = 53

    @classmethod
    def parse(cls, text: str, option: str) -> Self:
        """Read ``192.0.2.1``, ``192.0.2.1:5353``, ``::1`` or ``[::1]:5353``. Raises ``ConfigError``."""
        try:
            found = parse_host_port(text.strip(), default_port=53)
            address = str(ipaddress.ip_address(found.host))
        except ValueError:
            raise ConfigError(
                f"{option}: {text!r} is not the address of a DNS server; write an IP address such as 192.0.2.1 or "
                "192.0.2.1:5353"
            ) from None
        return cls(address, found.port)
