"""dns-01 (RFC 8555 section 8.4): the CA looks for a TXT record at ``_acme-challenge.NAME``.

This module knows the challenge; it must not know how it is answered.
"""

from acme import challenges, messages

from ...core.challenge_domains import ChallengeDomain
from ...core.proof import Proof
from .challenge import Challenge, Prover


class Dns01(Challenge):
    type = "dns-01"
    offer = challenges.DNS01

    def suits(self, authorization: messages.Authorization) -> bool:
        return bool(authorization.identifier.typ == messages.IDENTIFIER_FQDN)

    def prove(self, authorization: messages.Authorization, body: messages.ChallengeBody, prover: Prover) -> Proof:
        """Return the digest of the key authorization in base64url, at the DNS name; a wildcard's is the same."""
        domain = ChallengeDomain.for_name(authorization.identifier.value)
        return Proof(self.type, str(domain), str(body.chall.validation(prover.key)))
