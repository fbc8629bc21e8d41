"""The reasons that a subscriber may give to revoke a certificate.

This module knows RFC 5280 section 5.3.1 and which of its reasons CAs accept (Mozilla's root program, section 6.1.1: the
others are for the CA itself); it must not know how a CA is asked.
"""

from dataclasses import dataclass

COMPROMISED = "keyCompromise"
"""The reason when someone else has the private key."""

REASONS = {
    "unspecified": 0,
    COMPROMISED: 1,
    "affiliationChanged": 3,
    "superseded": 4,
    "cessationOfOperation": 5,
}
"""CRLReason by its name. Give keyCompromise when it applies: browsers look for it."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """The result of a revocation for ``reason``; its string is for people.

    ``replaced`` says that another certificate, with a new key, is stored in its place; else none is, and ``lacking``
    says why, if one was wanted.
    """

    reason: str
    replaced: bool = False
    lacking: str = ""

    def __str__(self) -> str:
        if self.replaced:
            return f"revoked ({self.reason}) and replaced by a certificate with a new key"
        wanted = f"; no new certificate was obtained: {self.lacking}" if self.lacking else ""
        return f"revoked ({self.reason}) and deleted{wanted}"
