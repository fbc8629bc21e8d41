"""Revocation with the certificate's own private key (RFC 8555 section 7.6), which needs no account.

This module knows that one request; it must not know accounts, or why a certificate is revoked. It blocks.
"""

import josepy as jose
from cryptography.hazmat.primitives.asymmetric import rsa

from ..config.ca_settings import CaSettings
from ..core.certificate import Certificate, PrivateKey
from ..core.errors import SettingsRefused
from .client import Client
from .http.deadline import Timeout
from .known_cas import alias_of


def revoke_by_key(certificate: Certificate, reason: int, entry: CaSettings, directory: str, timeout: Timeout) -> None:
    """Have the CA of ``certificate`` revoke it; an earlier revocation is no error. ``reason`` is a CRLReason.

    ``entry`` holds the options about the CA at ``directory``; for another CA only its ``ca_bundle`` is used.
    ``timeout`` is that of ``Network``. Raises ``IssuanceError``; ``SettingsRefused`` if the CA is unknown.
    """
    known = alias_of(certificate.ca)
    if certificate.ca == directory:
        name, ca_bundle = entry.ca, entry.ca_bundle
    else:  # a public CA needs no extra root, and another private CA may share ours
        name, ca_bundle = known or certificate.ca, "" if known else entry.ca_bundle
    if not certificate.ca.startswith("https://"):
        raise SettingsRefused(
            f"{certificate.id}: it is not known which CA issued the certificate, so none can be asked"
        )
    # A client without an account signs with its key and sends the public key ("jwk" instead of "kid").
    client = Client.connect(name, certificate.ca, _as_jwk(certificate.key), ca_bundle, timeout)
    client.revoke_certificate(certificate, reason)


def _as_jwk(key: PrivateKey) -> jose.JWK:
    return jose.JWKRSA(key=key) if isinstance(key, rsa.RSAPrivateKey) else jose.JWKEC(key=key)
