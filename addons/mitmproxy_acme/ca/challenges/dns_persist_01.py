"""dns-persist-01 (draft-ietf-acme-dns-persist): a permanent TXT record that says which account may order.

This module knows the challenge; it must not know how the record is looked up. The draft is changing: field names are
read in both of its spellings.

The record is logged for the operator to publish, and lets an account order for as long as it exists. So nothing in it
relies on the CA's word alone: the account must be ours, and the CA's name must be a host name.
"""

import re

import josepy as jose
from acme import challenges, messages

from ...core.errors import ChallengeFailed
from ...core.names import parse_server_name
from ...core.proof import Proof
from ...core.text import one_line
from .challenge import Challenge, Prover

_LABEL = "_validation-persist"
# Printable, without characters that separate parameters or end a text in a zone file.
_ACCOUNT_URI = re.compile(r"https?://[!#-:<-\[\]-~]+")
_LONGEST_TEXT = 255  # one character-string of a TXT record (RFC 1035 section 3.3)


@challenges.Challenge.register
class _DnsPersist01(challenges.Challenge):
    typ = "dns-persist-01"
    issuers: tuple[str, ...] = jose.field("issuer-domain-names", omitempty=True, default=())
    issuers_too: tuple[str, ...] = jose.field("issuerDomainNames", omitempty=True, default=())
    account_uri: str | None = jose.field("accounturi", omitempty=True)
    account_uri_too: str | None = jose.field("accountURI", omitempty=True)


class DnsPersist01(Challenge):
    type = "dns-persist-01"
    offer = _DnsPersist01

    def suits(self, authorization: messages.Authorization) -> bool:
        return bool(authorization.identifier.typ == messages.IDENTIFIER_FQDN)

    def prove(self, authorization: messages.Authorization, body: messages.ChallengeBody, prover: Prover) -> Proof:
        """Return the record that must exist, with the first of the CA's names. Raises ``ChallengeFailed``."""
        offer = body.chall
        issuers = offer.issuers or offer.issuers_too
        host = str(authorization.identifier.value)
        if not issuers or not isinstance(issuers, tuple):
            raise ChallengeFailed(f"{host}: the CA offers {self.type} but does not give its name")
        other = offer.account_uri or offer.account_uri_too
        if other and other != prover.account_uri:
            raise ChallengeFailed(
                f"{host}: the CA wants a record for the account {one_line(str(other), 100)!r}, and this node's account "
                f"there is {one_line(prover.account_uri, 100)!r}; publish no record for another account"
            )
        proof = persistent_record(host, str(issuers[0]), prover.account_uri, wildcard=bool(authorization.wildcard))
        if not is_issuer(str(issuers[0])) or not is_account_uri(prover.account_uri) or len(proof.value) > _LONGEST_TEXT:
            raise ChallengeFailed(
                f"{host}: the CA wants a record that cannot be published: {one_line(proof.value, 100)!r}; its name "
                f"must be a host name, the account a URL, and both together at most {_LONGEST_TEXT} characters"
            )
        return proof


def persistent_record(host: str, issuer: str, account_uri: str, *, wildcard: bool) -> Proof:
    """Return the record that lets an account order for a name, and, with ``wildcard``, for its wildcard."""
    policy = "; policy=wildcard" if wildcard else ""
    return Proof(DnsPersist01.type, f"{_LABEL}.{host}", f"{issuer}; accounturi={account_uri}{policy}")


def is_issuer(text: str) -> bool:
    """Say whether this can be a CA's name: a host name in ASCII form."""
    return parse_server_name(text) == text.lower()


def is_account_uri(text: str) -> bool:
    """Say whether a record can have this account: an http URL of printable ASCII, without ``"``, ``;`` and ``\\``."""
    return len(text) <= _LONGEST_TEXT and _ACCOUNT_URI.fullmatch(text) is not None
