"""``host:port`` as people write it, for every option, argument and header that holds one.

This module knows the notation; it must not know what is connected to.
"""

from typing import NamedTuple


class HostPort(NamedTuple):
    """A host, without brackets, and a TCP or UDP port."""

    host: str
    port: int


def parse_host_port(text: str, *, default_port: int | None = None) -> HostPort:
    """Read ``192.0.2.1:53``, ``[::1]:53`` or ``localhost:53``; raises ``ValueError`` for a wrong port.

    With ``default_port`` the port may be left out, and an IPv6 address then needs no brackets. The host is not checked.
    """
    host, colon, port = text.rpartition(":")
    if default_port is not None and (not colon or text.endswith("]") or (":" in host and not host.startswith("["))):
        return HostPort(text.removeprefix("[").removesuffix("]"), default_port)
    return HostPort(host.removeprefix("[").removesuffix("]"), parse_port(port))


def parse_port(text: str) -> int:
    """Read a port from 1 to 65535. Raises ``ValueError``."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65_536):
        raise ValueError(f"{text!r} is not a port from 1 to 65535")
    return int(text)
