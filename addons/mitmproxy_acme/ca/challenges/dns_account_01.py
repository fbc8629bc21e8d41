"""dns-account-01 (draft-ietf-acme-dns-account-label): dns-01 at a name that belongs to one account.

The name is ``_LABEL._acme-challenge.NAME``, so that several accounts, or several CAs, can each have a delegation. This
module knows the challenge; it must not know how it is answered.
"""

import base64
import hashlib

import josepy as jose
from acme import challenges, messages

from ...core.challenge_domains import ChallengeDomain
from ...core.proof import Proof
from .challenge import Challenge, Prover


@challenges.Challenge.register
class _DnsAccount01(challenges.KeyAuthorizationChallenge):
    typ = "dns-account-01"

    def validation(self, account_key: jose.JWK, **_: object) -> str:
        """Return the SHA-256 digest of the key authorization in base64url, as for dns-01."""
        return jose.b64encode(hashlib.sha256(self.key_authorization(account_key).encode()).digest()).decode()


class DnsAccount01(Challenge):
    type = "dns-account-01"
    offer = _DnsAccount01

    def suits(self, authorization: messages.Authorization) -> bool:
        return bool(authorization.identifier.typ == messages.IDENTIFIER_FQDN)

    def prove(self, authorization: messages.Authorization, body: messages.ChallengeBody, prover: Prover) -> Proof:
        """Return the digest, at the account's own name."""
        domain = ChallengeDomain.for_name(authorization.identifier.value, label(prover.account_uri))
        return Proof(self.type, str(domain), body.chall.validation(prover.key))


def label(account_uri: str) -> str:
    """Return the label of an account: base32 of the first ten bytes of the digest of its URL."""
    return "_" + base64.b32encode(hashlib.sha256(account_uri.encode()).digest()[:10]).decode().lower()
