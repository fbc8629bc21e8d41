"""mitmdump as it comes, with a certificate of the operator's own: what scripts/bench compares a handshake with.

Knows mitmproxy's command line; must not know the addon.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import trustme

from tests.servers.base import Server, free_port, is_open
from tests.servers.binaries import Program


class StockMitmdump(Server):
    """``https_port`` serves `names` with an ECDSA P-256 certificate and one intermediate; behind it `upstream`.

    `root` is the PEM text that a client has to trust.
    """

    name = "stock-mitmdump"

    def __init__(self, upstream: str, names: Sequence[str], arguments: Sequence[str] = ()) -> None:
        super().__init__()
        self.https_port = free_port()
        self.environment = {"PYTHONUNBUFFERED": "1"}
        self._upstream, self._names, self._more = upstream, list(names), list(arguments)
        ca = trustme.CA()
        leaf = ca.create_child_ca().issue_cert(*names)
        self.root = ca.cert_pem.bytes().decode()
        self._pem = self.folder / "certificate.pem"
        self._pem.touch(0o600)
        leaf.private_key_and_cert_chain_pem.write_to_path(str(self._pem))

    def program(self) -> Program:
        return Program(str(Path(sys.executable).with_name("mitmdump")), {})

    def arguments(self) -> list[str]:
        words = ["--mode", f"reverse:{self._upstream}@127.0.0.1:{self.https_port}"]
        words += ["--set", f"confdir={self.folder / 'confdir'}"]
        return words + [word for name in self._names for word in ("--certs", f"{name}={self._pem}")] + self._more

    def own_root(self) -> str:
        """Return mitmproxy's own CA as PEM text: it signs for every name without a certificate."""
        return (self.folder / "confdir" / "mitmproxy-ca-cert.pem").read_text()

    def ready(self) -> bool:
        return is_open(self.https_port)
