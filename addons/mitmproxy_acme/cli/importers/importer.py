"""Decides where an imported certificate is stored, or why it is not.

This module knows which certificates the options make of its names; it must not know the sources.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum

from ...config.config import Config
from ...core.certificate import Certificate
from ...core.errors import RecordRefused
from ...core.names import ServerName, Subject, options_for, parse_address, parse_server_name
from ...core.renewal import first_check_at, renew_at
from ...store.certificate_writer import CertificateWriter
from .item import FoundCertificate, ImportItem, Rejected


class ImportOutcome(Enum):
    IMPORTED = "imported"
    LEFT = "skipped"
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What became of one item. ``what`` explains it; ``other_ca``: a CA of the options will replace it soon."""

    outcome: ImportOutcome
    name: str
    what: str
    other_ca: bool = False


class Importer:
    """Imports items into one storage. ``directories`` are the CAs of the options, ``now`` is in Unix seconds.

    With ``dry`` nothing is written, only remembered. Use it from one thread.
    """

    def __init__(
        self, config: Config, directories: Sequence[str], writer: CertificateWriter, now: float, *, dry: bool = False
    ) -> None:
        self.dry = dry
        self._config = config
        self._directories = directories
        self._writer = writer
        self._now = now
        self._written: dict[ServerName, Certificate] = {}

    def take(self, item: ImportItem) -> ImportResult:
        """Store a certificate for each subject unless a better one is stored. Blocks. Raises ``StorageError``."""
        if isinstance(item, Rejected):
            return ImportResult(ImportOutcome.LEFT if item.foreign else ImportOutcome.UNUSABLE, item.name, item.why)
        certificate = item.certificate
        if certificate.not_after <= self._now:
            return ImportResult(ImportOutcome.LEFT, item.name, f"it expired on {_day(certificate)}")
        if certificate.not_before > self._now:
            return ImportResult(ImportOutcome.LEFT, item.name, "it is not valid yet")
        # Without wildcards and other names that no client can ask for.
        names = sorted(certificate.names)
        hosts = [host for name in names if (host := parse_server_name(name) or parse_address(name)) is not None]
        subjects = self._subjects(certificate, hosts)
        if not subjects:
            return self._unwanted(item, hosts)
        # Without a known CA, assume the first one: the certificate is served until it is due, and renewed there.
        own = replace(certificate, ca=certificate.ca or self._directories[0])
        try:
            kept = [stored for subject in subjects if (stored := self._store(subject, own)) is not None]
        except RecordRefused as error:
            return ImportResult(ImportOutcome.UNUSABLE, item.name, f"another record is in its place: {error}")
        if len(kept) == len(subjects):
            return ImportResult(ImportOutcome.LEFT, item.name, _kept(own, kept))
        return ImportResult(
            ImportOutcome.IMPORTED,
            subjects[0].id if len(subjects) == 1 else f"{subjects[0].id} (+{len(subjects) - 1})",
            f"valid until {_day(own)}, issued by {own.issuer_name}",
            other_ca=own.ca not in self._directories,
        )

    def _subjects(self, certificate: Certificate, hosts: Collection[ServerName]) -> list[Subject]:
        """Return the subjects that it can serve: managed certificates, and each host on demand."""
        names = set(hosts)
        if any(name.startswith("*.") for name in certificate.names):
            names |= {subject.name for subject in self._config.managed}
            names |= {ServerName(name) for name in self._config.policy.exact}
        config, key_type = self._config, certificate.key_type
        ids = (config.id_for(name, type) for name in sorted(names) for type in config.key_types)
        found = dict.fromkeys(filter(None, map(config.subject, ids)))
        return [s for s in found if certificate.serves(s, self._now) and config.accepts_key_type(s, key_type)]

    def _unwanted(self, item: FoundCertificate, hosts: Sequence[ServerName]) -> ImportResult:
        if not hosts:
            wildcard = any(name.startswith("*.") for name in item.certificate.names)
            why = "acme_certificates lists neither this wildcard nor a name that it covers"
            return ImportResult(
                ImportOutcome.UNUSABLE, item.name, why if wildcard else "no client can ask for any of its names"
            )
        for subject in filter(None, map(self._config.subject, hosts)):
            missing = ", ".join(name for name in subject.names if not item.certificate.covers(name))
            return ImportResult(
                ImportOutcome.LEFT, item.name, f"it lacks {missing}, which acme_certificates lists with it"
            )
        return ImportResult(ImportOutcome.LEFT, item.name, f"not included in {' or '.join(options_for(hosts[0]))}")

    def _store(self, subject: Subject, certificate: Certificate) -> Certificate | None:
        """Store it, unless one that is as good is stored: then return that."""
        slot = self._writer.store.slot(subject.id)
        stored = self._written.get(subject.id) or slot.certificate
        if stored is not None and stored.serves(subject, self._now) and self._worth(stored) >= self._worth(certificate):
            return stored
        self._written[subject.id] = own = replace(certificate, id=subject.id)
        if self.dry:
            return None
        saved = self._writer.save(subject, slot, own, check_at=self._check_at(own), now=self._now)
        return None if saved is own else saved

    def _worth(self, certificate: Certificate) -> tuple[bool, float]:
        return certificate.ca in self._directories, certificate.not_after

    def _check_at(self, certificate: Certificate) -> float:
        """Return when the renewer should check it; for another CA's not before it is due, since a check orders at once.

        An import may have thousands: they are replaced as clients ask for them, not all at once.
        """
        renew_before = self._config.renew_before
        ours = certificate.ca in self._directories
        return first_check_at(certificate, renew_before) if ours else renew_at(certificate, renew_before, None)


def _kept(certificate: Certificate, stored: list[Certificate]) -> str:
    if all(other.fingerprint == certificate.fingerprint for other in stored):
        return "it is stored already"
    return f"the stored one is valid until {_day(min(stored, key=lambda other: other.not_after))}"


def _day(certificate: Certificate) -> str:
    return f"{datetime.fromtimestamp(certificate.not_after, UTC):%Y-%m-%d}"
