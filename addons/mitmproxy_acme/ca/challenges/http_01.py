"""http-01 (RFC 8555 section 8.3): the CA fetches ``/.well-known/acme-challenge/TOKEN`` on port 80.

This module knows the challenge; it must not know how it is answered.
"""

from acme import challenges, messages

from ...core.proof import Proof
from .challenge import Challenge, Prover


class Http01(Challenge):
    type = "http-01"
    offer = challenges.HTTP01

    def suits(self, authorization: messages.Authorization) -> bool:
        return not authorization.wildcard

    def prove(self, authorization: messages.Authorization, body: messages.ChallengeBody, prover: Prover) -> Proof:
        """Return the key authorization (RFC 8555 section 8.1), at the token."""
        token = str(body.chall.encode("token"))
        return Proof(self.type, token, f"{token}.{prover.thumbprint}")
