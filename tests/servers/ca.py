"""A throw-away CA for a test server's own TLS. Knows trustme; must not know any server."""

import ssl
from pathlib import Path
from typing import NamedTuple

import trustme

LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Identity(NamedTuple):
    """PEM files of one server: its certificate chain and its private key."""

    certificate: Path
    key: Path


class ThrowawayCA:
    """Lives in `folder`; `bundle` is the PEM file that a client has to trust."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.bundle = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.bundle)

    def issue(self, *names: str) -> Identity:
        """A certificate for `names` (DNS names or addresses; without any: the loopback ones)."""
        stem = (names or LOOPBACK)[0]
        leaf = self._ca.issue_cert(*(names or LOOPBACK), common_name=stem)  # by which Vault knows a client
        identity = Identity(self._folder / f"{stem}.crt", self._folder / f"{stem}.key")
        identity.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        identity.key.touch(0o600)
        leaf.private_key_pem.write_to_path(identity.key)
        return identity

    def client_context(self) -> ssl.SSLContext:
        """Trusts this CA and nothing else."""
        return ssl.create_default_context(cafile=self.bundle)

    def server_context(self) -> ssl.SSLContext:
        """For a server on the loopback names."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self.issue())
        return context
