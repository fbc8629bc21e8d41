"""The store as the addon sees it: certificates, accounts, challenges and backoffs instead of bytes.

This module knows records; it must not know which database lies beneath, nor decide anything.
"""

import contextlib
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass

from acme_storage import Storage, StorageCorrupt

from ..core.account import Account
from ..core.backoff import BACKOFF_MEMORY, Backoff
from ..core.certificate import Certificate
from ..core.errors import CertificateError, RecordRefused
from ..core.names import ServerName, Subject
from ..core.proof import TXT_TYPES, Proof
from . import compromised_record
from .encryption import RecordCipher
from .keys import (
    account_key,
    account_prefix,
    backoff_key,
    backoff_prefix,
    certificate_key,
    certificate_prefix,
    challenge_key,
    challenge_prefix,
    compromised_key,
    compromised_prefix,
    proof_key,
    record_prefix,
)
from .record_warnings import RecordWarnings

# Longer than any CA takes to validate; what a killed process leaves behind is gone after it.
_CHALLENGE_TTL = 3_600.0
# What is to be revoked is kept a little beyond its end, so that whoever tries sees that it has ended.
_BEYOND_THE_END = 86_400.0
# More orders than a node has under way; what a name has beyond it would fit no reply.
_RECORDS = 4_096
# So many proofs are read one by one; a listing, which costs more than a read on some stores, pays off for more.
_FEW = 4


@dataclass(frozen=True, slots=True)
class Slot:
    """What lies under a certificate's key: the certificate, where it can be read, and what a write replaces.

    ``record`` None with ``corrupt`` means that the adapter itself cannot read it.
    """

    certificate: Certificate | None
    record: bytes | None
    corrupt: bool = False

    def satisfying(self, subject: Subject, replacing: Certificate | None, now: float) -> Certificate | None:
        """Return the certificate if it makes an order needless: it is what ``subject`` needs, and not ``replacing``."""
        stored = self.certificate
        if stored is None or not stored.serves(subject, now):
            return None
        return None if replacing is not None and stored.fingerprint == replacing.fingerprint else stored


