"""The roots that a CA's server certificate is verified with, parsed once and not for each connection.

This module knows a PEM file and TLS contexts; it must not know which CA is asked.
"""

import os
import ssl

from urllib3.util.ssl_ import create_urllib3_context

from .deadline import BoundedSocket


class TrustedRoots:
    """A PEM file of roots, and the TLS context that trusts them. Use it from any thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._read: tuple[tuple[int, ...], ssl.SSLContext] | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection. Raises ``OSError`` if the file cannot be read.

        The file is read again if it has changed. urllib3 would read it for each connection: with the roots of requests
        that takes longer than the handshake.
        """
        found = os.stat(self._path)
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if self._read is None or self._read[0] != stamp:
            context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
            context.sslsocket_class = BoundedSocket
            context.load_verify_locations(self._path)
            self._read = (stamp, context)
        return self._read[1]
