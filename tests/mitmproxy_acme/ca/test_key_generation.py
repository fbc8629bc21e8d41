"""Keys, requests and CAs."""

import dataclasses

import josepy as jose
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from mitmproxy_acme.ca import key_generation, known_cas
from mitmproxy_acme.config.ca_settings import CaSettings
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.errors import ConfigError
from mitmproxy_acme.core.key_types import KEY_TYPES
from mitmproxy_acme.core.names import ServerName


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_certificate_keys_are_what_was_asked_for(key_type: str) -> None:
    """Each key type gives a key of its kind and size, and a new one each time."""
    key = key_generation.new_certificate_key(key_type)
    kind = "rsa" if isinstance(key, rsa.RSAPrivateKey) else "ecdsa"
    prefix = "" if kind == "rsa" else "p"
    assert key_type == f"{kind}-{prefix}{key.key_size}"


def test_request_names_all_and_its_common_name_is_short() -> None:
    """The first name is the common name unless it is too long for one; all are alternative names."""
    key = key_generation.new_certificate_key("ecdsa-p256")
    long = ServerName("a" * 60 + ".example.test")
    request = key_generation.certificate_request(key, (ServerName("a.test"), long))
    assert request.subject.rfc4514_string() == "CN=a.test"
    assert key_generation.certificate_request(key, (long,)).subject.rfc4514_string() == ""
    alternatives = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternatives.get_values_for_type(x509.DNSName) == ["a.test", long]


def test_request_for_addresses() -> None:
    """They are iPAddress (RFC 8738 section 3), and none is a common name."""
    key = key_generation.new_certificate_key("ecdsa-p256")
    names = tuple(map(ServerName, ("192.0.2.1", "2001:db8::1", "a.test")))
    request = key_generation.certificate_request(key, names)
    assert request.subject.rfc4514_string() == ""
    alternatives = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(map(str, alternatives.get_values_for_type(x509.IPAddress))) == ["192.0.2.1", "2001:db8::1"]
    assert alternatives.get_values_for_type(x509.DNSName) == ["a.test"]


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), jose.ES256),
        (ec.generate_private_key(ec.SECP384R1()), jose.ES384),
        (rsa.generate_private_key(65_537, 2_048), jose.RS256),
    ],
)
def test_account_key_of_the_operator(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, algorithm: jose.JWASignature
) -> None:
    """PEM and JWK give the same key, and the algorithm that goes with it."""
    from_pem = key_generation.load_account_key(_pem(key))
    from_jwk = key_generation.load_account_key(from_pem.json_dumps())
    assert key_generation.thumbprint(from_pem) == key_generation.thumbprint(from_jwk)
    assert key_generation.algorithm(from_pem) == algorithm


def _public_jwk() -> str:
    return jose.JWKEC(key=ec.generate_private_key(ec.SECP256R1())).public_key().json_dumps()


@pytest.mark.parametrize(
    "text", ["junk", "{}", '{"kty": "oct", "k": "c2VjcmV0"}', _public_jwk(), _pem(ed25519.Ed25519PrivateKey.generate())]
)
def test_what_is_no_account_key_is_refused(text: str) -> None:
    """Junk, symmetric keys, public keys and kinds that cannot sign here are refused, and never quoted."""
    with pytest.raises(ConfigError, match="acme_account_key") as caught:
        key_generation.load_account_key(text)
    assert text not in str(caught.value)


def test_new_account_key_is_es256() -> None:
    """Accounts of our own sign with ES256, at a third of the cost of RSA."""
    assert key_generation.algorithm(key_generation.new_account_key()) == jose.ES256


def test_alias_and_url() -> None:
    """An alias is a directory URL, and a URL is taken as it is written."""
    assert known_cas.resolve(CaSettings("letsencrypt")).directory == "https://acme-v02.api.letsencrypt.org/directory"
    assert known_cas.resolve(CaSettings("https://ca.test/dir")).directory == "https://ca.test/dir"


@pytest.mark.parametrize("ca", ["letsencript", "http://ca.test/dir", "https://", "ca.test/dir", ""])
def test_unknown_ca_is_refused(ca: str) -> None:
    """A text that is neither an alias nor an https:// URL is refused, with the list of aliases."""
    with pytest.raises(ConfigError, match="letsencrypt-staging"):
        known_cas.resolve(CaSettings(ca))


def test_ca_that_needs_binding_says_so_at_the_start() -> None:
    """External account binding that is missing is a wrong option, not a failed order; ZeroSSL gives one itself."""
    with pytest.raises(ConfigError, match="acme_eab_kid"):
        known_cas.resolve(CaSettings("google", email="me@example.com"))
    with pytest.raises(ConfigError, match="set acme_email, for which the CA gives one, or set acme_eab_kid"):
        known_cas.resolve(CaSettings("zerossl"))
    zerossl = CaSettings("zerossl", email="me@example.com")
    assert known_cas.resolve(zerossl).gives_binding(zerossl)
    own = dataclasses.replace(zerossl, eab_kid="kid", eab_hmac_key="a2V5")
    assert not known_cas.resolve(own).gives_binding(own)
    assert Config.from_options().issuers[0].ca == "letsencrypt"
