"""Very many certificates for scripts/bench, signed here and put into a store as the addon itself puts them.

Knows X.509, and the addon's view of a store; must not know what is measured.
"""

import datetime
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from acme_storage import Storage
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.rate_limits import Limits
from mitmproxy_acme.core.renewal import DAY, RenewalInfo
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.renewal_schedule import RenewalSchedule, ScheduledCheck
from mitmproxy_acme.store.store import Slot, Store

NO_CA = "https://localhost:9/directory"  # where no CA listens: nothing is ordered while the proxy serves
_LIFETIME = 93 * DAY
_RENEWED_AFTER = 62 * DAY  # two thirds, as acme_renew_before=auto has it
_WRITERS = 4
_SIGNS = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # certificates and CRLs


class LocalCA:
    """A root and an intermediate in this process; what signs in the place of a CA. One key for all leaves saves time.

    It is an issuer as the manager knows one, so that a renewal here costs what storage costs and no more.
    """

    directory = NO_CA
    name = "bench"
    limits = Limits()
    staging = None

    def __init__(self) -> None:
        self._key, self._leaf_key, root_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
        root, self._name = _name("Bench Root"), _name("Bench Intermediate")
        self.root = _signed(root, root, root_key, root_key.public_key(), x509.BasicConstraints(True, None))
        authority = x509.BasicConstraints(True, 0)
        self._intermediate = _signed(root, self._name, root_key, self._key.public_key(), authority)
        self._identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())

    @property
    def root_pem(self) -> str:
        return self.root.public_bytes(serialization.Encoding.PEM).decode()

    def certificate(self, name: str, *, due: float) -> Certificate:
        """One that is to be renewed at ``due`` (Unix seconds)."""
        begin = datetime.datetime.fromtimestamp(int(due) - _RENEWED_AFTER, datetime.UTC)
        leaf = (
            x509.CertificateBuilder(self._name, _name(""), self._leaf_key.public_key(), x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + datetime.timedelta(seconds=_LIFETIME))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
            .add_extension(self._identifier, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Certificate(ServerName(name), NO_CA, leaf, (self._intermediate,), self._leaf_key)

    def is_replacement(self, replacing: Certificate) -> bool:
        return True

    async def ready(self, subject: Subject) -> None:
        """Nothing to do."""

    async def clock_ahead(self, now: Callable[[], float], trusted: float) -> float | None:
        return 0.0

    async def obtain(self, subject: Subject, replacing: Certificate | None = None) -> Certificate:
        """What a CA would issue at the moment at which ``replacing`` is due."""
        assert replacing is not None
        return self.certificate(subject.id, due=replacing.not_after - _LIFETIME + 2 * _RENEWED_AFTER)

    async def renewal_info(self, certificate: Certificate, now: float) -> RenewalInfo | None:
        return None


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)] if text else [])


def _signed(
    issuer: x509.Name,
    subject: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePublicKey,
    constraints: x509.BasicConstraints,
) -> x509.Certificate:
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=100)
    return (
        x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=1_000))
        .add_extension(constraints, critical=True)
        .add_extension(_SIGNS, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )


def certificates(ca: LocalCA, count: int, zone: str, *, start: float, hours: float) -> Iterator[Certificate]:
    """Sign so many, which come due one after the other from ``start`` (Unix seconds) over so many hours."""
    assert hours <= 61 * 24, "the last ones would not have begun yet"
    for number in range(count):
        yield ca.certificate(f"{secrets.token_hex(6)}.{zone}", due=start + number * hours * 3_600 / count)


def put(storage: Storage, hoard: Sequence[Certificate], looks: Sequence[float]) -> None:
    """Store each and list it in the calendar, by the calls that a renewal makes, from some threads."""
    store, calendar = Store(storage, RecordCipher(())), RenewalSchedule(storage)

    def put_one(certificate: Certificate, look: float) -> None:
        calendar.add(ScheduledCheck(certificate.id, look))
        assert store.replace(Slot(None, None), certificate)

    with ThreadPoolExecutor(_WRITERS) as writers:
        for _ in writers.map(put_one, hoard, looks):
            pass
