"""Adopter: a certificate that was stored or issued comes into service on this node.

This module knows who has to hear of it; it must not know where the certificate comes from.
"""

from dataclasses import dataclass

from ..core.certificate import Certificate
from ..core.names import Subject
from .cache import Cache
from .failover import Failover
from .negative_cache import NegativeCache


@dataclass(frozen=True, slots=True)
class Adopter:
    """Use it from one event loop; nothing here waits."""

    cache: Cache
    failover: Failover
    refusals: NegativeCache

    def adopt(self, subject: Subject, certificate: Certificate) -> Certificate:
        """Serve ``certificate`` from now on, and return it."""
        self.cache.put(subject, certificate)
        self.failover.note_chain(certificate)
        self.refusals.forget(subject.id)
        return certificate
