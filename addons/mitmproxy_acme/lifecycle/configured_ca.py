"""A configured CA: its client and its rate limits, as one value.

This module knows that the two belong together; it must not know how either works, or which CA comes first.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ..ca.issuer import Issuer
from ..core.certificate import Certificate
from ..store.rate_limiter import RateLimiter


@dataclass(frozen=True, slots=True)
class ConfiguredCa:
    """One CA of ``acme_ca``; ``budgets`` counts what is left of its limits."""

    issuer: Issuer
    budgets: RateLimiter

    @property
    def name(self) -> str:
        """The CA as the operator wrote it; messages use it."""
        return self.issuer.name

    @property
    def directory(self) -> str:
        """The URL of its directory (RFC 8555 section 7.1.1), by which everything stored refers to it."""
        return self.issuer.directory


def ca_of(certificate: Certificate, cas: Iterable[ConfiguredCa]) -> ConfiguredCa | None:
    """Return the CA that issued a certificate; None where none of them did."""
    return next((ca for ca in cas if ca.directory == certificate.ca), None)
