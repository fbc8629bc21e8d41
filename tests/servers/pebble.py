"""Let's Encrypt's test CA and its DNS server, with every switch that a test can want.

Knows Pebble's configuration, management interface and log; must not know any ACME client.
State is lost and the CA's keys are new after every restart of Pebble.
"""

import json
import re
import ssl
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from cryptography import x509

from tests.servers.base import Server, fetch, free_port
from tests.servers.binaries import Program, find
from tests.servers.ca import ThrowawayCA

DAY = 86_400

_REQUEST = re.compile(r" (?:GET|HEAD|POST) (\S+) -> calling handler")
_ORDER = re.compile(r" Added order ")
_ISSUED = re.compile(r" Issued certificate serial ([0-9a-f]+) for order")
_VALIDATION = re.compile(r" Starting \d+ validations")


class Dns(Protocol):
    """What Pebble needs of its DNS server."""

    address: str


def can_be_replaced(leaf: x509.Certificate) -> bool:
    """Whether Pebble takes ``replaces`` of it: 2.10 answers 500 where DER begins the serial number with a zero byte.

    That is one certificate of 256.
    """
    return leaf.serial_number.bit_length() % 8 != 0


class ChallTestSrv(Server):
    """Pebble's DNS server: every name is 127.0.0.1 and has no AAAA, unless a test says otherwise."""

    name = "pebble-challtestsrv"

    def __init__(self) -> None:
        super().__init__()
        self._until_ready = Seen()
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._management = free_port()

    def program(self) -> Program:
        return find(self.name)

    def arguments(self) -> list[str]:
        off = [word for name in ("http01", "https01", "tlsalpn01", "doh") for word in (f"-{name}", "")]
        management = ["-management", f"127.0.0.1:{self._management}"]
        return [*management, "-dnsserver", self.address, "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", *off]

    def ready(self) -> bool:
        self.add_a("ready.invalid", "127.0.0.1")
        return True

    def add_a(self, name: str, *addresses: str) -> None:
        self._post("add-a", host=name, addresses=addresses)

    def clear_a(self, name: str) -> None:
        """Back to 127.0.0.1."""
        self._post("clear-a", host=name)

    def add_aaaa(self, name: str, *addresses: str) -> None:
        self._post("add-aaaa", host=name, addresses=addresses)

    def set_txt(self, name: str, value: str) -> None:
        """Add a value: a name can have several, as dns-01 needs."""
        self._post("set-txt", host=_absolute(name), value=value)

    def clear_txt(self, name: str) -> None:
        self._post("clear-txt", host=_absolute(name))

    def set_cname(self, name: str, target: str) -> None:
        self._post("set-cname", host=name, target=target)

    def add_caa(self, name: str, **policies: str) -> None:
        """Adds a record for each tag and its value."""
        records = [{"tag": tag, "value": value} for tag, value in policies.items()]
        self._post("add-caa", host=name, policies=records)

    def set_servfail(self, name: str) -> None:
        """Every question for `name` is answered with SERVFAIL, until `clear_servfail`."""
        self._post("set-servfail", host=name)

    def clear_servfail(self, name: str) -> None:
        self._post("clear-servfail", host=name)

    def _post(self, call: str, **body: object) -> None:
        reply = fetch(f"http://127.0.0.1:{self._management}/{call}", body)
        if reply.status != 200:
            raise OSError(f"challtestsrv {call}: {reply.status} {reply.text}")


def _absolute(name: str) -> str:
    return name.rstrip(".") + "."


@dataclass(frozen=True)
class Seen:
    """What Pebble did, counted from its log: take one before and one after, and subtract."""

    orders: int = 0
    certificates: int = 0
    validations: int = 0
    requests: int = 0
    by_path: Counter[str] = field(default_factory=Counter)  # "/dir", "/nonce-plz", "/order-plz", "/chalZ/", …

    def __sub__(self, before: "Seen") -> "Seen":
        return Seen(
            self.orders - before.orders,
            self.certificates - before.certificates,
            self.validations - before.validations,
            self.requests - before.requests,
            self.by_path - before.by_path,
        )


