"""The host of an authority, as requests name it: ``Host``, ``:authority``, or a target in absolute form.

This module knows the notation (RFC 3986 section 3.2); it must not know requests, or which hosts exist. Pure.
"""

import re

from .names import ServerName, parse_address, parse_server_name

_LONGEST = 253 + len(".:65535")
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::[0-9]*)?")


def parse_authority(raw: str) -> ServerName | None:
    """Return the host, without its port, as names are written here; None if it is neither a DNS name nor an address.

    A user name before the host makes it invalid (RFC 9110 section 4.2.4).
    """
    if len(raw) > _LONGEST:  # before any costly step: a client may send 64 KiB
        return None
    parts = _AUTHORITY.fullmatch(raw)
    if parts is None:
        return None
    host = parts[1]
    return parse_address(host) if host.startswith("[") else parse_server_name(host) or parse_address(host)
