"""Certificates: as stored records, and as a CA delivers them. X.509 of every odd kind, with a key that fits."""

import json
from contextlib import suppress
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mitmproxy_acme.ca import delivery
from mitmproxy_acme.cli.commands.list import ca_of
from mitmproxy_acme.core.certificate import Certificate, load_chain
from mitmproxy_acme.core.errors import AcmeError, CertificateError, RecordRefused
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.renewal import RenewalInfo, RenewBefore, first_check_at, is_time, renew_at
from mitmproxy_acme.store import compromised_record
from tests.mitmproxy_acme.fakes import DIRECTORY, EPOCH, make_certificate

from ..der_mutator import pem_mutator
from ..mutators import json_mutator, text_mutator
from ..target import Target, require_message

ID = ServerName("a.example.test")
# The same in each run, so that a chain in the corpus fits it. It is the smallest key there is, and protects nothing.
_KEY = ec.derive_private_key(2, ec.SECP256R1())
_AUTO = RenewBefore()


@cache
def _key_pem() -> str:
    pkcs8 = serialization.PrivateFormat.PKCS8
    return _KEY.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption()).decode()


def chain(data: bytes) -> None:
    """A chain of PEM, in a record with the key that fits."""
    fields = {"version": 1, "ca": DIRECTORY, "chain": data.decode("latin-1"), "key": _key_pem(), "obtained": EPOCH}
    _record(json.dumps(fields).encode())


def certificate_record(data: bytes) -> None:
    """A record; ``KEY`` and ``CHAIN`` in it stand for ones that fit."""
    record = data.replace(b'"KEY"', json.dumps(_key_pem()).encode()).replace(
        b'"CHAIN"', json.dumps(_CHAINS[0].decode()).encode()
    )
    _record(record)
    with suppress(CertificateError, RecordRefused):
        compromised_record.from_record(ID, record)


def _record(record: bytes) -> None:
    try:
        certificate = Certificate.from_record(ID, record)
    except (CertificateError, RecordRefused):
        return
    again = Certificate.from_record(ID, certificate.to_record())
    assert again.fingerprint == certificate.fingerprint
    assert again.to_record() == certificate.to_record()
    _use(certificate)


def _use(certificate: Certificate) -> None:
    """Do what a node does with a certificate that it has accepted: nothing of that may fail."""
    assert is_time(certificate.not_after) or certificate.not_after < 0
    assert certificate.lifetime <= 10_000 * 366 * 86_400
    str(certificate.issuer_name).encode()
    assert certificate.issuer_name.isprintable()
    assert certificate.key_type
    assert certificate.renewal_id is None or certificate.renewal_id.isascii()
    assert certificate.ca.isprintable()
    ca_of({"ca": certificate.ca})
    certificate.covers("www.example.test")
    certificate.serves(Subject((ID,)), EPOCH)
    certificate.precedes(certificate)
    renew_at(certificate, _AUTO, None)
    first_check_at(certificate, _AUTO)
    renew_at(certificate, _AUTO, RenewalInfo(EPOCH, EPOCH + 1, EPOCH))
    assert all(isinstance(name, str) for name in certificate.names)


def delivered(data: bytes) -> None:
    """A CA's reply with a chain: accepted as clients accept it, or refused."""
    subject = Subject((ID,))
    try:
        certificate = delivery.read(subject, DIRECTORY, data.decode("utf-8", "replace"), _KEY)
        delivery.check(certificate, delivery.Expected(subject, "ca"), EPOCH + 60)
    except AcmeError as error:
        require_message(error)
        return
    assert certificate.serves(subject, EPOCH + 60)
    _use(certificate)


def chain_text(data: bytes) -> None:
    """Anything in place of a chain."""
    with suppress(CertificateError):
        assert load_chain(data.decode("utf-8", "replace"), "a")


def _make_odd() -> list[bytes]:
    """Return chains with odd extensions, names and times, each signed by itself."""
    import datetime

    def days(count: float) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(EPOCH, datetime.UTC) + datetime.timedelta(days=count)

    name = x509.Name(
        [x509.NameAttribute(x509.NameOID.COMMON_NAME, "É\u2028a"), x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "DE")]
    )
    san = x509.SubjectAlternativeName(
        [x509.DNSName(ID), x509.DNSName("*.b.test"), x509.RFC822Name("a@b"), x509.DirectoryName(name)]
    )
    odd: list[x509.ExtensionType] = [
        x509.TLSFeature([x509.TLSFeatureType.status_request]), x509.BasicConstraints(True, 0), x509.PrecertPoison(),
        x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(name)], 1), x509.AuthorityKeyIdentifier(b"", None, None),
        x509.NameConstraints([x509.DNSName("test")], None),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\xff"),
        x509.ExtendedKeyUsage([x509.ObjectIdentifier("2.5.29.37.0")]), x509.InhibitAnyPolicy(0),
        x509.SubjectInformationAccess([
            x509.AccessDescription(x509.ObjectIdentifier("1.2.3"), x509.UniformResourceIdentifier("http://a"))]),
    ]  # fmt: skip
    made = []
    for extension in odd:
        builder = x509.CertificateBuilder(name, name, _KEY.public_key(), 1, days(-1), days(90)).add_extension(
            san, critical=False
        )
        made.append(builder.add_extension(extension, critical=False).sign(_KEY, hashes.SHA256()))
    forever = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
    made.append(
        x509.CertificateBuilder(name, name, _KEY.public_key(), 2**158, days(0), forever)
        .add_extension(san, True)
        .sign(_KEY, hashes.SHA384())
    )
    return [one.public_bytes(serialization.Encoding.PEM) for one in made]


_CHAINS = [
    make_certificate([ID], key=_KEY).chain_pem.encode(),
    make_certificate([ID, "*.example.test", "192.0.2.1", "2001:db8::1"], key=_KEY, issuer_name="a").chain_pem.encode(),
]


def _chains() -> list[bytes]:
    return [*_CHAINS, *_make_odd()]


def _records() -> list[bytes]:
    fields = {"version": 1, "ca": DIRECTORY, "chain": "CHAIN", "key": "KEY", "obtained": EPOCH}
    return [json.dumps(fields).encode(), json.dumps({"version": 1, "compromised": json.dumps(fields)}).encode()]


_BLOCK = "-----BEGIN CERTIFICATE-----"
TARGETS = (
    Target("chain", chain, _chains, [pem_mutator], longest=8_000),
    Target(
        "delivered", delivered, _chains, [pem_mutator, pem_mutator, text_mutator([_BLOCK])], longest=8_000, seconds=1.0
    ),
    Target(
        "chain_text",
        chain_text,
        _chains,
        [text_mutator([_BLOCK, "-----END CERTIFICATE-----", "-----BEGIN CERT"])],
        longest=60_000,
    ),
    Target(
        "certificate_record", certificate_record, _records, [json_mutator(["KEY", "CHAIN", "obtained", "compromised"])]
    ),
)
