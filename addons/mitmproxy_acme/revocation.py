"""Why a certificate is revoked: the reasons that a subscriber may give.

This module knows RFC 5280 section 5.3.1 and what CAs take of it (Mozilla's root program, section 6.1.1: the rest is
for the CA itself to say); it must not know how a CA is asked.
"""

REASONS = {
    "unspecified": 0,
    "keyCompromise": 1,
    "affiliationChanged": 3,
    "superseded": 4,
    "cessationOfOperation": 5,
}
"""CRLReason by its name; what is compromised is best reported with its reason, for browsers look for that one."""
