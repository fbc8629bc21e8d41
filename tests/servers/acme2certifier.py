"""acme2certifier: an ACME server that shares no line with Pebble, with a CA of OpenSSL's kind behind it.

Knows its configuration, and that it validates at ports 80 and 443 of what DNS says; must not know our addon.
"""

import importlib.util
import json
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path

import trustme
from cryptography import x509

from tests.servers.base import Server, fetch, free_port
from tests.servers.binaries import Missing, Program
from tests.servers.ca import ThrowawayCA
from tests.servers.pebble import Dns

_MAIN = Path(__file__).with_name("acme2certifier_main.py")


class Acme2certifier(Server):
    """An ACME CA at `directory`, whose own HTTPS is trusted through `ca_bundle`.

    http_port, tls_port   where http-01 and tls-alpn-01 validate, in place of 80 and 443; free ports unless given
    eab                   key identifier -> base64url MAC key; required from every account when given
    profiles              names of profiles that the directory shows
    patience              seconds that a request to finalize waits for the certificate; with 0 it never does, and the
                          order is "processing", with a Retry-After of ten minutes
    """

    name = "acme2certifier"

    def __init__(
        self,
        dns: Dns,
        *,
        http_port: int | None = None,
        tls_port: int | None = None,
        eab: Mapping[str, str] | None = None,
        profiles: tuple[str, ...] = (),
        patience: int = 5,
    ) -> None:
        super().__init__()
        self.port = free_port()
        self.directory = f"https://localhost:{self.port}/directory"
        self.http_port = http_port or free_port()
        self.tls_port = tls_port or free_port()
        own = ThrowawayCA(self.folder / "tls")
        self.ca_bundle = own.bundle
        self.context: ssl.SSLContext = own.client_context()
        self._identity, self._dns_port = own.issue(), int(dns.address.rpartition(":")[2])
        self._issuer = trustme.CA()
        self._write(eab or {}, profiles, patience)
        self.environment = {"ACME_SRV_CONFIGFILE": str(self.folder / "acme_srv.cfg"), "PYTHONUNBUFFERED": "1"}

    def _write(self, eab: Mapping[str, str], profiles: tuple[str, ...], patience: int) -> None:
        key, certificate, issued = (self.folder / name for name in ("issuer.key", "issuer.pem", "issued"))
        issued.mkdir()
        self._issuer.private_key_pem.write_to_path(key)
        self._issuer.cert_pem.write_to_path(certificate)
        sections: dict[str, dict[str, object]] = {
            "DEFAULT": {"dns_server_list": json.dumps(["127.0.0.1"])},
            "DBhandler": {"handler": "wsgi", "dbfile": self.folder / "acme_srv.db"},
            "Directory": {"tos_url": "https://example.com/terms"},
            "Certificate": {"enrollment_timeout": patience},
            "CAhandler": {
                "handler_module": "acme2certifier.cahandlers.openssl_ca_handler",
                "issuing_ca_key": key,
                "issuing_ca_cert": certificate,
                "issuing_ca_crl": self.folder / "issuer.crl",
                "cert_save_path": issued,
                "cert_validity_days": 90,
            },
        }
        if profiles:
            sections["Order"] = {"profiles": json.dumps(dict.fromkeys(profiles, "https://example.com/profile"))}
        if eab:
            keys = self.folder / "eab.json"
            keys.write_text(json.dumps(eab))
            sections["EABhandler"] = {
                "eab_handler_module": "acme2certifier.eabhandlers.json_handler",
                "key_file": keys,
            }
        lines = [
            line
            for name, options in sections.items()
            for line in (f"[{name}]", *(f"{option}: {value}" for option, value in options.items()))
        ]
        (self.folder / "acme_srv.cfg").write_text("\n".join(lines) + "\n")

    def program(self) -> Program:
        if importlib.util.find_spec("acme2certifier") is None:
            raise Missing("acme2certifier is not installed: pip install --group dev")
        return Program(sys.executable, {})

    def arguments(self) -> list[str]:
        ports = map(str, (self.port, self._dns_port, self.http_port, self.tls_port))
        # -P: the folder of the script has modules of names that it means to import from elsewhere
        return ["-P", str(_MAIN), *ports, *map(str, self._identity)]

    def ready(self) -> bool:
        return fetch(self.directory, context=self.context).status == 200

    def root(self) -> str:
        """The certificate that signs the leaves, its own root, as PEM."""
        return self._issuer.cert_pem.bytes().decode()

    def revoked(self) -> set[int]:
        """The serial numbers in its revocation list, which is there from the first revocation on."""
        path = self.folder / "issuer.crl"
        return {entry.serial_number for entry in x509.load_pem_x509_crl(path.read_bytes())} if path.exists() else set()
