"""What becomes of a certificate that was found: where it is stored, or why it is not.

This module knows which subjects the options make of its names; it must not know where it was found.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum

from ...config.config import Config
from ...core.certificate import Certificate
from ...core.errors import RecordRefused
from ...core.names import ServerName, Subject, options_for, parse_address, parse_server_name
from ...core.renewal import first_look, renew_at
from ...store.certificate_writer import CertificateWriter
from .item import FoundCertificate, ImportItem, Rejected


class ImportOutcome(Enum):
    IMPORTED = "imported"
    LEFT = "left alone"
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class ImportResult:
    """One item's fate. ``what`` is a sentence without its name; ``other_ca``: the options' will replace it soon."""

    outcome: ImportOutcome
    name: str
    what: str
    other_ca: bool = False


class Importer:
    """Takes what is found into one storage. ``directories`` are the CAs of the options, ``now`` Unix seconds.

    With ``dry`` nothing is written, and what would be is remembered. For one thread.
    """

    def __init__(
        self, config: Config, directories: Sequence[str], saving: CertificateWriter, now: float, *, dry: bool = False
    ) -> None:
        self.dry = dry
        self._config = config
        self._directories = directories
        self._saving = saving
        self._now = now
        self._written: dict[ServerName, Certificate] = {}

    def take(self, item: ImportItem) -> ImportResult:
        """Store a certificate under each subject that it serves better than what is stored.

        Blocks, raises ``StorageError``.
        """
        if isinstance(item, Rejected):
            return ImportResult(ImportOutcome.LEFT if item.foreign else ImportOutcome.UNUSABLE, item.name, item.why)
        certificate = item.certificate
        if certificate.not_after <= self._now:
            return ImportResult(ImportOutcome.LEFT, item.name, f"it expired on {_day(certificate)}")
        if certificate.not_before > self._now:
            return ImportResult(ImportOutcome.LEFT, item.name, "it is not valid yet")
        # Without wildcards, and what else no client can ask for.
        names = sorted(certificate.names)
        hosts = [host for name in names if (host := parse_server_name(name) or parse_address(name)) is not None]
        subjects = self._subjects(certificate, hosts)
        if not subjects:
            return self._unwanted(item, hosts)
        # Who knows no better says that the first CA issued it: so it is served until it is due, and renewed there.
        own = replace(certificate, ca=certificate.ca or self._directories[0])
        try:
            kept = [stored for subject in subjects if (stored := self._store(subject, own)) is not None]
        except RecordRefused as error:
            return ImportResult(ImportOutcome.UNUSABLE, item.name, f"its place is taken: {error}")
        if len(kept) == len(subjects):
            return ImportResult(ImportOutcome.LEFT, item.name, _kept(own, kept))
        return ImportResult(
            ImportOutcome.IMPORTED,
            subjects[0].id if len(subjects) == 1 else f"{subjects[0].id} (+{len(subjects) - 1})",
            f"until {_day(own)}, by {own.issuer_name}",
            other_ca=own.ca not in self._directories,
        )

    def _subjects(self, certificate: Certificate, hosts: Collection[ServerName]) -> list[Subject]:
        """Return what the options would look it up for: managed certificates, and each host on demand."""
        names = set(hosts)
        if any(name.startswith("*.") for name in certificate.names):
            names |= {subject.name for subject in self._config.managed}
            names |= {ServerName(name) for name in self._config.policy.exact}
        config, key_type = self._config, certificate.key_type
        places = (config.id_for(name, type) for name in sorted(names) for type in config.key_types)
        found = dict.fromkeys(filter(None, map(config.subject, places)))
        return [s for s in found if certificate.serves(s, self._now) and config.wants(s, key_type)]

    def _unwanted(self, item: FoundCertificate, hosts: Sequence[ServerName]) -> ImportResult:
        if not hosts:
            wildcard = any(name.startswith("*.") for name in item.certificate.names)
            why = "a wildcard, and acme_certificates lists neither it nor a name that it covers"
            return ImportResult(
                ImportOutcome.UNUSABLE, item.name, why if wildcard else "no client can ask for any of its names"
            )
        for subject in filter(None, map(self._config.subject, hosts)):
            missing = ", ".join(name for name in subject.names if not item.certificate.covers(name))
            return ImportResult(ImportOutcome.LEFT, item.name, f"acme_certificates wants {missing} in it too")
        return ImportResult(
            ImportOutcome.LEFT, item.name, f"no option lets it have one ({', '.join(options_for(hosts[0]))})"
        )

    def _store(self, subject: Subject, certificate: Certificate) -> Certificate | None:
        """Write it unless something as good is there: then return that."""
        slot = self._saving.store.slot(subject.id)
        stored = self._written.get(subject.id) or slot.certificate
        if stored is not None and stored.serves(subject, self._now) and self._worth(stored) >= self._worth(certificate):
            return stored
        self._written[subject.id] = own = replace(certificate, id=subject.id)
        if self.dry:
            return None
        saved = self._saving.save(subject, slot, own, look=self._look(own), now=self._now)
        return None if saved is own else saved

    def _worth(self, certificate: Certificate) -> tuple[bool, float]:
        return certificate.ca in self._directories, certificate.not_after

    def _look(self, certificate: Certificate) -> float:
        """Return when the renewer is to look; at another CA's only when it is due, for a look would order at once.

        An import can be of thousands: they are replaced as clients ask for them, and not all together.
        """
        wish = self._config.renew_before
        ours = certificate.ca in self._directories
        return first_look(certificate, wish) if ours else renew_at(certificate, wish, None)


def _kept(certificate: Certificate, stored: list[Certificate]) -> str:
    if all(other.fingerprint == certificate.fingerprint for other in stored):
        return "it is stored already"
    return f"what is stored lives until {_day(min(stored, key=lambda other: other.not_after))}"


def _day(certificate: Certificate) -> str:
    return f"{datetime.fromtimestamp(certificate.not_after, UTC):%Y-%m-%d}"
