"""A delivered certificate is checked before it replaces the one in use; if it fails, the old one stays."""

import datetime
import ipaddress
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from acme_storage.checks import MAX_VALUE
from acme_storage.memory import Memory
from mitmproxy_acme.ca import delivery
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import (
    BackingOff,
    CertificateError,
    DeliveryRefused,
    IssuanceError,
    IssuerUnavailable,
    OfAnotherTime,
)
from mitmproxy_acme.core.events import CertificateFailed, Event
from mitmproxy_acme.core.names import ServerName, Subject, is_address
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import DIRECTORY, EPOCH, Clock, FakeIssuer, manager_on

_A, _B = (Subject((ServerName(f"{letter}.example.test"),)) for letter in "ab")
_PRIVATE = "https://ca.example.test/directory"
_HOUR = 3_600.0


@dataclass(frozen=True)
class Link:
    """A certificate that can sign others."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def root(cls, name: str) -> Self:
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(_sign(name, key.public_key(), name, key), key)

    def below(self, name: str, **wishes: Any) -> "Link":
        key = ec.generate_private_key(ec.SECP256R1())
        return Link(_sign(name, key.public_key(), _common_name(self.certificate), self.key, **wishes), key)


def _common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _sign(
    subject: str,
    public_key: Any,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    begins: float = -DAY,
    ends: float = 1_000 * DAY,
    extensions: Sequence[x509.ExtensionType] = (x509.BasicConstraints(True, None),),
    critical: bool = False,
) -> x509.Certificate:
    """Sign; times are seconds from the epoch of the tests."""
    builder = x509.CertificateBuilder(_name(issuer), _name(subject), public_key, x509.random_serial_number())
    builder = builder.not_valid_before(_time(begins)).not_valid_after(_time(ends))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key, hashes.SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(EPOCH + seconds, datetime.UTC)


ROOT = Link.root("Root")
INTERMEDIATE = ROOT.below("Intermediate")
OTHER = Link.root("Other Root").below("Intermediate")  # another CA's, by the same name
CHAIN = (INTERMEDIATE,)


def issue(
    names: Sequence[str],
    *,
    signer: Link = INTERMEDIATE,
    chain: Sequence[Link] = CHAIN,
    begins: float = 0.0,
    ends: float = 90 * DAY,
    common_name: str = "",
    extensions: Sequence[x509.ExtensionType] = (),
    ca: str = _PRIVATE,
) -> Certificate:
    """Deliver a certificate; the defaults are a good one."""
    key = ec.generate_private_key(ec.SECP256R1())
    san = x509.SubjectAlternativeName([_general_name(name) for name in names])
    leaf = _sign(
        *(common_name, key.public_key(), _common_name(signer.certificate), signer.key),
        begins=begins,
        ends=ends,
        extensions=(san, *extensions),
    )
    return Certificate(ServerName(names[0]), ca, leaf, tuple(link.certificate for link in chain), key)


def _general_name(name: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(name)) if is_address(name) else x509.DNSName(name)


def _pem(*links: Link | x509.Certificate) -> str:
    certificates = (link.certificate if isinstance(link, Link) else link for link in links)
    return "".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in certificates)


def _usage(*, digital_signature: bool) -> x509.KeyUsage:
    others = dict.fromkeys(
        ("content_commitment", "data_encipherment", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        False,
    )
    return x509.KeyUsage(
        digital_signature=digital_signature, key_encipherment=not digital_signature, key_agreement=False, **others
    )


@dataclass
class Deliverer(FakeIssuer):
    """A CA that delivers what a test says."""

    directory: str = _PRIVATE
    make: Callable[..., Certificate] = issue

    async def obtain(self, subject: Subject, replacing: Certificate | None = None) -> Certificate:
        self.orders.append(subject)
        return replace(self.make(subject.names, ca=self.directory), id=subject.id)


@pytest.fixture
def ca(clock: Clock) -> Deliverer:
    return Deliverer(clock)


@pytest.fixture
def manager(memory: Memory, clock: Clock, ca: Deliverer) -> Manager:
    return manager_on(memory, clock, ca)


def _with(**wishes: Any) -> Callable[..., Certificate]:
    return lambda names, ca: issue(names, ca=ca, **wishes)


def _named(*others: str) -> Callable[..., Certificate]:
    return lambda names, ca: issue([*names, *others], ca=ca)


def _instead(*others: str) -> Callable[..., Certificate]:
    return lambda names, ca: issue(others, ca=ca)


def _of_other_key(names: Sequence[str], ca: str) -> Certificate:
    return replace(issue(names, ca=ca), key=ec.generate_private_key(ec.SECP256R1()))


_NO_CA = ROOT.below("Intermediate", extensions=())
_ENDED = ROOT.below("Intermediate", ends=-60.0)
_LATER = ROOT.below("Intermediate", begins=_HOUR)
_BELOW_NONE = ROOT.below("Upper", extensions=(x509.BasicConstraints(True, 0),))
_TOO_DEEP = _BELOW_NONE.below("Lower")
_ELSEWHERE = ROOT.below(
    "Intermediate",
    extensions=(
        x509.BasicConstraints(True, None),
        x509.NameConstraints([x509.DNSName("elsewhere.test")], None),
    ),
)
_AUTHORITY = x509.BasicConstraints(True, None)
_SIGNS_NOT = ROOT.below("Intermediate", extensions=(_AUTHORITY, _usage(digital_signature=True)))
_CLIENTS_ONLY = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
_OF_CLIENTS = ROOT.below("Intermediate", extensions=(_AUTHORITY, _CLIENTS_ONLY))
_STRANGE = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
_STRANGE_CA = ROOT.below("Intermediate", extensions=(x509.BasicConstraints(True, None), _STRANGE), critical=True)

_BAD: dict[str, tuple[Callable[..., Certificate], str]] = {
    "not yet valid": (_with(begins=600), "begins in 10 min; if that is wrong, the clock of this machine is wrong"),
    "a day ahead": (_with(begins=DAY), "begins in 24 h"),
    "ended": (_with(begins=-2 * DAY, ends=-DAY), "expired 24 h ago"),
    "ends in a minute": (_with(ends=60), "expires in 60 s, while the one in use lasts 90 days more"),
    "old one": (_with(begins=-60 * DAY, ends=30 * DAY), "is older than the one in use, and expires before it"),
    "no intermediate": (_with(chain=()), "without its intermediate"),
    "another's intermediate": (_with(chain=(OTHER,)), "signature does not match"),
    "unrelated intermediate": (_with(chain=(ROOT.below("Unrelated"),)), "a chain that clients do not accept"),
    "root without intermediate": (_with(chain=(ROOT,)), "a chain that clients do not accept"),
    "surplus behind": (_with(chain=(INTERMEDIATE, OTHER)), "a chain that clients do not accept"),
    "surplus between": (_with(chain=(OTHER, INTERMEDIATE)), "not in order, or do not belong together"),
    "wrong order": (_with(chain=(ROOT, INTERMEDIATE)), "not in order, or do not belong together"),
    "intermediate is no CA": (_with(signer=_NO_CA, chain=(_NO_CA,)), "has no basicConstraints"),
    "intermediate has ended": (_with(signer=_ENDED, chain=(_ENDED,)), "that has expired or is not valid yet"),
    "intermediate begins later": (_with(signer=_LATER, chain=(_LATER,)), "that has expired or is not valid yet"),
    "too deep": (_with(signer=_TOO_DEEP, chain=(_TOO_DEEP, _BELOW_NONE, ROOT)), "path length constraint violated"),
    "constrained elsewhere": (_with(signer=_ELSEWHERE, chain=(_ELSEWHERE, ROOT)), "name constraints"),
    "unknown critical": (_with(signer=_STRANGE_CA, chain=(_STRANGE_CA, ROOT)), "critical extension"),
    "intermediate signs nothing": (_with(signer=_SIGNS_NOT, chain=(_SIGNS_NOT,)), "lacks keyCertSign"),
    "intermediate for clients": (
        _with(signer=_OF_CLIENTS, chain=(_OF_CLIENTS,)),
        "intermediate lacks serverAuth",
    ),
    "a CA's": (_with(extensions=(x509.BasicConstraints(True, None),)), "a CA certificate instead of"),
    "must-staple": (
        _with(extensions=(x509.TLSFeature([x509.TLSFeatureType.status_request]),)),
        "requires OCSP responses (must-staple)",
    ),
    "for clients": (_with(extensions=(_CLIENTS_ONLY,)), "extended key usage lacks serverAuth"),
    "not for signatures": (_with(extensions=(_usage(digital_signature=False),)), "lacks digitalSignature"),
    "another key": (_of_other_key, "does not belong to the private key of the order"),
    "a victim's name": (_named("victim.example.com"), "is also for victim.example.com, which was not ordered"),
    "a wildcard": (_named("*.example.test"), r"is also for *.example.test, which was not ordered"),
    "an address": (_named("192.0.2.1"), "is also for 192.0.2.1, which was not ordered"),
    "its www": (_named("www.a.example.test"), "is also for www.a.example.test, which was not ordered"),
    "hundreds": (
        _named(*(f"n{n}.test" for n in range(200))),
        "n0.test, n1.test, n10.test and 197 more, which was not ordered",
    ),
    "no name": (_named("two\x1b[31m\nlines"), "is also for an invalid host name"),
    "a covering wildcard": (_instead("*.example.test"), "is not for a.example.test"),
    "another name": (_instead("b.example.test"), "is not for a.example.test"),
    "a common name": (_with(common_name="victim.example.com"), "is also for victim.example.com"),
    "a common address": (_with(common_name="192.0.2.1"), "is also for 192.0.2.1"),
}


@pytest.mark.parametrize("way", _BAD)
async def test_bad_renewal_leaves_the_served_certificate(
    manager: Manager, ca: Deliverer, memory: Memory, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    """It is one failure: logged, published, backed off, and neither stored nor served."""
    heard = list[Event]()
    manager.events.subscribe(heard.append)
    good = await manager.obtain(_A)
    ca.make, sentence = _BAD[way]

    with pytest.raises(IssuanceError) as failed:
        await manager.obtain(_A, replacing=good)

    assert isinstance(failed.value, DeliveryRefused | IssuerUnavailable)
    assert sentence in str(failed.value)
    assert manager.cache.get(_A.id) is good
    stored = Store(memory, RecordCipher(())).slot(_A.id).certificate
    assert stored is not None
    assert stored.fingerprint == good.fingerprint
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line.count("no certificate: ") for line in said] == [1]
    assert len(said[0].splitlines()) == 1
    assert len(said[0]) < 500
    assert [event.failures for event in heard if isinstance(event, CertificateFailed)] == [1]
    with pytest.raises(BackingOff):
        await manager.obtain(_A, replacing=good)
    assert len(ca.orders) == 2


_GOOD: dict[str, Callable[..., Certificate]] = {
    "as ever": issue,
    "root in the chain": _with(chain=(INTERMEDIATE, ROOT)),
    "begins a little later": _with(begins=290),
    "begins an hour ago": _with(begins=-_HOUR),
    "shorter life": _with(ends=6 * DAY),
    "common name": _with(common_name="a.example.test"),
    "common name in capitals": _with(common_name="A.Example.Test"),
    "common name that is a label": _with(common_name="Default Server 1"),
    "for servers": _with(extensions=(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),)),
    "for signatures": _with(extensions=(_usage(digital_signature=True),)),
}


@pytest.mark.parametrize("way", _GOOD)
async def test_good_renewal_is_taken(manager: Manager, ca: Deliverer, way: str) -> None:
    """A certificate that clients accept is not refused, whatever a private CA leaves out."""
    good = await manager.obtain(_A)
    ca.make = _GOOD[way]
    renewed = await manager.obtain(_A, replacing=good)
    assert manager.cache.get(_A.id) is renewed
    assert renewed is not good


@pytest.mark.parametrize(("begins", "left"), [(-DAY, 3_599), (-890, 98), (-89 * DAY, 3_599)])
async def test_certificate_that_is_nearly_over_says_that_the_clock_may_be_wrong(
    manager: Manager, ca: Deliverer, begins: float, left: float
) -> None:
    """It would be renewed again every few seconds; none is in use, or it has ended by the same clock."""
    ca.make = _with(begins=begins, ends=left)
    with pytest.raises(
        OfAnotherTime, match=r"ends in .+, and began .+ ago; if that is wrong, the clock of this machine"
    ):
        await manager.obtain(_A)
    assert manager.cache.get(_A.id) is None


@pytest.mark.parametrize(("begins", "left"), [(0, 60), (-3_600, 420), (-900, 100), (-9_000 * DAY, 3_600)])
async def test_short_life_is_no_fault(manager: Manager, ca: Deliverer, begins: float, left: float) -> None:
    """Of a minute, of a CA that dates back by an hour, and of one that always names the same beginning."""
    ca.make = _with(begins=begins, ends=left)
    obtained = await manager.obtain(_A)
    assert manager.cache.get(_A.id) is obtained


@pytest.mark.parametrize("names", [["192.0.2.1"], ["2001:db8::1", "a.example.test"], ["*.example.test"]])
def test_addresses_and_wildcards_are_names_like_others(names: list[str]) -> None:
    """As iPAddress (RFC 8738), and as they were ordered."""
    subject = Subject(tuple(map(ServerName, names)))
    delivery.check(issue(names), delivery.Expected(subject, "ca"), EPOCH)


def _check(certificate: Certificate, *, now: float = EPOCH, **expected: Any) -> None:
    given = {"served": None, "additions": frozenset(), "chained": True, "ca_bundle": ""} | expected
    delivery.check(certificate, delivery.Expected(Subject((certificate.id,)), "ca", **given), now)


@pytest.mark.parametrize("first", [True, False])
def test_name_that_is_no_servers_is_one_that_was_not_ordered(first: bool) -> None:
    """Wherever it stands."""
    key, email, ours = ec.generate_private_key(ec.SECP256R1()), x509.RFC822Name("me@a.test"), x509.DNSName("a.test")
    san = x509.SubjectAlternativeName([email, ours] if first else [ours, email])
    leaf = _sign("", key.public_key(), "Intermediate", INTERMEDIATE.key, ends=90 * DAY, extensions=(san,))
    certificate = Certificate(ServerName("a.test"), _PRIVATE, leaf, (INTERMEDIATE.certificate,), key)
    with pytest.raises(DeliveryRefused, match="which was not ordered"):
        _check(certificate)


def test_certificate_with_an_extension_that_nobody_can_read_is_refused() -> None:
    """And said to be that."""
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.15"), b"no key usage")
    with pytest.raises(DeliveryRefused, match="ca delivered a certificate that cannot be read: "):
        _check(issue(["a.test"], extensions=(broken,)))


@pytest.mark.parametrize("ahead", [300.0, 301.0])
@pytest.mark.parametrize("which", ["leaf", "intermediate"])
def test_clock_may_be_behind_the_cas_by_five_minutes(ahead: float, which: str) -> None:
    """Of the certificate and of its intermediates; not more."""
    signer = ROOT.below("Intermediate", begins=ahead if which == "intermediate" else -DAY)
    begins = ahead if which == "leaf" else 0.0
    certificate = issue(["a.test"], signer=signer, chain=(signer,), begins=begins)
    if ahead == 300.0:
        _check(certificate)
        return
    with pytest.raises(IssuanceError):
        _check(certificate)


@pytest.mark.parametrize("left", [1.0, 0.0])
@pytest.mark.parametrize("which", ["leaf", "intermediate"])
def test_certificate_that_ends_now_has_ended(left: float, which: str) -> None:
    """A moment before it has not; a tenth of its life is left then, which is enough."""
    signer = ROOT.below("Intermediate", ends=left if which == "intermediate" else DAY)
    ends = left if which == "leaf" else DAY
    certificate = issue(["a.test"], signer=signer, chain=(signer,), begins=-8.0, ends=ends)
    if left:
        _check(certificate)
        return
    with pytest.raises(IssuanceError, match="expired"):
        _check(certificate)


@pytest.mark.parametrize("more", [2, 3, 4])
def test_few_of_many_names_are_listed(more: int) -> None:
    names = [f"n{number}.test" for number in range(more)]
    shown = ", ".join(names[:3]) + (" and 1 more" if more == 4 else "")
    with pytest.raises(
        DeliveryRefused, match=rf"^ca delivered a certificate that is also for {re.escape(shown)}, which"
    ):
        _check(issue(["a.test", *names]))


@pytest.mark.parametrize("content", [None, b"no PEM", b""])
def test_bundle_that_cannot_be_read_has_no_root(tmp_path: Path, content: bytes | None) -> None:
    """The certificate is refused where its CA has intermediates, and taken where nothing says so."""
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)
    alone = issue(["a.test"], signer=ROOT, chain=())
    with pytest.raises(DeliveryRefused, match="put that root into acme_ca_bundle"):
        _check(alone, ca_bundle=str(bundle))
    _check(alone, ca_bundle=str(bundle), chained=False)


async def test_ca_that_signs_with_its_root_has_no_intermediates(manager: Manager, ca: Deliverer) -> None:
    """As long as nothing says that it has some, and no better certificate is in use."""
    ca.make = _with(signer=ROOT, chain=())
    first = await manager.obtain(_A)
    second = await manager.obtain(_A, replacing=first)
    assert manager.cache.get(_A.id) is second


def _bundle(folder: Path, *roots: Link) -> str:
    path = folder / "roots.pem"
    path.write_text(_pem(*roots))
    return str(path)


async def test_root_of_the_bundle_is_known_to_sign(manager: Manager, ca: Deliverer, tmp_path: Path) -> None:
    """So a leaf alone may replace a certificate with intermediates, of this CA or another."""
    good = await manager.obtain(_A)
    ca.ca_bundle = _bundle(tmp_path, Link.root("Another"), ROOT)
    ca.make = _with(chain=())
    with pytest.raises(DeliveryRefused, match="put that root into acme_ca_bundle"):
        await manager.obtain(_A, replacing=good)
    ca.make = _with(signer=ROOT, chain=())
    await manager.backoffs.override(_A)
    alone = await manager.obtain(_A, replacing=good)
    assert manager.cache.get(_A.id) is alone


async def test_ca_that_has_intermediates_does_not_leave_them_out_for_another_name(
    manager: Manager, ca: Deliverer
) -> None:
    """Clients could not verify it; the next CA delivers a complete chain."""
    await manager.obtain(_A)
    ca.make = _with(chain=())
    with pytest.raises(DeliveryRefused, match="without its intermediate"):
        await manager.obtain(_B)


async def test_stored_chain_shows_that_a_ca_has_intermediates(
    manager: Manager, ca: Deliverer, memory: Memory, clock: Clock
) -> None:
    """A process that has ordered nothing yet knows it from the certificate in use, also for the first order of another
    name.
    """
    await manager.obtain(_A)
    restarted = manager_on(memory, clock, ca)
    await restarted.ensure(_A)
    ca.make = _with(chain=())
    with pytest.raises(DeliveryRefused, match="without its intermediate"):
        await restarted.obtain(_B)


async def test_public_ca_always_has_intermediates(memory: Memory, clock: Clock) -> None:
    """Its root, which clients have, signs no server's certificate: so the first order needs them too."""
    ca = Deliverer(clock, directory=DIRECTORY, make=_with(chain=()))
    manager = manager_on(memory, clock, ca)
    with pytest.raises(DeliveryRefused, match="without its intermediate"):
        await manager.obtain(_A)


