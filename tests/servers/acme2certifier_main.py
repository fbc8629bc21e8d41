"""The process of `tests.servers.acme2certifier`: its WSGI application over HTTPS, with other ports for validation.

Knows acme2certifier and the ports that it has no options for. It is a program, not to be imported:
``python -P acme2certifier_main.py PORT DNS_PORT HTTP_PORT TLS_PORT CERTIFICATE KEY``
"""

import socket
import sys
from typing import Any

import dns.resolver
from werkzeug.serving import run_simple

port, dns_port, http_port, tls_port = map(int, sys.argv[1:5])
instead = {80: http_port, 443: tls_port}
connect = socket.socket.connect


def connect_elsewhere(self: socket.socket, address: tuple[Any, ...]) -> None:
    """Connect to the test's port where the program means a well-known one."""
    host, number, *rest = address
    connect(self, (host, instead.get(number, number), *rest))


class Resolver(dns.resolver.Resolver):
    """Asks at the port of the test's DNS server."""

    def reset(self) -> None:
        super().reset()
        self.port = dns_port


if __name__ == "__main__":
    socket.socket.connect = connect_elsewhere  # type: ignore[assignment,method-assign]  # for this process alone
    dns.resolver.Resolver = Resolver  # type: ignore[misc]  # likewise
    from acme2certifier.share.acme2certifier_wsgi import application  # reads its configuration when imported

    run_simple("127.0.0.1", port, application, threaded=True, ssl_context=(sys.argv[5], sys.argv[6]))