class Pebble(Server):
    """An ACME CA at `directory`, whose own HTTPS is trusted through `ca_bundle` (or `context`).

    http_port, tls_port   where http-01 and tls-alpn-01 validate; free ports unless given
    profiles              name -> validity in seconds. ONE by default: from several, Pebble picks at RANDOM for an
                          order that names none
    nonce_reject          percentage of good nonces that are refused; authz_reuse: percentage of reused authorizations
    nosleep               False: validations take up to 15 s, as Pebble does by default
    always_valid          no challenge is looked at
    retry_after           seconds in the Retry-After of authorizations and orders
    eab                   key identifier -> base64url MAC key; required from every account when given
    """

    name = "pebble"
    noise = re.compile(r"-> calling handler|There are now \d|Pulled a task|Attempting to validate|Starting \d valid")

    def __init__(
        self,
        dns: Dns | None = None,
        *,
        http_port: int | None = None,
        tls_port: int | None = None,
        profiles: Mapping[str, int] | None = None,
        nonce_reject: int = 0,
        authz_reuse: int = 0,
        nosleep: bool = True,
        always_valid: bool = False,
        strict: bool = True,
        alternate_roots: int = 0,
        chain_length: int = 1,
        key_algorithm: str = "ecdsa",
        retry_after: tuple[int, int] = (1, 1),
        eab: Mapping[str, str] | None = None,
        blocklist: Sequence[str] = (),
        caa_identities: Sequence[str] = ("pebble.test",),
    ) -> None:
        super().__init__()
        self.port = free_port()
        self._management_port = free_port()
        self.directory = f"https://localhost:{self.port}/dir"
        self.management = f"https://localhost:{self._management_port}"
        self.http_port = http_port or free_port()
        self.tls_port = tls_port or free_port()
        self.ca = ThrowawayCA(self.folder / "tls")
        self.ca_bundle = self.ca.bundle
        self.context: ssl.SSLContext = self.ca.client_context()
        self._dns, self._strict = dns, strict
        self.environment = {
            # Pebble's Order() locks an order twice for reading, and where a writer comes between all of it stands still
            # for good (letsencrypt/pebble#554): some thousand looks at one order from eight threads did it. On one
            # thread of Go's nothing comes between.
            "GOMAXPROCS": "1",
            "PEBBLE_WFE_NONCEREJECT": str(nonce_reject),
            "PEBBLE_AUTHZREUSE": str(authz_reuse),
            "PEBBLE_VA_NOSLEEP": str(int(nosleep)),
            "PEBBLE_VA_ALWAYS_VALID": str(int(always_valid)),
            "PEBBLE_ALTERNATE_ROOTS": str(alternate_roots),
            "PEBBLE_CHAIN_LENGTH": str(chain_length),
        }
        identity = self.ca.issue()
        configuration = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self._management_port}",
            "certificate": str(identity.certificate),
            "privateKey": str(identity.key),
            "httpPort": self.http_port,
            "tlsPort": self.tls_port,
            "ocspResponderURL": "",
            "keyAlgorithm": key_algorithm,
            "externalAccountBindingRequired": bool(eab),
            "externalAccountMACKeys": dict(eab or {}),
            "domainBlocklist": list(blocklist),
            "caaIdentities": list(caa_identities),
            "retryAfter": {"authz": retry_after[0], "order": retry_after[1]},
            "profiles": {
                name: {"description": f"valid for {seconds} s", "validityPeriod": seconds}
                for name, seconds in (profiles or {"default": 90 * DAY}).items()
            },
        }
        (self.folder / "pebble.json").write_text(json.dumps({"pebble": configuration}))

    def program(self) -> Program:
        return find(self.name)

    def arguments(self) -> list[str]:
        arguments = ["-config", str(self.folder / "pebble.json"), f"-strict={str(self._strict).lower()}"]
        return [*arguments, "-dnsserver", self._dns.address] if self._dns else arguments

    def ready(self) -> bool:
        directory = fetch(self.directory, context=self.context)
        return directory.status == 200 and self._managed("/roots/0").startswith("-----BEGIN")

    def root(self, number: int = 0) -> str:
        """The root certificate of chain `number` (0, and one more for each of `alternate_roots`), as PEM."""
        return self._managed(f"/roots/{number}")

    def intermediate(self, number: int = 0) -> str:
        """The certificate that signs the leaves of chain `number`, as PEM."""
        return self._managed(f"/intermediates/{number}")

    def cert_status(self, serial: int) -> dict[str, str | int]:
        """{"Status": "Valid" | "Revoked", "Reason": number, …} of a certificate that this CA issued."""
        status: dict[str, str | int] = json.loads(self._managed(f"/cert-status-by-serial/{serial:x}"))
        return status

    def set_renewal_info(self, certificate_pem: str, reply: str) -> None:
        """Set the answer of this certificate's renewal-info resource (RFC 9773) from now on: any text, even a wrong
        one.
        """
        self._managed("/set-renewal-info/", {"Certificate": certificate_pem, "ARIResponse": reply})

    def start(self) -> Self:
        self._until_ready = Seen()
        super().start()
        self._until_ready = self.seen()
        return self

    def seen(self) -> Seen:
        """Counts since it was last ready. A line is written before the client has the answer it belongs to."""
        return self._count() - self._until_ready

    def _count(self) -> Seen:
        log = self.log_text()
        paths = Counter(_REQUEST.findall(log))
        return Seen(
            orders=len(_ORDER.findall(log)),
            certificates=len(_ISSUED.findall(log)),
            validations=len(_VALIDATION.findall(log)),
            requests=paths.total(),
            by_path=paths,
        )

    def issued_serials(self) -> list[int]:
        """Serial numbers of all certificates since the last start, in order of issuance."""
        return [int(serial, 16) for serial in _ISSUED.findall(self.log_text())]

    def _managed(self, path: str, body: object = None) -> str:
        reply = fetch(self.management + path, body, context=self.context)
        if reply.status != 200:
            raise OSError(f"Pebble's {path}: {reply.status} {reply.text}")
        return reply.text