async def test_www_of_a_ca_that_documents_it_is_no_stranger(memory: Memory, clock: Clock) -> None:
    """Actalis has certificates for one name and its www; any other name is refused there too."""
    ca = Deliverer(clock, directory="https://acme-api.actalis.com/acme/directory", make=_named("www.a.example.test"))
    manager = manager_on(memory, clock, ca)
    await manager.obtain(_A)
    ca.make = _named("mail.b.example.test")
    with pytest.raises(DeliveryRefused, match=r"also for mail\.b\.example\.test"):
        await manager.obtain(_B)


async def test_next_ca_is_asked_for_what_one_delivers_badly(memory: Memory, clock: Clock) -> None:
    """It is that CA's fault, not the name's."""
    bad, good = Deliverer(clock, name="bad", make=_with(chain=(OTHER,))), Deliverer(clock, directory="https://b.test/")
    manager = manager_on(memory, clock, bad, good)
    assert (await manager.obtain(_A)).ca == good.directory


async def test_ca_that_delivers_badly_for_two_names_is_left_alone_for_all(memory: Memory, clock: Clock) -> None:
    """With none issued between: the third name costs it no order."""
    bad, good = Deliverer(clock, name="bad", make=_with(chain=(OTHER,))), Deliverer(clock, directory="https://b.test/")
    manager = manager_on(memory, clock, bad, good)
    for subject in (_A, _B, Subject((ServerName("c.example.test"),))):
        assert (await manager.obtain(subject)).ca == good.directory
    assert bad.orders == [_A, _B]


