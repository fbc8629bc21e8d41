"""What unit tests put in the place of time and of a CA, to test our own logic; the real CA is in end_to_end."""

import asyncio
import datetime
import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from acme_storage import Storage
from mitmproxy_acme.ca.capabilities import Capabilities, Order
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.certificate import Certificate, PrivateKey
from mitmproxy_acme.core.errors import AcmeError
from mitmproxy_acme.core.names import ServerName, Subject, is_address
from mitmproxy_acme.core.rate_limits import Limits
from mitmproxy_acme.core.renewal import DAY, LAST_TIME, RenewalInfo
from mitmproxy_acme.core.thread_pools import ThreadPools
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.lifecycle.predecessor import Predecessor
from mitmproxy_acme.store.encryption import RecordCipher

DIRECTORY = "https://acme-v02.api.letsencrypt.org/directory"
UNSEALED = RecordCipher(())
EPOCH = 1_800_000_000.0  # a Friday in January 2027; whole seconds, as certificates have them


@dataclass
class Clock:
    """Time that moves when it is told to."""

    time: float = EPOCH

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds


_ISSUER_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65_537, 2048)  # one for all: making them takes long


def make_certificate(
    names: Sequence[str],
    *,
    now: float = EPOCH,
    lifetime: float = 90 * 86_400.0,
    ca: str = DIRECTORY,
    key: PrivateKey | None = None,
    issuer_key: ec.EllipticCurvePublicKey | None = None,
    issuer_name: str = "Fake Issuer",
) -> Certificate:
    """Sign a certificate that begins at ``now``; with its issuer as the chain.

    With ``issuer_key`` it names that one as its issuer's, as far as a CA looks at it (RFC 9773 section 4.1).
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer_name)])
    named = issuer_key or _ISSUER_KEY.public_key()
    alternative_names = x509.SubjectAlternativeName([_general_name(name) for name in names])
    leaf = _sign(issuer, x509.Name([]), key, now, lifetime, alternative_names, named)
    authority = x509.BasicConstraints(True, None)
    intermediate = _sign(
        issuer, issuer, _ISSUER_KEY, now, min(10 * lifetime, LAST_TIME - now), authority, _ISSUER_KEY.public_key()
    )
    return Certificate(ServerName(names[0]), ca, leaf, (intermediate,), key)


def _general_name(name: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(name)) if is_address(name) else x509.DNSName(name)


def _sign(
    issuer: x509.Name,
    subject: x509.Name,
    key: PrivateKey,
    now: float,
    lifetime: float,
    extension: x509.ExtensionType,
    named: ec.EllipticCurvePublicKey,
) -> x509.Certificate:
    begin = datetime.datetime.fromtimestamp(now, datetime.UTC)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(named)
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(seconds=lifetime))
        .add_extension(extension, critical=False)
        .add_extension(identifier, critical=False)
        .sign(_ISSUER_KEY, hashes.SHA256())
    )


@dataclass
class FakeIssuer:
    """Issues at once, or fails as it is told; counts what it is asked. Its windows are to be asked for daily."""

    now: Clock
    lifetime: float = 90 * 86_400.0
    error: AcmeError | None = None
    window: tuple[float, float] | None = None
    explanation: str = ""
    orders: list[Subject] = field(default_factory=list)
    replaced: list[Certificate | None] = field(default_factory=list)
    asked: int = 0
    revoked: list[tuple[ServerName, str]] = field(default_factory=list)
    directory: str = DIRECTORY
    name: str = "fake-ca"
    limits: Limits = field(default_factory=Limits)
    capabilities: Capabilities = field(default_factory=Capabilities)
    staging: "FakeIssuer | None" = None
    ca_bundle: str = ""
    clock: Clock | None = None  # of the CA; it tells its time where it has one

    def is_replacement(self, replacing: Certificate) -> bool:
        return replacing.ca == self.directory and replacing.renewal_id is not None

    async def ready(self, subject: Subject) -> None:
        """Say what it does not issue; whatever else fails does so when it is ordered."""
        self.capabilities.require(Order(self.name, subject, "", ("http-01",)))

    async def obtain(self, subject: Subject, replacing: Certificate | None = None) -> Certificate:
        self.orders.append(subject)
        self.replaced.append(replacing)
        if self.error is not None:
            raise self.error
        key = RSA_KEY if subject.key_type.startswith("rsa") else None
        certificate = make_certificate(
            subject.names, now=self.now(), lifetime=self.lifetime, ca=self.directory, key=key
        )
        return replace(certificate, id=subject.id)

    async def clock_ahead(self, now: Callable[[], float], trusted: float) -> float | None:
        return now() - self.clock() if self.clock is not None else None

    async def rehearse(self, subject: Subject) -> None:
        await self.obtain(subject)

    async def revoke(self, certificate: Certificate, reason: str) -> None:
        if self.error is not None:
            raise self.error
        self.revoked.append((certificate.id, reason))

    async def renewal_info(self, certificate: Certificate, now: float) -> RenewalInfo | None:
        self.asked += 1
        return RenewalInfo.suggest(*self.window, DAY, now, self.explanation) if self.window else None


def manager_on(
    storage: Storage,
    clock: Clock,
    *issuers: FakeIssuer | None,
    predecessor: Predecessor | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    threads: ThreadPools | None = None,
    **options: Any,
) -> Manager:
    """Make a manager with one fake CA, or with several in their order; options as keywords."""
    config = Config.from_options({"acme_domains": ("**.example.test",), "acme_tos_accepted": True} | options)
    # The CA is what these tests are not about.
    fakes: Any = [issuer for issuer in issuers if issuer is not None] or [FakeIssuer(clock)]
    return Manager(
        config,
        storage,
        issuers=fakes,
        threads=threads,
        now=clock,
        draw=lambda: 0.0,
        monotonic=monotonic,
        predecessor=predecessor,
    )


class AtOnce(ThreadPools):
    """Runs each call in the event loop's thread, after whatever else is ready.

    For tests in which years pass: to hand a call in memory to a thread, and its result back, takes many times as long
    as the call, and on a busy machine each hand-over waits for the scheduler.
    """

    async def issuer[**P, T](self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        await asyncio.sleep(0)
        return call(*args, **kwargs)

    storage = ask = background = webhook = issuer


class Counting:
    """Passes calls on to a storage, and counts them by name."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.calls: Counter[str] = Counter()

    def __getattr__(self, call: str) -> Any:
        self.calls[call] += 1
        return getattr(self._storage, call)
