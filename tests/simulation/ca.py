"""A modelled CA: it issues, refuses, is slow or down, and counts its rate limits.

Knows what an ``Issuer`` is asked, and X.509; must not know nodes, or why they ask. Its certificates are real ones, with
keys from a small pool, because making keys takes long and nothing depends on them being different.
"""

import asyncio
import datetime
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import ChallengeFailed, IssuerUnavailable, Problem, RateLimited
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.rate_limits import Limit, Limits
from mitmproxy_acme.core.renewal import RenewalInfo

from .threads import Life

DIRECTORY = "https://ca.simulated.test/directory"
_USUAL = 0.5  # seconds; a CA that takes longer is slow

_ISSUER_KEY = ec.derive_private_key(7, ec.SECP256R1())
_OTHER_KEY = ec.derive_private_key(9, ec.SECP256R1())
_KEYS = [ec.derive_private_key(1_000 + number, ec.SECP256R1()) for number in range(16)]
_ISSUER = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Simulated Issuer")])
# No clientAuth, and no authority information access: public CAs have ended both OCSP and certificates for clients.
_FOR_SERVERS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
_ROOT = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Simulated Root")])


@dataclass
class CaModel:
    """One CA for all nodes. ``lifetime`` is that of its certificates, ``offers_ari`` whether it suggests windows."""

    random: Random
    true_time: Callable[[], float]
    lifetime: float
    offers_ari: bool
    limits: Limits
    observe: "Observer"
    down: bool = False
    misdelivery: float = 0.0  # from -1 to 1: what is wrong with its certificates; nothing if it is 0
    latency: float = 0.05  # seconds
    ask_again: float = 60.0  # the Retry-After of renewal windows
    window_part: float = 0.08  # of the lifetime, for which a renewal window lasts
    number: int = 0  # its place in the order of preference
    has_staging: bool = False
    failed_at: float = -1e9  # when it last failed, or counted a limit that was used up
    failing: set[str] = field(default_factory=set)
    revoked: set[bytes] = field(default_factory=set)
    called_for: set[bytes] = field(default_factory=set)  # to be replaced at once, by ARI
    requests: int = 0
    _buckets: dict[tuple[str, str], float] = field(default_factory=dict)
    _intermediate: x509.Certificate | None = None

    @property
    def directory(self) -> str:
        return DIRECTORY if not self.number else DIRECTORY.replace("ca.", f"ca{self.number}.")

    @property
    def is_well(self) -> bool:
        return not self.down and not self.misdelivery and self.latency <= _USUAL

    async def request(self, life: Life) -> None:
        """One request and its answer. Raises ``IssuerUnavailable`` while the CA is down."""
        self.requests += 1
        life.require()
        await asyncio.sleep(self.latency * self.random.uniform(0.5, 2.0))
        life.require()
        if self.down:
            self.failed_at = self.true_time()
            await asyncio.sleep(self.random.choice((0.0, 4.0, 10.0)))
            raise IssuerUnavailable("the simulated CA is down")

    def spend(self, limit: Limit | None, kind: str, mark: str) -> None:
        """Count one in a limit of the CA's own. Raises ``RateLimited`` where none is left."""
        if limit is None:
            return
        now, key = self.true_time(), (kind, mark)
        full_at = self._buckets.get(key, 0.0)
        if limit.remaining(full_at, now) < 1:
            self.failed_at = now
            self.observe.limit_exceeded(kind, mark)
            wait = limit.next_at(full_at, now) - now
            raise RateLimited(f"the simulated CA has counted {kind} for {mark}", retry_after=wait)
        self._buckets[key] = limit.spend(full_at, now)

    def window(self, certificate: Certificate) -> tuple[float, float]:
        if certificate.fingerprint in self.called_for | self.revoked:
            now = self.true_time()
            return now - 20.0, now - 10.0
        lifetime = certificate.not_after - certificate.not_before
        start = certificate.not_before + lifetime * 0.62
        return start, start + lifetime * self.window_part

    def authorize(self, subject: Subject) -> None:
        """Validate the names of an order, or take what was validated before; see ``CalendarCa``."""

    def subject_name(self, subject: Subject) -> x509.Name:
        """Return what a certificate names besides its alternative names: nothing, as newer profiles do."""
        return x509.Name([])

    def sign(self, subject: Subject, at: float | None = None) -> Certificate:
        """Issue from now on, or from ``at`` (Unix seconds), in whole seconds, as certificates have them."""
        now = float(int(self.true_time() if at is None else at))
        key = self.random.choice(_KEYS)
        if self._intermediate is None:
            self._intermediate = self._sign_intermediate(now)
        names = x509.SubjectAlternativeName([x509.DNSName(name) for name in subject.names])
        leaf = self._builder(now, self.lifetime, self.subject_name(subject), key, _ISSUER)
        leaf = leaf.add_extension(names, critical=True).add_extension(_FOR_SERVERS, critical=False)
        leaf = leaf.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(_ISSUER_KEY.public_key()), False)
        signed = leaf.sign(_ISSUER_KEY, hashes.SHA256(), ecdsa_deterministic=True)
        return Certificate(subject.id, self.directory, signed, (self._intermediate,), key)

    @property
    def misdelivers_the_past(self) -> bool:
        return self.misdelivery >= 0.5

    def deliver(self, subject: Subject) -> Certificate:
        """Issue a certificate; one of another key, of another name or of the past while it misdelivers."""
        if not self.misdelivery:
            return self.sign(subject)
        self.failed_at = self.true_time()
        if self.misdelivers_the_past:
            return self.sign(subject, at=self.true_time() - self.lifetime - 3_600.0)
        if self.misdelivery < -0.5:
            return replace(self.sign(subject), key=_OTHER_KEY)
        return replace(self.sign(Subject((ServerName("another.example.test"),))), id=subject.id)

    def _sign_intermediate(self, now: float) -> x509.Certificate:
        builder = self._builder(now - 86_400.0, 20 * 365 * 86_400.0, _ISSUER, _ISSUER_KEY, _ROOT)
        authority = x509.BasicConstraints(ca=True, path_length=None)
        return builder.add_extension(authority, critical=True).sign(
            _ISSUER_KEY, hashes.SHA256(), ecdsa_deterministic=True
        )

    def _builder(
        self, begin: float, lifetime: float, name: x509.Name, key: ec.EllipticCurvePrivateKey, issuer: x509.Name
    ) -> x509.CertificateBuilder:
        begins = datetime.datetime.fromtimestamp(begin, datetime.UTC)
        serial = self.random.getrandbits(120) | 1
        return (
            x509.CertificateBuilder(issuer, name, key.public_key(), serial)
            .not_valid_before(begins)
            .not_valid_after(begins + datetime.timedelta(seconds=lifetime))
        )


