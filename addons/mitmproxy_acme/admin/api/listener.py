"""The socket on which the admin API accepts connections: TCP, or Unix at a path.

This module knows sockets and the file of a Unix socket; it must not know HTTP.
"""

import contextlib
import os
import socket
import stat

from ...config.admin_settings import AdminAddress, AdminListen, AdminSocket
from ...core.errors import ConfigError

_BACKLOG = 128


class Listener:
    """The socket of one admin API, from ``open`` to ``remove``. Use it from one thread; nothing here blocks."""

    def __init__(self, address: AdminListen) -> None:
        self._address = address
        self._file: tuple[int, int] | None = None  # device and inode of the Unix socket's file

    def open(self) -> socket.socket:
        """Return the listening socket, which does not block. Raises ``ConfigError`` if the address is not available."""
        try:
            opened = self._at_path(self._address) if isinstance(self._address, AdminSocket) else _by_tcp(self._address)
        except OSError as error:
            where = "path" if isinstance(self._address, AdminSocket) else "port"
            raise ConfigError(
                f"acme_admin_listen: cannot listen on {self._address} ({os.strerror(error.errno or 0)}); choose "
                f"another {where}, or stop what listens there"
            ) from None
        opened.setblocking(False)
        return opened

    def remove(self) -> None:
        """Remove the file of the Unix socket, unless another has replaced it."""
        if self._file is None or not isinstance(self._address, AdminSocket):
            return
        with contextlib.suppress(OSError):
            if _identity(self._address.path) == self._file:
                os.unlink(self._address.path)
        self._file = None

    def _at_path(self, address: AdminSocket) -> socket.socket:
        _remove_stale(address)
        listening = _unix_socket(address)
        try:
            listening.bind(address.path)
            self._file = _identity(address.path)
            # No client can connect before it listens, whatever mode the file was created with.
            os.chmod(address.path, address.mode)
            listening.listen(_BACKLOG)
        except OSError:
            listening.close()
            self.remove()
            raise
        return listening


def _by_tcp(address: AdminAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)


def _unix_socket(address: AdminSocket) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError(f"acme_admin_listen: this system has no Unix sockets ({address}); write 127.0.0.1:8008")
    return socket.socket(socket.AF_UNIX)


def _remove_stale(address: AdminSocket) -> None:
    """Remove the file that a killed process left. Raises ``ConfigError`` for any other file."""
    try:
        found = os.lstat(address.path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"acme_admin_listen: {address} exists and is not a socket; choose another path")
    with _unix_socket(address) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address.path)
        except ConnectionRefusedError:
            os.unlink(address.path)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # another process listens, and its queue is full
    raise ConfigError(
        f"acme_admin_listen: another process listens at {address}; choose another path, or stop that process"
    )


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
