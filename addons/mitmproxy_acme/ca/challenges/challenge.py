"""What all types of challenge have in common.

This module knows the interface; it must not know any one type, or how a proof is shown to the CA.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import josepy as jose
from acme import challenges, messages

from ...core.proof import Proof
from ..key_generation import thumbprint


@dataclass(frozen=True)
class Prover:
    """The account that proves control: its key and its URL."""

    key: jose.JWK = field(repr=False)
    account_uri: str

    @cached_property
    def thumbprint(self) -> str:
        """The thumbprint of the key (RFC 7638), base64url: each order needs it, and it takes 0.16 ms (measured)."""
        return thumbprint(self.key)


_Offer = type[challenges.Challenge]


class Challenge(ABC):
    """One type of challenge; it only computes. ``offer`` is the library's class for the CA's offer of it."""

    type: ClassVar[str]
    offer: ClassVar[_Offer]

    @abstractmethod
    def suits(self, authorization: messages.Authorization) -> bool:
        """Say whether the type can validate this identifier (RFC 8555 section 8, RFC 8738)."""

    @abstractmethod
    def prove(self, authorization: messages.Authorization, body: messages.ChallengeBody, prover: Prover) -> Proof:
        """Return what the CA must find, and where. Raises ``ChallengeFailed`` if the offer is incomplete."""
