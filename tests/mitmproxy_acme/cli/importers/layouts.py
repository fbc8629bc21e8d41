"""Folders and values as certbot, acme.sh, Caddy, Kong and lua-resty-acme really lay them out, made by the test.

Knows their layouts; must not know the readers.
"""

import json
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mitmproxy_acme.core.certificate import Certificate

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
ZEROSSL = "https://acme.zerossl.com/v2/DV90"


def key_pem(certificate: Certificate, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    return certificate.key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def leaf_pem(certificate: Certificate) -> str:
    return certificate.leaf.public_bytes(Encoding.PEM).decode()


def certbot(etc: Path, name: str, certificate: Certificate, server: str = LETS_ENCRYPT) -> Path:
    """A lineage that was renewed once, so that the links point to number 2; return its ``live`` folder."""
    live, archive, renewal = etc / "live" / name, etc / "archive" / name, etc / "renewal"
    for folder in (live, archive, renewal):
        folder.mkdir(parents=True, exist_ok=True)
    (etc / "live" / "README").write_text("This directory contains your keys and certificates.\n")
    files = {
        "cert": leaf_pem(certificate),
        "chain": certificate.chain_pem.removeprefix(leaf_pem(certificate)),
        "fullchain": certificate.chain_pem,
        "privkey": key_pem(certificate),
    }
    for kind, text in files.items():
        (archive / f"{kind}1.pem").write_text("an old one\n")
        (archive / f"{kind}2.pem").write_text(text)
        (live / f"{kind}.pem").symlink_to(f"../../archive/{name}/{kind}2.pem")
    (renewal / f"{name}.conf").write_text(
        "# renew_before_expiry = 30 days\nversion = 2.11.0\n"
        f"archive_dir = {archive}\ncert = {live}/cert.pem\nprivkey = {live}/privkey.pem\nchain = {live}/chain.pem\n"
        f"fullchain = {live}/fullchain.pem\n\n# Options used in the renewal process\n[renewalparams]\n"
        f"account = 0a5acb3c10c1509717e114f5cd0297b6\nauthenticator = webroot\nserver = {server}\nkey_type = ecdsa\n"
        f"[[webroot_map]]\n{name} = /var/www\n"
    )
    return live


def acme_sh(home: Path, name: str, certificate: Certificate, api: str = LETS_ENCRYPT, *, ecc: bool = True) -> Path:
    """What ``--issue`` leaves; with ``ecc`` the key begins with its parameters, as old OpenSSL wrote it."""
    folder = home / (f"{name}_ecc" if ecc else name)
    folder.mkdir(parents=True)
    (home / "account.conf").write_text("UPGRADE_HASH='1234'\n")
    for other in ("ca", "deploy", "dnsapi"):
        (home / other).mkdir(exist_ok=True)
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" if ecc else ""
    (folder / f"{name}.key").write_text(parameters + key_pem(certificate, PrivateFormat.TraditionalOpenSSL))
    (folder / f"{name}.cer").write_text(leaf_pem(certificate))
    (folder / "ca.cer").write_text(certificate.chain_pem.removeprefix(leaf_pem(certificate)))
    (folder / "fullchain.cer").write_text(certificate.chain_pem)
    (folder / f"{name}.csr.conf").write_text("[ req_distinguished_name ]\n")
    (folder / f"{name}.conf").write_text(
        f"Le_Domain='{name}'\nLe_Alt='no'\nLe_Webroot='/var/www'\nLe_PreHook=''\nLe_API='{api}'\n"
        "Le_Keylength='ec-256'\nLe_LinkCert='https://acme.test/cert/1'\nLe_CertCreateTime='1758800000'\n"
        "Le_ReloadCmd='__ACME_BASE64__START_c2VydmljZSBuZ2lueCByZWxvYWQ=__ACME_BASE64__END_'\n"
    )
    return folder


def caddy(data: Path, certificate: Certificate, ca: str = LETS_ENCRYPT, *, told: bool = True) -> Path:
    """What Caddy stores for the first name; without ``told`` its JSON does not name the CA."""
    name = certificate.id.replace("*", "wildcard_")
    site = data / "certificates" / issuer_folder(ca) / name
    site.mkdir(parents=True)
    (site / f"{name}.crt").write_text(certificate.chain_pem)
    (site / f"{name}.key").write_text(key_pem(certificate, PrivateFormat.TraditionalOpenSSL))
    about = {"url": "https://acme.test/cert/1", **({"ca": ca, "account": "https://acme.test/acct/1"} if told else {})}
    (site / f"{name}.json").write_text(json.dumps({"sans": sorted(certificate.names), "issuer_data": about}, indent=1))
    return site


def issuer_folder(ca: str) -> str:
    known = {
        LETS_ENCRYPT: "acme-v02.api.letsencrypt.org-directory",
        ZEROSSL: "acme.zerossl.com-v2-dv90",
        "https://localhost:14000/dir": "localhost-14000-dir",
    }
    return known.get(ca) or urlsplit(ca).path.strip("/") or ca


def kong(certificate: Certificate) -> str:
    """The value of ``kong_acme:cert_key:HOST``; Lua's JSON escapes slashes."""
    return json.dumps({"key": key_pem(certificate), "cert": certificate.chain_pem}).replace("/", "\\/")


def autossl(certificate: Certificate, kind: str) -> str:
    """The value of ``domain:KIND:HOST``."""
    fields = {"domain": certificate.id, "pkey": key_pem(certificate), "cert": certificate.chain_pem}
    return json.dumps({**fields, "type": kind, "updated": 1758800000.123}).replace("/", "\\/")


def snapshot(folder: Path) -> dict[str, object]:
    """All that is in a folder, and when it was last changed."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else path.is_dir())
        for path in folder.rglob("*")
    }