class Store:
    """A typed view of one storage, whose records ``sealing`` seals.

    Every method blocks, is safe from any thread, and raises ``StorageError``; those that read a certificate or an
    account raise ``RecordRefused`` for one that no key opens, or that a later release wrote: it is logged once.
    """

    def __init__(self, storage: Storage, sealing: RecordCipher) -> None:
        self.storage = storage
        self._sealing = sealing
        self._published: dict[str, Proof] = {}
        self._shown: dict[Proof, bytes] = {}
        self._complaints = RecordWarnings()

    def slot(self, id: ServerName) -> Slot:
        """Return what is stored for ``id``; a broken record is logged once and counts as none."""
        key, trouble = certificate_key(id), "%s: the stored certificate cannot be used and will be ordered anew: %s"
        try:
            record = self.storage.get(key)
        except StorageCorrupt as error:
            self._complaints.say(key, None, trouble, id, error)
            return Slot(None, None, corrupt=True)
        if record is None:
            return Slot(None, None)
        try:
            return Slot(self._read(key, record, lambda opened: Certificate.from_record(id, opened)), record)
        except CertificateError as error:
            self._complaints.say(key, record, trouble, id, error)
            return Slot(None, record)

    def verify_keys(self, *, accounts: bool) -> None:
        """Open one certificate, and one account, if there are any: a wrong key is logged before it is needed.

        Raises ``RecordRefused``.
        """
        for prefix in (account_prefix(), certificate_prefix()) if accounts else (certificate_prefix(),):
            for key in self.storage.keys(prefix, limit=1):
                with contextlib.suppress(StorageCorrupt, CertificateError):  # said when it is needed
                    if (record := self.storage.get(key)) is not None:
                        self._read(key, record, bytes)

    def _read[T](self, key: str, record: bytes, parse: Callable[[bytes], T]) -> T:
        try:
            return parse(self._sealing.open(key, record))
        except RecordRefused as error:
            self._complaints.say(key, record, "%s", error)
            raise

    def ids(self, *, after: str = "", limit: int) -> list[ServerName]:
        """Return a page of what certificates are stored under, sorted, beginning behind ``after``."""
        behind = certificate_key(ServerName(after)) if after else ""
        keys = self.storage.keys(certificate_prefix(), after=behind, limit=limit)
        return [ServerName(key.removeprefix(certificate_prefix())) for key in keys]

    def replace(self, slot: Slot, certificate: Certificate) -> bool:
        """Write ``certificate`` if ``slot`` is still what is there: the fence against a slower writer.

        Returns False when somebody else wrote meanwhile.
        """
        key = certificate_key(certificate.id)
        if slot.corrupt:
            self.storage.delete(key)
        return self.storage.swap(key, slot.record, self._sealing.seal(key, certificate.to_record()))

    def delete(self, id: ServerName) -> None:
        self.storage.delete(certificate_key(id))

    def compromised(self, id: ServerName) -> Certificate | None:
        """Return the certificate whose key is stolen and that is yet to be revoked; None for a broken record."""
        key = compromised_key(id)
        try:
            if (record := self.storage.get(key)) is None:
                return None
            return self._read(key, record, lambda opened: compromised_record.from_record(id, opened))
        except (StorageCorrupt, CertificateError) as error:
            self._complaints.say(key, None, "%s: what was kept to be revoked cannot be used: %s", id, error)
            return None

    def compromised_ids(self) -> list[ServerName]:
        """Return the ids of what is kept aside, of all proxies on this storage."""
        keys = self.storage.keys(compromised_prefix())
        return [ServerName(key.removeprefix(compromised_prefix())) for key in keys]

    def save_compromised(self, certificate: Certificate, now: float) -> None:
        """Keep it aside until it is revoked, or has expired for a day."""
        key = compromised_key(certificate.id)
        ttl = max(certificate.not_after - now, 0.0) + _BEYOND_THE_END
        self.storage.put(key, self._sealing.seal(key, compromised_record.to_record(certificate)), ttl=ttl)

    def delete_compromised(self, id: ServerName) -> None:
        self.storage.delete(compromised_key(id))

    def account(self, directory: str) -> Account | None:
        """Return the account at a CA; a broken record is logged and counts as none."""
        key, record = account_key(directory), None
        try:
            record = self.storage.get(key)
            return self._read(key, record, Account.from_record) if record is not None else None
        except (StorageCorrupt, CertificateError) as error:
            trouble = "the account at %s cannot be read and will be made anew: %s"
            self._complaints.say(key, record, trouble, directory, error)
            return None

    def account_uri(self, directory: str) -> str | None:
        """Return the URL of the account at a CA (RFC 8555 section 7.3); None where there is none that can be read."""
        try:
            account = self.account(directory)
        except RecordRefused:
            return None
        return account.uri or None if account else None

    def claim_account(self, account: Account) -> Account:
        """Keep ``account`` unless another node was first; return the one that is kept, so that there is one key."""
        key, record = account_key(account.directory), self._sealed_account(account)
        if self.account(account.directory) is None and self.storage.swap(key, None, record):
            return account
        kept = self.account(account.directory)
        if kept is not None and kept.key:
            return kept
        self.storage.put(key, record)  # broken, or an operator's own key that is no longer given
        return account

    def save_account(self, account: Account) -> None:
        self.account(account.directory)  # raises for one that must not be written over
        self.storage.put(account_key(account.directory), self._sealed_account(account))

    def _sealed_account(self, account: Account) -> bytes:
        return self._sealing.seal(account_key(account.directory), account.to_record())

    def delete_account(self, directory: str) -> None:
        self.storage.delete(account_key(directory))

    def put_proof(self, proof: Proof) -> None:
        """Let this node, and then every other, show a validator the proof (RFC 8555 section 8)."""
        self._published[proof_key(proof)] = proof
        self.storage.put(self._place_of(proof), self._record_of(proof), ttl=_CHALLENGE_TTL)

    def put_test_proof(self, proof: Proof) -> bool:
        """Let other processes show the proof, unless another stands in its place, and say whether they do.

        The proof of an order takes the place at any time: nothing that looks around is in its way.
        """
        shown = self.storage.swap(self._place_of(proof), None, self._record_of(proof), ttl=_CHALLENGE_TTL)
        if not shown:
            self._shown.pop(proof, None)
        return shown

    def delete_proof(self, proof: Proof) -> None:
        """Show it no more; another that was published in the same place meanwhile stays."""
        key = proof_key(proof)
        if self._published.get(key) is proof:
            del self._published[key]
        self.storage.swap(self._place_of(proof), self._shown.pop(proof, b""), None)

    def _place_of(self, proof: Proof) -> str:
        key = proof_key(proof)
        return self._sealing.sign_key(key) if proof.type in TXT_TYPES else key

    def _record_of(self, proof: Proof) -> bytes:
        """Return the record, and remember it: a second one of the same proof, sealed, would be another."""
        record = self._shown[proof] = self._sealing.seal(self._place_of(proof), proof.value.encode())
        return record

    def local_proof(self, type: str, place: str) -> str | None:
        """Return the proof of a challenge of this node's own: no storage, no wait."""
        proof = self._published.get(challenge_key(type, place))
        return proof.value if proof is not None else None

    def records(self) -> set[tuple[str, str]]:
        """Return name and value of every proof that is to be found in DNS, whichever node waits for it."""
        prefix = record_prefix()
        keys = filter(None, map(self._sealing.verify_key, self.storage.keys(prefix, limit=_RECORDS)))
        return {(name, value) for name, _, value in (key.removeprefix(prefix).partition("~") for key in keys)}

    def local_txt_records(self) -> set[tuple[str, str]]:
        """Return those of this node's own: no storage, no wait."""
        return {(proof.location, proof.value) for proof in tuple(self._published.values()) if proof.type in TXT_TYPES}

    def proofs(self, wanted: Set[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """Return those of the wanted proofs, by type and place, that there are, whichever node waits for them.

        The number of calls is bounded by the challenges that are pending, and not by how many are wanted.
        """
        listed = wanted if len(wanted) <= _FEW else wanted & self._pending({type for type, _ in wanted})
        read = {what: self.proof(*what) for what in listed}
        return {what: value for what, value in read.items() if value is not None}

    def _pending(self, types: Set[str]) -> set[tuple[str, str]]:
        """Return type and place of the challenges of some types that wait for validation, on whichever node."""
        prefixes = {type: challenge_prefix(type) for type in types}
        return {
            (type, key.removeprefix(prefix))
            for type, prefix in prefixes.items()
            for key in self.storage.keys(prefix, limit=_RECORDS)
        }

    def proof(self, type: str, place: str) -> str | None:
        """Return the proof of a challenge, whichever node waits for it; None where none does.

        One that is not sealed, where there is a key, is not shown: a CA would take a stranger's order for ours.
        """
        key = challenge_key(type, place)
        try:
            record = self.storage.get(key)
            return self._sealing.open(key, record).decode("ascii", "replace") if record is not None else None
        except StorageCorrupt:
            return None
        except (RecordRefused, CertificateError) as error:
            # Once for all challenges: whoever writes such records may write any number of them.
            self._complaints.say("challenges/", None, "a challenge is not answered: %s", error)
            return None

    def backoff(self, subject: str) -> Backoff | None:
        """Return the backoff of a name, of a CA by its directory URL, or of a name at one CA (``name_scope``)."""
        try:
            record = self.storage.get(backoff_key(subject))
        except StorageCorrupt:
            return None
        return Backoff.from_record(record) if record is not None else None

    def save_backoff(self, subject: str, backoff: Backoff, ttl: float = BACKOFF_MEMORY) -> None:
        self.storage.put(backoff_key(subject), backoff.to_record(), ttl=ttl)

    def delete_backoff(self, subject: str) -> None:
        self.storage.delete(backoff_key(subject))

    def backoffs(self, known: Mapping[str, Backoff], now: float, *, limit: int) -> dict[str, Backoff]:
        """Return those that hold, at most so many: of names by their name, of CAs by what their key has for the URL,
        of a name at one CA by ``name_scope``.

        What is ``known`` is not read again before it ends.
        """
        prefix = backoff_prefix()
        scopes = [key.removeprefix(prefix) for key in self.storage.keys(prefix, limit=limit)]
        read = {s: known[s] if s in known and known[s].until > now else self.backoff(s) for s in scopes}
        return {scope: backoff for scope, backoff in read.items() if backoff is not None and backoff.until > now}
