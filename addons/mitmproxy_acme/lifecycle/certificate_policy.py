"""Certificate policy: which certificates fit the options.

This module knows the CAs and the kinds of keys of the options; it must not know where a certificate is stored.
"""

from dataclasses import dataclass

from ..config.config import Config
from ..core.certificate import Certificate
from ..core.names import Subject
from .configured_ca import ConfiguredCa, ca_of


@dataclass(frozen=True, slots=True)
class CertificatePolicy:
    """What one configuration wants. Safe from any thread."""

    config: Config
    cas: tuple[ConfiguredCa, ...]

    def is_wanted(self, subject: Subject, certificate: Certificate) -> bool:
        """Say whether a CA of the options issued it, with a kind of key of the options.

        Another one is served only until a wanted one is stored. A data node takes those of every CA.
        """
        ours = self.ca_of(certificate) is not None or not self.config.orders
        return ours and self.config.accepts_key_type(subject, certificate.key_type)

    def ca_of(self, certificate: Certificate) -> ConfiguredCa | None:
        """Return the CA of the options that issued it: the one to ask when to renew it, and to revoke it."""
        return ca_of(certificate, self.cas)
