"""Why a certificate is revoked: the reasons that a subscriber may give.

This module knows RFC 5280 section 5.3.1 and what CAs take of it (Mozilla's root program, section 6.1.1: the rest is
for the CA itself to say); it must not know how a CA is asked.
"""

from dataclasses import dataclass

COMPROMISED = "keyCompromise"
"""The reason that says that somebody else has the private key."""

REASONS = {
    "unspecified": 0,
    COMPROMISED: 1,
    "affiliationChanged": 3,
    "superseded": 4,
    "cessationOfOperation": 5,
}
"""CRLReason by its name; what is compromised is best reported with its reason, for browsers look for that one."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """What came of a revocation for ``reason``, in words of a person as its string.

    ``replaced`` says that another certificate, with a new key, is stored in its place; else nothing is, and ``lacking``
    says why, where one was wanted.
    """

    reason: str
    replaced: bool = False
    lacking: str = ""

    def __str__(self) -> str:
        if self.replaced:
            return f"revoked ({self.reason}), and another with a new key is in its place"
        wanted = f"; no other came in its place: {self.lacking}" if self.lacking else ""
        return f"revoked ({self.reason}) and deleted{wanted}"
