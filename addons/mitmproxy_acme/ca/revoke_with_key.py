"""Revoking with the certificate's own private key (RFC 8555 section 7.6): proof enough, without any account.

This module knows that one request; it must not know accounts, or why a certificate is revoked. It blocks.
"""

import josepy as jose
from cryptography.hazmat.primitives.asymmetric import rsa

from ..config.ca_settings import CaSettings
from ..core.certificate import Certificate, PrivateKey
from ..core.errors import SettingsRefused
from .client import Client
from .known_cas import name_of
from .transport import Timeout


def revoke_by_key(certificate: Certificate, reason: int, entry: CaSettings, directory: str, timeout: Timeout) -> None:
    """Have the CA of ``certificate`` revoke it; one that is revoked already is no error. ``reason`` is a CRLReason.

    ``entry`` is what the options say of the CA at ``directory``: where that is another, it lends its trust alone.
    ``timeout`` is that of ``Network``. Raises ``IssuanceError``; ``SettingsRefused`` for a CA that nobody can ask.
    """
    known = name_of(certificate.ca)
    if certificate.ca == directory:
        name, ca_bundle = entry.ca, entry.ca_bundle
    else:  # a public CA needs no root of its own, and another may be as private as ours
        name, ca_bundle = known or certificate.ca, "" if known else entry.ca_bundle
    if not certificate.ca.startswith("https://"):
        raise SettingsRefused(f"{certificate.id}: it is not known which CA issued its certificate, so none is asked")
    # A client that uses no account signs with its key alone, and shows the public one ("jwk", not "kid").
    client = Client.connect(name, certificate.ca, _as_jwk(certificate.key), ca_bundle, timeout)
    client.revoke_certificate(certificate, reason)


def _as_jwk(key: PrivateKey) -> jose.JWK:
    return jose.JWKRSA(key=key) if isinstance(key, rsa.RSAPrivateKey) else jose.JWKEC(key=key)
