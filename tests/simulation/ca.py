"""A modelled CA: it issues, refuses, is slow or down, and counts its rate limits.

Knows what an ``Issuer`` is asked, and X.509; must not know nodes, or why they ask. Its certificates are real ones, with
keys from a small pool, because making keys takes long and nothing depends on them being different.
"""

import asyncio
import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import ChallengeFailed, IssuerUnavailable, Problem, RateLimited
from mitmproxy_acme.core.names import Subject
from mitmproxy_acme.core.rate_limits import Limit, Limits
from mitmproxy_acme.core.renewal import RenewalInfo

from .threads import Life

DIRECTORY = "https://ca.simulated.test/directory"

_ISSUER_KEY = ec.derive_private_key(7, ec.SECP256R1())
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
    latency: float = 0.05
    ask_again: float = 60.0  # the Retry-After of renewal windows
    failing: set[str] = field(default_factory=set)
    revoked: set[bytes] = field(default_factory=set)
    called_for: set[bytes] = field(default_factory=set)  # to be replaced at once, by ARI
    requests: int = 0
    _buckets: dict[tuple[str, str], float] = field(default_factory=dict)
    _intermediate: x509.Certificate | None = None

    async def request(self, life: Life) -> None:
        """One request and its answer. Raises ``IssuerUnavailable`` while the CA is down."""
        self.requests += 1
        life.require()
        await asyncio.sleep(self.latency * self.random.uniform(0.5, 2.0))
        life.require()
        if self.down:
            await asyncio.sleep(self.random.choice((0.0, 4.0, 10.0)))
            raise IssuerUnavailable("the simulated CA is down")

    def spend(self, limit: Limit | None, kind: str, mark: str) -> None:
        """Count one in a limit of the CA's own. Raises ``RateLimited`` where none is left."""
        if limit is None:
            return
        now, key = self.true_time(), (kind, mark)
        full_at = self._buckets.get(key, 0.0)
        if limit.remaining(full_at, now) < 1:
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
        return start, start + lifetime * 0.08

    def authorize(self, subject: Subject) -> None:
        """Validate the names of an order, or take what was validated before; see ``CalendarCa``."""

    def subject_name(self, subject: Subject) -> x509.Name:
        """Return what a certificate names besides its alternative names: nothing, as newer profiles do."""
        return x509.Name([])

    def sign(self, subject: Subject) -> Certificate:
        """Issue from now on, in whole seconds, as certificates have them."""
        now = float(int(self.true_time()))
        key = self.random.choice(_KEYS)
        if self._intermediate is None:
            self._intermediate = self._sign_intermediate(now)
        names = x509.SubjectAlternativeName([x509.DNSName(name) for name in subject.names])
        leaf = self._builder(now, self.lifetime, self.subject_name(subject), key, _ISSUER)
        leaf = leaf.add_extension(names, critical=True).add_extension(_FOR_SERVERS, critical=False)
        leaf = leaf.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(_ISSUER_KEY.public_key()), False)
        signed = leaf.sign(_ISSUER_KEY, hashes.SHA256(), ecdsa_deterministic=True)
        return Certificate(subject.id, DIRECTORY, signed, (self._intermediate,), key)

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

    def order_began(self, node: int, id: str) -> object: ...
    def order_ended(self, order: object) -> None: ...
    def issued(self, certificate: Certificate) -> None: ...
    def validation_failed(self, id: str) -> None: ...
    def limit_exceeded(self, kind: str, mark: str) -> None: ...


@dataclass
class CaClient:
    """The CA as one process of a node reaches it: what ``Issuer`` is to the lifecycle code."""

    ca: CaModel
    node: int
    life: Life
    name: str = "simulated-ca"
    directory: str = DIRECTORY
    staging: None = None
    ca_bundle: str = ""

    @property
    def limits(self) -> Limits:
        return self.ca.limits

    def is_replacement(self, replacing: Certificate) -> bool:
        return self.ca.offers_ari and replacing.ca == self.directory and replacing.renewal_id is not None

    async def ready(self, subject: Subject) -> None:
        if self.ca.down:
            await self.ca.request(self.life)

    async def obtain(self, subject: Subject, replacing: Certificate | None = None) -> Certificate:
        order = self.ca.observe.order_began(self.node, subject.id)
        try:
            return await self._order(subject, replacing)
        finally:
            self.ca.observe.order_ended(order)

    async def _order(self, subject: Subject, replacing: Certificate | None) -> Certificate:
        ca, limits, names = self.ca, self.ca.limits, ",".join(subject.names)
        await ca.request(self.life)
        if replacing is None or not self.is_replacement(replacing):
            ca.spend(limits.orders, "orders", "")
        await ca.request(self.life)
        if names in ca.failing:
            ca.spend(limits.failed_validations, "failed validations", names)
            ca.observe.validation_failed(subject.id)
            problem = Problem("connection", "nothing answers", 400, subject.names)
            raise ChallengeFailed(f"the simulated CA could not validate {names}", problem=problem)
        ca.authorize(subject)
        await ca.request(self.life)
        if replacing is None or not self.is_replacement(replacing):
            ca.spend(limits.duplicates, "duplicates", names)
        certificate = ca.sign(subject)
        ca.observe.issued(certificate)
        await ca.request(self.life)
        return certificate

    async def rehearse(self, subject: Subject) -> None:
        raise AssertionError("the simulated CA has no staging directory")

    async def revoke(self, certificate: Certificate, reason: str) -> None:
        await self.ca.request(self.life)
        self.ca.revoked.add(certificate.fingerprint)

    async def renewal_info(self, certificate: Certificate, now: float) -> RenewalInfo | None:
        if not self.ca.offers_ari:  # its directory says so
            return None
        await self.ca.request(self.life)
        return RenewalInfo.suggest(*self.ca.window(certificate), self.ca.ask_again, now)