class Observer(Protocol):
    """What a CA reports; see ``invariants``."""

    def asked(self, node: int) -> None: ...
    def order_began(self, node: int, id: str, ca: int) -> object: ...
    def order_ended(self, order: object) -> None: ...
    def issued(self, certificate: Certificate, process: object, ahead: float) -> None: ...
    def order_failed(self, id: str, *where: int) -> None: ...
    def validation_failed(self, id: str) -> None: ...
    def rehearsal_failed(self, id: str) -> None: ...
    def rehearsed(self, node: int, id: str) -> None: ...
    def limit_exceeded(self, kind: str, mark: str) -> None: ...


@dataclass
class CaClient:
    """The CA as one process of a node reaches it: what ``Issuer`` is to the lifecycle code."""

    ca: CaModel
    node: int
    life: Life
    now: Callable[[], float]
    ca_bundle: str = ""

    @property
    def name(self) -> str:
        return f"simulated-ca-{self.ca.number}"

    @property
    def directory(self) -> str:
        return self.ca.directory

    @property
    def staging(self) -> "StagingClient | None":
        return StagingClient(self.ca, self.node, self.life) if self.ca.has_staging else None

    async def _ask(self) -> None:
        """Send a request, and have its answer."""
        self.ca.observe.asked(self.node)
        await self.ca.request(self.life)

    @property
    def limits(self) -> Limits:
        return self.ca.limits

    def is_replacement(self, replacing: Certificate) -> bool:
        return self.ca.offers_ari and replacing.ca == self.directory and replacing.renewal_id is not None

    async def ready(self, subject: Subject) -> None:
        if self.ca.down:
            await self._ask()

    async def clock_ahead(self, now: Callable[[], float], trusted: float) -> float | None:
        return now() - self.ca.true_time()

    async def obtain(self, subject: Subject, replacing: Certificate | None = None) -> Certificate:
        order = self.ca.observe.order_began(self.node, subject.id, self.ca.number)
        try:
            return await self._order(subject, replacing)
        finally:
            self.ca.observe.order_ended(order)

    async def _order(self, subject: Subject, replacing: Certificate | None) -> Certificate:
        ca, limits, names = self.ca, self.ca.limits, ",".join(subject.names)
        await self._ask()
        if replacing is None or not self.is_replacement(replacing):
            ca.spend(limits.orders, "orders", "")
        await self._ask()
        if names in ca.failing:
            ca.spend(limits.failed_validations, "failed validations", names)
            ca.observe.validation_failed(subject.id)
            problem = Problem("connection", "nothing answers", 400, subject.names)
            raise ChallengeFailed(f"the simulated CA could not validate {names}", problem=problem)
        ca.authorize(subject)
        await self._ask()
        if replacing is None or not self.is_replacement(replacing):
            ca.spend(limits.duplicates, "duplicates", names)
        certificate = ca.deliver(subject)
        if ca.misdelivery:
            # What is long over may show that a node's clock is wrong, so the failure is not shared.
            by_node = (self.node,) if ca.misdelivers_the_past else ()
            ca.observe.order_failed(subject.id, ca.number, *by_node)
        else:
            ca.observe.issued(certificate, self.life, self.now() - ca.true_time())
        await self._ask()
        return certificate

    async def revoke(self, certificate: Certificate, reason: str) -> None:
        await self._ask()
        self.ca.revoked.add(certificate.fingerprint)

    async def renewal_info(self, certificate: Certificate, now: float) -> RenewalInfo | None:
        if not self.ca.offers_ari:  # its directory says so
            return None
        await self._ask()
        return RenewalInfo.suggest(*self.ca.window(certificate), self.ca.ask_again, now)


@dataclass
class StagingClient:
    """The staging directory of a CA. It is down when the CA is, and validates what the CA can."""

    ca: CaModel
    node: int
    life: Life

    @property
    def name(self) -> str:
        return f"simulated-ca-{self.ca.number}-staging"

    async def rehearse(self, subject: Subject) -> None:
        observe, names = self.ca.observe, ",".join(subject.names)
        observe.asked(self.node)
        if self.ca.down:
            observe.rehearsed(self.node, subject.id)
        await self.ca.request(self.life)
        if names in self.ca.failing:
            observe.rehearsal_failed(subject.id)
            problem = Problem("connection", "nothing answers", 400, subject.names)
            raise ChallengeFailed(f"the staging directory could not validate {names}", problem=problem)
        observe.rehearsed(self.node, subject.id)
