"""tls-alpn-01 (RFC 8737): the CA connects to port 443, offers ``acme-tls/1``, and examines the certificate.

This module knows the challenge; it must not know how it is answered.
"""

import hashlib

import josepy as jose
from acme import challenges, messages

from ...core.names import tls_alpn_server_name
from ...core.proof import Proof
from .challenge import Challenge, Prover


@challenges.Challenge.register
class _TlsAlpn01(challenges.KeyAuthorizationChallenge):
    """What the acme library had until release 4."""

    typ = "tls-alpn-01"

    def validation(self, account_key: jose.JWK, **_: object) -> str:
        """Return the SHA-256 digest of the key authorization, in hexadecimal."""
        return hashlib.sha256(self.key_authorization(account_key).encode()).hexdigest()


class TlsAlpn01(Challenge):
    type = "tls-alpn-01"
    offer = _TlsAlpn01

    def suits(self, authorization: messages.Authorization) -> bool:
        return not authorization.wildcard

    def prove(self, authorization: messages.Authorization, body: messages.ChallengeBody, prover: Prover) -> Proof:
        """Return the digest, at the name that the CA will send: for an address its reverse name (RFC 8738)."""
        return Proof(self.type, tls_alpn_server_name(authorization.identifier.value), body.chall.validation(prover.key))
