"""What the CA did: its orders and its certificates, read from its log as it goes.

Knows Pebble's log and its management interface; must not know the nodes.
"""

import contextlib
import re
import threading
from dataclasses import dataclass

from cryptography import x509

from tests.servers.pebble import Pebble

_ORDER = re.compile(rb" Added order ")
_ISSUED = re.compile(rb" Issued certificate serial ([0-9a-f]+) for order")


@dataclass(frozen=True)
class Issue:
    """A certificate of one name; times are Unix seconds, in whole seconds."""

    name: str
    not_before: float
    not_after: float

    @property
    def lifetime(self) -> float:
        return self.not_after - self.not_before


class Issued:
    """The orders and certificates of one Pebble, over all its restarts. Safe from any thread."""

    def __init__(self, ca: Pebble) -> None:
        self._ca = ca
        self._lock = threading.Lock()
        self._read = 0
        self._unread = b""
        self._serials: list[int] = []
        self.orders = 0
        self.certificates = 0
        self.by_name: dict[str, list[Issue]] = {}

    def collect(self) -> None:
        """Read what is new. Certificates of which Pebble cannot tell now are asked for the next time."""
        with self._lock:
            self._read_log()
            with contextlib.suppress(OSError):
                while self._serials:
                    self._add(self._serials[0])
                    self._serials.pop(0)

    def restart(self) -> None:
        """Restart Pebble, which forgets everything: what it had issued is collected before."""
        self.collect()
        with self._lock:
            self._ca.restart()
            self._read_log()
            self._serials.clear()

    def _read_log(self) -> None:
        with self._ca.log.open("rb") as log:
            log.seek(self._read)
            lines, _, self._unread = (self._unread + log.read()).rpartition(b"\n")
            self._read = log.tell()
        found = [int(serial, 16) for serial in _ISSUED.findall(lines)]
        self.orders += len(_ORDER.findall(lines))
        self.certificates += len(found)
        self._serials += found

    def valid(self, name: str, begun: float, ended: float) -> list[Issue]:
        """Return the certificates of a name that were issued before one moment, and valid until another."""
        return [issue for issue in self.by_name.get(name, ()) if issue.not_before < begun and ended < issue.not_after]

    def ended_between(self, name: str, begun: float, ended: float) -> bool:
        """Say whether a certificate of a name ended then."""
        return any(begun <= issue.not_after + 1 and issue.not_after <= ended for issue in self.by_name.get(name, ()))

    def _add(self, serial: int) -> None:
        leaf = x509.load_pem_x509_certificate(str(self._ca.cert_status(serial)["Certificate"]).encode())
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        begun, ends = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        for name in extension.value.get_values_for_type(x509.DNSName):
            self.by_name.setdefault(name, []).append(Issue(name, begun, ends))
