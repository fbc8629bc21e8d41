"""HTTP over a Unix socket, which requests and urllib3 do not provide.

This module knows how to connect; it must not know the requests.
"""

import socket
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import NewConnectionError

_HOST = "localhost"  # for the Host header; it is not looked up


class UnixAdapter(HTTPAdapter):
    """Sends every request to the socket at ``path``, over ``connections`` at once. Mount it for ``http://``."""

    def __init__(self, path: str, connections: int) -> None:
        super().__init__()
        self._pool = _Pool(path, connections)

    def get_connection_with_tls_context(self, *_arguments: Any, **_settings: Any) -> HTTPConnectionPool:
        return self._pool

    def close(self) -> None:
        super().close()
        self._pool.close()


class _Pool(HTTPConnectionPool):
    def __init__(self, path: str, connections: int) -> None:
        super().__init__(_HOST, maxsize=connections)
        self._path = path

    def _new_conn(self) -> "_Connection":
        return _Connection(self._path)


class _Connection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__(_HOST)
        self._path = path

    def _new_conn(self) -> socket.socket:
        if not hasattr(socket, "AF_UNIX"):
            raise NewConnectionError(self, "this system has no Unix sockets; use the API at its http:// address")
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(self.timeout)
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            raise NewConnectionError(self, f"Failed to establish a new connection: {error}") from error
        return connection