@pytest.mark.parametrize(
    "delivered",
    [lambda: issue(["b.example.test"]), lambda: issue(_A.names, begins=-2 * DAY, ends=-DAY)],
    ids=["of another name", "of another time"],
)
async def test_bad_delivery_counts_in_the_limits(
    make_manager: MakeManager,
    issuer: FakeIssuer,
    monkeypatch: pytest.MonkeyPatch,
    delivered: Callable[[], Certificate],
) -> None:
    """The CA has issued it all the same."""
    manager, counted = make_manager(), list[Sequence[str]]()
    monkeypatch.setattr(manager.cas[0].budgets, "has_limits", True)
    monkeypatch.setattr(type(manager.cas[0].budgets), "count_certificate", lambda self, names: counted.append(names))

    async def obtain(subject: Subject, replacing: Certificate | None) -> Certificate:
        return delivered()

    monkeypatch.setattr(issuer, "obtain", obtain)
    with pytest.raises((DeliveryRefused, OfAnotherTime)):
        await manager.obtain(_A)
    assert counted == [_A.names]


def _body() -> tuple[Certificate, str]:
    certificate = issue(_A.names, chain=(INTERMEDIATE, ROOT))
    return certificate, certificate.chain_pem


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body[:-1],
        lambda body: body.replace("\n", "\r\n"),
        lambda body: body.replace("-----\n-----", "-----\n\n-----") + "\n\n",
    ],
    ids=["no newline at the end", "CRLF", "empty lines"],
)
def test_whole_body_is_read(change: Callable[[str], str]) -> None:
    """PEM as CAs write it (RFC 7468)."""
    certificate, body = _body()
    assert len(delivery.read(_A, _PRIVATE, change(body), certificate.key).chain) == 2


