"""The challenges of ACME, one module each: which one of an authorization to use, and what proves it.

This module knows the list; it must not know how a proof is shown to the CA.
"""

from collections.abc import Sequence

from acme import messages

from ...core.errors import ChallengeFailed
from ...core.text import one_line
from .challenge import Challenge, Prover
from .dns_01 import Dns01
from .dns_account_01 import DnsAccount01
from .dns_persist_01 import DnsPersist01
from .http_01 import Http01
from .tls_alpn_01 import TlsAlpn01

__all__ = ["KNOWN", "Prover", "choose"]

KNOWN: dict[str, Challenge] = {
    challenge.type: challenge for challenge in (Http01(), TlsAlpn01(), Dns01(), DnsAccount01(), DnsPersist01())
}


def choose(types: Sequence[str], authorization: messages.Authorization) -> tuple[Challenge, messages.ChallengeBody]:
    """Return the first of ``types`` that the CA offers and that suits the identifier, and the CA's offer.

    Other challenges may lack a token or be unknown; they are ignored. Raises ``ChallengeFailed`` if none is left.
    """
    for challenge in (KNOWN[type] for type in types):
        for body in authorization.challenges:
            if isinstance(body.chall, challenge.offer) and challenge.suits(authorization):
                return challenge, body
    offered = one_line(", ".join(str(body.chall.to_partial_json().get("type")) for body in authorization.challenges))
    raise ChallengeFailed(
        f"{authorization.identifier.value}: the CA offers {offered or 'no challenge'}, "
        f"and acme_challenges allows {', '.join(types)}"
    )
