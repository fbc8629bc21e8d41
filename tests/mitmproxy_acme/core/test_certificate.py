"""Certificate and its record."""

import json
import ssl
import traceback
from base64 import urlsafe_b64decode
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import CertificateError
from mitmproxy_acme.core.names import ServerName, Subject
from tests.mitmproxy_acme import fakes
from tests.mitmproxy_acme.fakes import DIRECTORY, EPOCH, make_certificate

ID = ServerName("a.test")


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65_537, 2_048)])
def test_record_gives_back_what_was_stored(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    """A certificate of either kind comes out of its record as it went in."""
    original = make_certificate(["a.test", "b.test"], key=key)

    copy = Certificate.from_record(ID, original.to_record())

    assert copy.leaf == original.leaf
    assert copy.chain == original.chain
    assert copy.key.private_numbers() == original.key.private_numbers()
    assert (copy.id, copy.ca) == (ID, DIRECTORY)


def _broken_records() -> list[bytes]:
    good = json.loads(make_certificate(["a.test"]).to_record())
    other = json.loads(make_certificate(["a.test"]).to_record())
    foreign = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    changes: list[dict[str, object]] = [
        {"version": 0},
        {"version": "2"},
        {"chain": ""},
        {"chain": "junk"},
        {"chain": None},
        {"key": "junk"},
        {"key": 7},
        {"obtained": "soon"},
        {"obtained": None},
        {"key": other["key"]},
        {"key": foreign.decode()},
    ]
    return [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b"[" * 50_000,
        *(json.dumps(good | change).encode() for change in changes),
    ]


@pytest.mark.parametrize("record", _broken_records())
def test_broken_record_is_refused(record: bytes) -> None:
    """Anything but a whole record is a CertificateError that names the certificate and shows no key."""
    with pytest.raises(CertificateError, match=r"a\.test") as caught:
        Certificate.from_record(ID, record)
    assert "PRIVATE" not in repr(caught.value)
    cause = caught.value.__cause__  # of what was read before the key
    assert cause is None or "the record of" not in str(caught.value)


@pytest.mark.parametrize("obtained", ["NaN", "-Infinity", "1e999"])
def test_time_that_is_none_counts_as_not_noted(obtained: str) -> None:
    """So does a missing time, in a record of an earlier release."""
    record = replace(make_certificate(["a.test"]), obtained=EPOCH).to_record()
    assert Certificate.from_record(ID, record).obtained == EPOCH
    field = f'"obtained": {EPOCH}'.encode()
    assert Certificate.from_record(ID, record.replace(field, f'"obtained": {obtained}'.encode())).obtained == 0
    assert Certificate.from_record(ID, record.replace(b", " + field, b"")).obtained == 0


def test_key_never_shows() -> None:
    """A certificate can be logged: its repr holds no key."""
    certificate = make_certificate(["a.test"])
    assert "key" not in repr(certificate).lower()


@pytest.mark.parametrize(
    ("names", "name", "covered"),
    [
        (["a.test"], "a.test", True),
        (["a.test"], "b.test", False),
        (["*.a.test"], "b.a.test", True),
        (["*.a.test"], "c.b.a.test", False),
        (["*.a.test"], "a.test", False),
    ],
)
def test_covers(names: list[str], name: str, covered: bool) -> None:
    """A wildcard matches one label (RFC 6125)."""
    assert make_certificate(names).covers(name) is covered


def test_serves_until_it_ends_and_all_names_only() -> None:
    """An expired certificate serves no subject, nor does one that lacks a name of the subject."""
    certificate = make_certificate(["a.test", "b.test"], lifetime=100)
    both = Subject((ServerName("a.test"), ServerName("b.test")))
    three = Subject((*both.names, ServerName("c.test")))
    assert certificate.serves(both, EPOCH + 99)
    assert not certificate.serves(both, EPOCH + 100)
    assert not certificate.serves(three, EPOCH)


def test_renewal_id_is_that_of_the_rfc() -> None:
    """The identifier of RFC 9773 section 4.1, with its example: key identifier and serial as DER integers."""
    certificate = make_certificate(["a.test"])
    key_identifier = certificate.leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert certificate.renewal_id is not None
    first, _, second = certificate.renewal_id.partition(".")
    assert urlsafe_b64decode(first + "==") == key_identifier.key_identifier
    assert int.from_bytes(urlsafe_b64decode(second + "=="), signed=True) == certificate.leaf.serial_number


def test_chain_is_sent_leaf_first() -> None:
    """The chain begins with the leaf (RFC 8446 section 4.4.2)."""
    certificate = make_certificate(["a.test"])
    again = Certificate.from_pem(ID, DIRECTORY, certificate.chain_pem, certificate.key)
    assert again.leaf == certificate.leaf
    assert len(again.chain) == 1


def test_addresses_are_among_its_names() -> None:
    """They are iPAddress names, IPv6 in its canonical text (RFC 8738)."""
    certificate = make_certificate(["a.test", "192.0.2.1", "2001:db8::1"])
    assert certificate.names == {"a.test", "192.0.2.1", "2001:db8::1"}
    assert certificate.covers("2001:db8::1")
    assert not certificate.covers("192.0.2.2")
    assert certificate.serves(Subject((ServerName("2001:db8::1"), ServerName("a.test"))), EPOCH)
    assert not certificate.serves(Subject((ServerName("2001:db8::2"),)), EPOCH)


@pytest.mark.parametrize("name", ["192.0.2.1", "*.0.2.1"])
def test_dns_name_makes_no_address(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """No client accepts a dNSName for an IP address that it reached, with or without a wildcard (RFC 6125 section
    6.2.1).
    """
    monkeypatch.setattr(fakes, "is_address", lambda name: False)
    certificate = make_certificate([name, "a.test"])
    assert certificate.names == {"a.test"}
    assert not certificate.covers("192.0.2.1")


@pytest.mark.parametrize(
    ("there", "instead", "said"),
    [
        ("0603551d23", "0603551d11", r"the certificate of a\.test cannot be read: Duplicate 2\.5\.29\.17 extension"),
        ("a003020102", "a003020101", r"the certificate of a\.test is not a PEM chain: 1 is not a valid X509 version"),
        ("8206612e74657374", "a306040461616161", r"the certificate of a\.test cannot be read: x400Address"),
    ],
    ids=["one extension twice", "X.509 version 2", "a name of another kind"],
)
def test_what_the_library_refuses_is_an_error_of_ours(there: str, instead: str, said: str) -> None:
    """The library does not only raise ValueErrors: an order or an import must not end in an unexpected error."""
    certificate = make_certificate(["a.test"])
    der = certificate.leaf.public_bytes(serialization.Encoding.DER)
    assert der.count(bytes.fromhex(there)) == 1
    broken = ssl.DER_cert_to_PEM_cert(der.replace(bytes.fromhex(there), bytes.fromhex(instead)))
    with pytest.raises(CertificateError, match=said):
        Certificate.from_pem(ID, DIRECTORY, broken, certificate.key)


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65_537, 1_024), ec.generate_private_key(ec.SECP192R1())], ids=["rsa", "ec"]
)
def test_key_that_no_handshake_takes_is_refused(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    """OpenSSL would refuse it at each handshake, so it is ordered again, or not imported."""
    weak = make_certificate(["a.test"], key=key)
    with pytest.raises(CertificateError, match="is too short for TLS"):
        Certificate.from_record(ID, weak.to_record())


def test_chain_that_no_client_follows_is_refused() -> None:
    """Ten intermediates are more than any CA has; a hundred are more than can be stored."""
    certificate = make_certificate(["a.test"])
    long, too_long = (certificate.chain_pem + certificate.leaf_pem * number for number in (9, 10))
    assert len(Certificate.from_pem(ID, DIRECTORY, long, certificate.key).chain) == 10
    with pytest.raises(CertificateError, match="has 11 intermediates; clients follow at most 10"):
        Certificate.from_pem(ID, DIRECTORY, too_long, certificate.key)


def test_renewal_id_of_the_example_of_the_rfc() -> None:
    """RFC 9773 section 4.1: a serial number whose first bit is set has a zero byte before it."""
    certificate, key = make_certificate(["a.test"]), ec.generate_private_key(ec.SECP256R1())
    identifier = x509.AuthorityKeyIdentifier(bytes.fromhex("69885b6b87464041e1b37b847ba0ae2cde01c8d4"), None, None)
    leaf = (
        x509.CertificateBuilder(certificate.leaf.issuer, certificate.leaf.issuer, key.public_key(), 0x87654321)
        .not_valid_before(certificate.leaf.not_valid_before_utc)
        .not_valid_after(certificate.leaf.not_valid_after_utc)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    assert replace(certificate, leaf=leaf).renewal_id == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"


def test_names_are_lower_case_whatever_the_ca_writes() -> None:
    """DNS knows no case, and neither do those who ask for a name."""
    assert make_certificate(["a.test", "WWW.A.Test"]).names == {"a.test", "www.a.test"}


def test_error_of_a_broken_record_quotes_nothing_of_it() -> None:
    """Nor does its traceback, which a log may show: beside the broken field stands the private key."""
    record = json.dumps(json.loads(make_certificate(["a.test"]).to_record()) | {"obtained": "PRIVATE"}).encode()
    with pytest.raises(CertificateError) as caught:
        Certificate.from_record(ServerName("a.test"), record)
    assert "PRIVATE" not in "".join(traceback.format_exception(caught.value))


def test_certificate_for_no_name_is_refused() -> None:
    """Before RFC 2818 names stood in the subject; no client looks there any more."""
    made = make_certificate(["a.test"])
    nameless = replace(made, leaf=made.chain[0], key=fakes._ISSUER_KEY)
    with pytest.raises(CertificateError, match=r"^the certificate of a\.test has no subject alternative names$"):
        Certificate.from_pem(made.id, made.ca, nameless.chain_pem, nameless.key)


def test_repr_is_one_short_line() -> None:
    """The id, the CA and when it was obtained."""
    certificate = make_certificate(["a.test"], ca="https://ca.test/directory")
    assert repr(certificate) == "Certificate(id='a.test', ca='https://ca.test/directory', obtained=0.0)"


def test_certificate_ends_with_its_intermediates_and_not_with_its_root() -> None:
    """Clients use their own roots, which may last longer than the one that the CA sends."""
    leaf = make_certificate(["a.test"], lifetime=100)
    other = make_certificate(["b.test"], lifetime=50)
    root = make_certificate(["r.test"], lifetime=1).chain[0]
    assert root.issuer == root.subject
    assert replace(leaf, chain=(root,)).not_after == EPOCH + 100
    assert other.leaf.issuer != other.leaf.subject
    assert replace(leaf, chain=(other.leaf, root)).not_after == EPOCH + 50