def test_body_that_is_cut_anywhere_is_refused() -> None:
    """Between two certificates it is whole by itself; the chain, and the reply's length, tell then."""
    certificate, body = _body()
    ends = {len(_pem(*links)) for links in ([certificate.leaf], [certificate.leaf, INTERMEDIATE])}
    whole = ends | {end - 1 for end in ends} | {len(body) - 1}
    for end in range(len(body)):
        if end not in whole:
            with pytest.raises(CertificateError):
                delivery.read(_A, _PRIVATE, body[:end], certificate.key)


@pytest.mark.parametrize("more", ["junk", "-----BEGIN", "<html>", "-----BEGIN PRIVATE KEY-----\nMIIB\n"])
def test_body_with_more_in_it_is_refused(more: str) -> None:
    """RFC 8555 section 9.1 has nothing beside certificates."""
    certificate, body = _body()
    with pytest.raises(CertificateError, match="cut off, or contains more"):
        delivery.read(_A, _PRIVATE, body + more, certificate.key)


async def test_largest_chain_can_be_stored(memory: Memory, clock: Clock, ca: Deliverer) -> None:
    """A certificate for a hundred long names is kept; what no storage takes is refused before it is parsed."""
    names = tuple(ServerName(f"{'x' * 60}.{'y' * 60}.n{n}.example.test") for n in range(100))
    manager = manager_on(memory, clock, ca, acme_certificates=(",".join(names),))
    certificate = await manager.obtain(Subject(names))
    assert manager.store.slot(names[0]).certificate is not None
    padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.2"), b"\x04" * 40_000)
    large = replace(certificate, leaf=issue(names, extensions=(padding,)).leaf)
    with pytest.raises(CertificateError, match="at most 40960 can be stored"):
        delivery.read(Subject(names), _PRIVATE, large.chain_pem, certificate.key)


def test_record_of_the_largest_chain_fits_every_storage_when_it_is_sealed() -> None:
    """With the longest key of ``acme_key_type``: base64 adds a third."""
    certificate = replace(issue(_A.names, chain=()), key=rsa.generate_private_key(65_537, 4_096))
    record = len(certificate.to_record()) + 40 * 1024 * 66 / 65  # each line ends in two characters of JSON
    assert record * 4 / 3 + 200 < MAX_VALUE


def test_intermediate_that_ends_first_ends_the_certificate() -> None:
    """It is renewed in time for what clients accept."""
    short = ROOT.below("Intermediate", ends=10 * DAY)
    certificate = issue(_A.names, signer=short, chain=(short, ROOT))
    assert certificate.not_after == EPOCH + 10 * DAY
    delivery.check(certificate, delivery.Expected(_A, "ca"), EPOCH)
