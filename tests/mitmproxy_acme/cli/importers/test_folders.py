"""The folders of certbot, acme.sh and Caddy: all that can be used is found, with its CA; the rest has a reason."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from mitmproxy_acme.cli.importers.item import FoundCertificate, Rejected
from mitmproxy_acme.cli.importers.sources import read_source
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import SourceError
from tests.mitmproxy_acme.cli.importers import layouts
from tests.mitmproxy_acme.cli.importers.layouts import LETS_ENCRYPT, ZEROSSL
from tests.mitmproxy_acme.fakes import make_certificate

KNOWN = (LETS_ENCRYPT, ZEROSSL, "https://localhost:14000/dir")
STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"


def found(source: str, known: Sequence[str] = KNOWN) -> dict[str, tuple[Certificate, str]]:
    """What is found, by name, with its CA; nothing must be unusable."""
    items = read_source(source, known)
    assert all(isinstance(item, FoundCertificate) for item in items), items
    return {item.name: (item.certificate, item.certificate.ca) for item in items if isinstance(item, FoundCertificate)}


def reason(source: str) -> str:
    """Why the only one there cannot be used."""
    (item,) = read_source(source, KNOWN)
    assert isinstance(item, Rejected), item
    return item.why


def same(read: Certificate, written: Certificate) -> bool:
    return read.chain_pem == written.chain_pem and layouts.key_pem(read) == layouts.key_pem(written)


@pytest.mark.parametrize("place", ["", "live"])
def test_certbot(tmp_path: Path, place: str) -> None:
    """Each lineage is read through its links, from the configuration folder or from ``live``, with its server."""
    one = make_certificate(["a.test", "www.a.test"])
    two = make_certificate(["b.test"], key=rsa.generate_private_key(65_537, 2048))
    layouts.certbot(tmp_path, "a.test", one)
    layouts.certbot(tmp_path, "b.test-0001", two, STAGING)
    before = layouts.snapshot(tmp_path)

    read = found(f"certbot:{tmp_path / place}")

    assert {name: ca for name, (_, ca) in read.items()} == {"a.test": LETS_ENCRYPT, "b.test-0001": STAGING}
    assert same(read["a.test"][0], one)
    assert same(read["b.test-0001"][0], two)
    assert layouts.snapshot(tmp_path) == before


def test_certbot_lineage_without_configuration(tmp_path: Path) -> None:
    """Without ``renewal/NAME.conf`` the CA is not known; a live folder of another name is one all the same."""
    layouts.certbot(tmp_path, "a.test", make_certificate(["a.test"]))
    (tmp_path / "renewal" / "a.test.conf").unlink()
    (tmp_path / "live").rename(tmp_path / "copied")
    (tmp_path / "copied" / "accounts").mkdir()
    assert found(f"certbot:{tmp_path / 'copied'}")["a.test"][1] == ""


def test_certbot_link_into_nothing(tmp_path: Path) -> None:
    """A lineage whose archive is gone is said with the file that is missing, and the others are read."""
    layouts.certbot(tmp_path, "a.test", make_certificate(["a.test"]))
    layouts.certbot(tmp_path, "b.test", make_certificate(["b.test"]))
    (tmp_path / "archive" / "a.test" / "privkey2.pem").unlink()
    broken, whole = read_source(f"certbot:{tmp_path}", KNOWN)
    why = f"{tmp_path}/live/a.test/privkey.pem cannot be read: No such file or directory"
    assert broken == Rejected("a.test", why)
    assert isinstance(whole, FoundCertificate)


def test_acme_sh(tmp_path: Path) -> None:
    """RSA and ECDSA folders are read, other files are ignored; the CA is the one of Le_API."""
    one, two = make_certificate(["a.test"]), make_certificate(["*.b.test", "b.test"])
    rsa_too = make_certificate(["a.test"], key=rsa.generate_private_key(65_537, 2048))
    layouts.acme_sh(tmp_path, "a.test", one, ZEROSSL)
    layouts.acme_sh(tmp_path, "a.test", rsa_too, ecc=False)
    layouts.acme_sh(tmp_path, "*.b.test", two)
    before = layouts.snapshot(tmp_path)

    items = read_source(f"acme.sh:{tmp_path}", KNOWN)

    assert [item.name for item in items] == ["*.b.test", "a.test", "a.test"]
    read = [item.certificate for item in items if isinstance(item, FoundCertificate)]
    assert [certificate.ca for certificate in read] == [LETS_ENCRYPT, LETS_ENCRYPT, ZEROSSL]
    assert all(same(*pair) for pair in zip(read, (two, rsa_too, one), strict=True))
    assert layouts.snapshot(tmp_path) == before


def test_acme_sh_without_its_api(tmp_path: Path) -> None:
    """A configuration without Le_API leaves the CA open; the file is read and never run."""
    folder = layouts.acme_sh(tmp_path, "a.test", make_certificate(["a.test"]))
    (folder / "a.test.conf").write_text(f"Le_Domain='a.test'\nLe_Evil=$(touch {tmp_path}/run)\n")
    assert found(f"acme.sh:{tmp_path}")["a.test"][1] == ""
    assert not (tmp_path / "run").exists()


def test_acme_sh_that_never_issued(tmp_path: Path) -> None:
    """A name whose order failed has a folder and no certificate."""
    folder = layouts.acme_sh(tmp_path, "a.test", make_certificate(["a.test"]))
    (folder / "fullchain.cer").unlink()
    assert reason(f"acme.sh:{tmp_path}") == f"{folder}/fullchain.cer cannot be read: No such file or directory"


@pytest.mark.parametrize("place", ["", "certificates"])
@pytest.mark.parametrize("told", [True, False], ids=["told", "by its folder"])
def test_caddy(tmp_path: Path, place: str, told: bool) -> None:
    """The CA is the one that the JSON tells or, of known ones, the one that the folder is called after."""
    certificates = {
        LETS_ENCRYPT: make_certificate(["a.test"]),
        ZEROSSL: make_certificate(["*.b.test"]),
        "https://localhost:14000/dir": make_certificate(["c.test"]),
    }
    for ca, certificate in certificates.items():
        layouts.caddy(tmp_path, certificate, ca, told=told)
    (tmp_path / "instance.uuid").write_text("1\n")
    before = layouts.snapshot(tmp_path)

    read = found(f"caddy:{tmp_path / place}")

    assert {ca: name for name, (_, ca) in read.items()} == {c: cert.id for c, cert in certificates.items()}
    assert all(same(read[certificate.id][0], certificate) for certificate in certificates.values())
    assert layouts.snapshot(tmp_path) == before


def test_caddy_of_an_unknown_ca(tmp_path: Path) -> None:
    """If it is neither named nor known, the CA stays unknown. Broken JSON is no obstacle."""
    site = layouts.caddy(tmp_path, make_certificate(["a.test"]), "https://ca.test/elsewhere", told=False)
    (site / "a.test.json").write_text("{")
    assert found(f"caddy:{tmp_path}")["a.test"][1] == ""


def test_caddys_own_ca_is_foreign(tmp_path: Path) -> None:
    """What ``tls internal`` made is no certificate of an ACME CA, and no fault either."""
    layouts.caddy(tmp_path, make_certificate(["localhost"]), "local")
    (item,) = read_source(f"caddy:{tmp_path}", KNOWN)
    assert isinstance(item, Rejected)
    assert item.foreign


def encrypted(key: Path) -> None:
    secret = serialization.load_pem_private_key(key.read_bytes(), None)
    how = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    key.write_bytes(secret.private_bytes(serialization.Encoding.PEM, form, how))


def foreign_kind(key: Path) -> None:
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(ed25519.Ed25519PrivateKey.generate().private_bytes(serialization.Encoding.PEM, form, none))


WRONG_KEYS: dict[str, Callable[[Path], object]] = {
    "does not belong to its private key": lambda key: key.write_text(layouts.key_pem(make_certificate(["b.test"]))),
    "its private key is not a PEM key": lambda key: key.write_bytes(key.read_bytes()[:100]),
    "its private key is encrypted": encrypted,
    "of a kind that CAs do not accept": foreign_kind,
    "bytes, more than 61440": lambda key: key.write_bytes(b"x" * 100_000),
}


@pytest.mark.parametrize("said", WRONG_KEYS)
def test_keys_that_cannot_be_used(tmp_path: Path, said: str) -> None:
    """Each is one sentence, which shows nothing of the key."""
    live = layouts.certbot(tmp_path, "a.test", make_certificate(["a.test"]))
    key = (live / "privkey.pem").resolve()
    secret = key.read_text().splitlines()[2]
    WRONG_KEYS[said](key)
    why = reason(f"certbot:{tmp_path}")
    assert said in why
    assert secret not in why


def nameless_pem(certificate: Certificate) -> str:
    """A certificate for the same key that has a common name and no alternative ones, as before RFC 2818's end."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.test")])
    leaf, signer = certificate.leaf, make_certificate(["ca.test"]).key
    builder = x509.CertificateBuilder(name, name, certificate.key.public_key(), 1)
    builder = builder.not_valid_before(leaf.not_valid_before_utc).not_valid_after(leaf.not_valid_after_utc)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def same_name_pem(certificate: Certificate, key: ec.EllipticCurvePrivateKey) -> str:
    """A certificate that is called as the issuer is, with another key."""
    issuer = certificate.chain[0]
    builder = x509.CertificateBuilder(issuer.subject, issuer.subject, key.public_key(), 1)
    builder = builder.not_valid_before(issuer.not_valid_before_utc).not_valid_after(issuer.not_valid_after_utc)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def test_chains_that_cannot_be_used(tmp_path: Path) -> None:
    """No PEM, no names, and a chain whose second certificate did not sign the first."""
    cross = make_certificate(["a.test"])
    live = layouts.certbot(tmp_path, "a.test", cross)
    chain = (live / "fullchain.pem").resolve()
    chain.write_bytes(b"\xff\x00 nothing")
    assert "is not a PEM chain" in reason(f"certbot:{tmp_path}")
    chain.write_text(nameless_pem(cross))
    assert "has no subject alternative names" in reason(f"certbot:{tmp_path}")
    chain.write_text(layouts.leaf_pem(cross) + layouts.leaf_pem(make_certificate(["b.test"])))
    assert "is not its issuer's" in reason(f"certbot:{tmp_path}")
    chain.write_text(cross.chain_pem[:-200])
    assert "ends in the middle of a certificate" in reason(f"certbot:{tmp_path}")
    key = ec.generate_private_key(ec.SECP256R1())
    chain.write_text(layouts.leaf_pem(cross) + same_name_pem(cross, key))
    assert "is not its issuer's" in reason(f"certbot:{tmp_path}")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nginx:/etc/nginx", "this kind of source is unknown; write certbot:FOLDER, acme.sh:FOLDER, caddy:FOLDER"),
        ("/etc/letsencrypt", "this kind of source is unknown"),
        ("certbot:/nowhere/at/all", "/nowhere/at/all cannot be read: No such file or directory"),
        ("caddy:/nowhere/at/all", "/nowhere/at/all cannot be read: No such file or directory"),
        ("certbot:{empty}", "no certificate found in {empty} in the layout of certbot"),
        ("acme.sh:{empty}", "no certificate found in {empty} in the layout of acme.sh"),
        ("caddy:{empty}", "no certificate found in {empty} in the layout of caddy"),
        ("certbot:{empty}/file", "{empty}/file cannot be read: Not a directory"),
        ("kong+postgresql://kong@localhost/kong", "the storage URL's scheme postgresql: is unknown; known are consul:"),
        ("kong+redis://:secret@host:port", "the port is not a number"),
    ],
)
def test_source_that_is_none(tmp_path: Path, source: str, said: str) -> None:
    """One sentence says what is wrong; a password in a URL does not show."""
    empty = tmp_path / "empty"
    empty.mkdir()
    if "/file" in source:
        (empty / "file").write_text("")
    with pytest.raises(SourceError) as raised:
        read_source(source.format(empty=empty), KNOWN)
    assert said.format(empty=empty) in str(raised.value)
    assert "secret" not in str(raised.value)


def test_usual_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder, the program's own is read, in the user's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    layouts.acme_sh(tmp_path / ".acme.sh", "a.test", make_certificate(["a.test"]))
    layouts.caddy(tmp_path / ".local" / "share" / "caddy", make_certificate(["b.test"]))
    assert list(found("acme.sh:")) == ["a.test"]
    assert list(found("caddy:")) == ["b.test"]
    assert list(found("acme.sh:~/.acme.sh")) == ["a.test"]
