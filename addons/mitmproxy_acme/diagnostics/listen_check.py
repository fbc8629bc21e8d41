"""Check, before a proxy starts, that it can listen: on its ports, and on the Unix socket of the admin API.

This module knows sockets; it must not know what a proxy serves there.
"""

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..config.admin_settings import AdminSocket
from .finding import Finding, fail, warn

_ABSENT = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # of one family of addresses, when all are meant


@dataclass(frozen=True, slots=True)
class ListenPort:
    """A port to listen on; ``flag`` chooses another. ``host`` is an IP address; all addresses if it is empty."""

    host: str
    port: int
    flag: str
    udp: bool = False


def inspect(ports: Iterable[ListenPort]) -> Iterator[Finding]:
    """Yield a finding for each port that is not available."""
    for port in ports:
        if (error := _error(port)) is not None:
            yield fail(_explain(port, error))


def inspect_socket(address: AdminSocket) -> Iterator[Finding]:
    """Yield a finding if the folder of a Unix socket is missing."""
    folder = os.path.dirname(address.path)
    if not os.path.isdir(folder):
        yield warn(
            f"acme_admin_listen={address}: the folder {folder} does not exist; create it, writable for the user who "
            "runs the proxy, unless something creates it at the start, such as RuntimeDirectory= of systemd"
        )


def is_available(port: ListenPort) -> bool:
    return _error(port) is None


def _error(port: ListenPort) -> OSError | None:
    try:
        found = socket.getaddrinfo(
            port.host or None,
            port.port,
            type=socket.SOCK_DGRAM if port.udp else socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except OSError as error:
        return error
    for family, kind, _, _, address in found:
        try:
            _bind(family, kind, address)
        except OSError as error:
            if port.host or error.errno not in _ABSENT:
                return error
    return None


def _bind(family: socket.AddressFamily, kind: socket.SocketKind, address: object) -> None:
    """Bind as asyncio does, and let go again. Raises ``OSError``."""
    with socket.socket(family, kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind(address)  # type: ignore[arg-type]  # getaddrinfo's
        if kind is socket.SOCK_STREAM:
            probe.listen(1)


def _explain(port: ListenPort, error: OSError) -> str:
    where = f"{'UDP' if port.udp else 'TCP'} port {port.port}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{where} needs a right that this user does not have; run it as root or with CAP_NET_BIND_SERVICE, or "
            f"choose a port above 1023 with {port.flag} and forward {port.port} to it"
        )
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use by another program; stop that one, or choose another port with {port.flag}"
    reason = os.strerror(error.errno) if error.errno and not isinstance(error, socket.gaierror) else error.strerror
    return (
        f"{where} on {port.host or 'all addresses'} is not available: {reason}; --bind takes an address of this machine"
    )
