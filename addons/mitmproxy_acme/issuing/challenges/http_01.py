"""http-01 (RFC 8555 section 8.3): the CA fetches ``/.well-known/acme-challenge/TOKEN`` on port 80.

This module knows the challenge; it must not know how it is answered.
"""

import josepy as jose
from acme import challenges, messages

from ...errors import ChallengeFailed

TYPE = "http-01"


def choose(authorization: messages.Authorization) -> messages.ChallengeBody:
    """Return the challenge to answer; others may lack a token or be unknown, and are no matter (dns-persist-01).

    Raises ``ChallengeFailed`` when the CA does not offer it.
    """
    for body in authorization.challenges:
        if isinstance(body.chall, challenges.HTTP01):
            return body
    offered = ", ".join(str(body.chall.to_partial_json().get("type")) for body in authorization.challenges)
    raise ChallengeFailed(f"{authorization.identifier.value}: the CA offers {offered or 'no challenge'}, not {TYPE}")


def token(body: messages.ChallengeBody) -> str:
    return str(body.chall.encode("token"))


def key_authorization(body: messages.ChallengeBody, account_key: jose.JWK) -> str:
    """Return what the CA must find (RFC 8555 section 8.1)."""
    return str(body.chall.key_authorization(account_key))
