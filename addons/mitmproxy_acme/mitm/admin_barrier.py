"""Keeps the clients of the proxy away from the admin API.

A forward proxy connects to any host that its client names, and without a token the admin API trusts connections from
this machine. This module knows which connections to servers reach the admin API; it must not know what the API does.
It compares the address that was reached, not the name: DNS may give another address a moment later.
"""

import ipaddress
import logging
import socket
import time
from collections.abc import Callable

from mitmproxy.connection import Server
from mitmproxy.proxy import mode_specs

from ..config.admin_settings import AdminAddress
from ..config.config import Config
from ..core.log_throttle import LogThrottle
from ..core.structured_logging import fields

logger = logging.getLogger(__name__)

type _Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


class AdminBarrier:
    """The barrier of one configuration. Use it from the event loop; nothing here waits."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        admin = config.admin if isinstance(config.admin, AdminAddress) else None  # no flow reaches a Unix socket
        self._port = admin.port if admin is not None else None
        self._listen_address = _parse(admin.host) if admin is not None else None
        self._has_token = bool(config.admin_token)
        self._named_upstreams = frozenset(upstream.address for upstream in config.upstreams.upstreams)
        self._refused_log = LogThrottle(clock)

    def refuses(self, server: Server, mode: mode_specs.ProxyMode) -> bool:
        """Say whether this connection has reached the admin API and must be closed before anything is sent there.

        A reverse mode, or an entry of ``acme_upstreams``, that names the admin API's address may reach it if a token is
        required.
        """
        if server.peername is None or server.peername[1] != self._port or server.transport_protocol != "tcp":
            return False
        if not self._listens_at(_parse(server.peername[0])):
            return False
        if self._has_token and isinstance(mode, mode_specs.ReverseMode) and self._is_named(server.address, mode):
            return False
        if count := self._refused_log.count_event():
            logger.warning(
                "a client of mode %s asked the proxy for its admin API and was refused (%d such connections)",
                mode.full_spec,
                count,
                extra=fields("admin_refused", mode=mode.full_spec, count=count),
            )
        return True

    def _is_named(self, address: tuple[str, int] | None, mode: mode_specs.ReverseMode) -> bool:
        return address == mode.address or address in self._named_upstreams

    def _listens_at(self, reached: _Ip) -> bool:
        if self._listen_address is not None and self._listen_address.is_unspecified:
            return _is_of_this_machine(reached)
        return reached == self._listen_address


def _parse(text: str) -> _Ip:
    """Read the address of a socket: without its zone, and an IPv4-mapped one as IPv4."""
    if text == "localhost":  # where the admin API may listen
        text = "127.0.0.1"
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _is_of_this_machine(address: _Ip) -> bool:
    """Say whether an interface of this machine has this address: only then a socket can be bound to it."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            # A link-local address cannot be bound without its zone: assume that it is of this machine.
            return address.is_link_local
    return True
