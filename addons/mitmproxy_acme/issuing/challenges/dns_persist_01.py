"""dns-persist-01 (draft-ietf-acme-dns-persist): one TXT record that stands, and says which account may order.

This module knows the challenge; it must not know how the record is looked for. The draft is moving: names of fields
are read in both of its spellings.
"""

import josepy as jose
from acme import challenges, messages

from ...errors import ChallengeFailed
from ...proof import Proof
from .challenge import Challenge, Prover

_LABEL = "_validation-persist"


class _Response(challenges.ChallengeResponse):
    """An empty object; the library sends nothing at all for what is not true, which only looks at the challenge."""

    def __bool__(self) -> bool:
        return True


@challenges.Challenge.register
class _DnsPersist01(challenges.Challenge):
    typ = "dns-persist-01"
    issuers: tuple[str, ...] = jose.field("issuer-domain-names", omitempty=True, default=())
    issuers_too: tuple[str, ...] = jose.field("issuerDomainNames", omitempty=True, default=())
    account_uri: str | None = jose.field("accounturi", omitempty=True)
    account_uri_too: str | None = jose.field("accountURI", omitempty=True)

    def response(self, _: jose.JWK) -> _Response:
        return _Response()


class DnsPersist01(Challenge):
    type = "dns-persist-01"
    offer = _DnsPersist01

    def suits(self, authorization: messages.Authorization) -> bool:
        return bool(authorization.identifier.typ == messages.IDENTIFIER_FQDN)

    def prove(self, authorization: messages.Authorization, body: messages.ChallengeBody, prover: Prover) -> Proof:
        """Return the record that must stand, by the first of the CA's names. Raises ``ChallengeFailed``."""
        offer = body.chall
        issuers = tuple(offer.issuers or ()) or tuple(offer.issuers_too or ())
        host = str(authorization.identifier.value)
        if not issuers:
            raise ChallengeFailed(f"{host}: the CA offers {self.type} and does not say its name")
        account_uri = offer.account_uri or offer.account_uri_too or prover.account_uri
        return standing_record(host, str(issuers[0]), str(account_uri), wildcard=bool(authorization.wildcard))


def standing_record(host: str, issuer: str, account_uri: str, *, wildcard: bool) -> Proof:
    """Return the record for a name, by which an account may order; for its wildcard too, where that is said."""
    policy = "; policy=wildcard" if wildcard else ""
    return Proof(DnsPersist01.type, f"{_LABEL}.{host}", f"{issuer}; accounturi={account_uri}{policy}")
