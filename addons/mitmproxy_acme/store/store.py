"""The store: typed certificates, accounts, challenges and backoffs over the bytes of ``acme_storage``.

This module knows records; it must not know which database holds them, or decide anything.
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
    ACCOUNTS_PREFIX,
    BACKOFFS_PREFIX,
    CERTIFICATES_PREFIX,
    COMPROMISED_PREFIX,
    TXT_RECORDS_PREFIX,
    account_key,
    backoff_key,
    certificate_key,
    challenge_key,
    challenge_prefix,
    compromised_key,
    proof_key,
)
from .record_warnings import RecordWarnings

# Longer than any CA takes to validate; then it removes what a killed process left behind.
_CHALLENGE_TTL = 3_600.0
# A compromised certificate is kept a little beyond its end, so that an attempt to revoke it shows that it has ended.
BEYOND_THE_END = 86_400.0
# More orders than a node runs at once; more values of one name would not fit a DNS reply.
_RECORDS = 4_096
_LONGEST_TXT = 255  # RFC 1035 section 3.3.14; a longer value is not ours, and would hide those that are
# Up to this many proofs are read one by one; for more, a listing pays off, which costs more than a read on some stores.
_FEW = 4


@dataclass(frozen=True, slots=True)
class Slot:
    """The record under a certificate's key: the certificate, if it can be read, and the bytes that a write replaces.

    ``record`` None with ``corrupt`` means that the storage itself cannot read it.
    """

    certificate: Certificate | None
    record: bytes | None
    corrupt: bool = False

    def satisfying(self, subject: Subject, replacing: Certificate | None, now: float) -> Certificate | None:
        """Return the certificate if it makes an order needless: it serves ``subject``, and is not ``replacing``."""
        stored = self.certificate
        if stored is None or not stored.serves(subject, now):
            return None
        return None if replacing is not None and stored.fingerprint == replacing.fingerprint else stored


class Store:
    """A typed view of one storage, whose records ``cipher`` seals.

    Every method blocks, is safe from any thread, and raises ``StorageError``. Those that read a certificate or an
    account raise ``RecordRefused`` if no key opens it or a later release wrote it; this is logged once.
    """

    def __init__(self, storage: Storage, cipher: RecordCipher) -> None:
        self.storage = storage
        self._cipher = cipher
        self._own_proofs: dict[str, Proof] = {}
        self._proof_records: dict[Proof, bytes] = {}
        self._warnings = RecordWarnings()

    def slot(self, id: ServerName) -> Slot:
        """Return what is stored for ``id``; a broken record is logged once and counts as absent."""
        key, trouble = certificate_key(id), "%s: the stored certificate cannot be used and is ordered again: %s"
        try:
            record = self.storage.get(key)
        except StorageCorrupt as error:
            self._warnings.warn_once(key, None, trouble, id, error)
            return Slot(None, None, corrupt=True)
        if record is None:
            return Slot(None, None)
        try:
            return Slot(self._read(key, record, lambda opened: Certificate.from_record(id, opened)), record)
        except CertificateError as error:
            self._warnings.warn_once(key, record, trouble, id, error)
            return Slot(None, record)

    def verify_keys(self, *, accounts: bool) -> None:
        """Open a certificate and an account, so that a wrong key is logged early. Raises ``RecordRefused``."""
        for prefix in (ACCOUNTS_PREFIX, CERTIFICATES_PREFIX) if accounts else (CERTIFICATES_PREFIX,):
            for key in self.storage.keys(prefix, limit=1):
                with contextlib.suppress(StorageCorrupt, CertificateError):  # logged when the record is needed
                    if (record := self.storage.get(key)) is not None:
                        self._read(key, record, bytes)

    def _read[T](self, key: str, record: bytes, parse: Callable[[bytes], T]) -> T:
        try:
            return parse(self._cipher.open(key, record))
        except RecordRefused as error:
            self._warnings.warn_once(key, record, "%s", error)
            raise

    def ids(self, *, after: str = "", limit: int) -> list[ServerName]:
        """Return a sorted page of the ids of stored certificates, beginning behind ``after``."""
        behind = certificate_key(ServerName(after)) if after else ""
        keys = self.storage.keys(CERTIFICATES_PREFIX, after=behind, limit=limit)
        return [ServerName(key.removeprefix(CERTIFICATES_PREFIX)) for key in keys]

    def replace(self, slot: Slot, certificate: Certificate) -> bool:
        """Write ``certificate`` if the record of ``slot`` is still there: the fence against a slower writer.

        Returns False if another process has written meanwhile.
        """
        key = certificate_key(certificate.id)
        if slot.corrupt:
            self.storage.delete(key)
        return self.storage.swap(key, slot.record, self._cipher.seal(key, certificate.to_record()))

    def delete(self, id: ServerName) -> None:
        self.storage.delete(certificate_key(id))

    def compromised(self, id: ServerName) -> Certificate | None:
        """Return the certificate with a compromised key that has yet to be revoked; None for a broken record."""
        key = compromised_key(id)
        try:
            if (record := self.storage.get(key)) is None:
                return None
            return self._read(key, record, lambda opened: compromised_record.from_record(id, opened))
        except (StorageCorrupt, CertificateError) as error:
            trouble = "%s: the record of a certificate to revoke cannot be used: %s"
            self._warnings.warn_once(key, None, trouble, id, error)
            return None

    def compromised_ids(self) -> list[ServerName]:
        """Return the ids of certificates to revoke, of all proxies on this storage."""
        keys = self.storage.keys(COMPROMISED_PREFIX)
        return [ServerName(key.removeprefix(COMPROMISED_PREFIX)) for key in keys]

    def save_compromised(self, certificate: Certificate) -> None:
        """Keep a certificate until it is revoked, or has been expired for a day, whatever our clock says."""
        key, lifetime = compromised_key(certificate.id), certificate.not_after - certificate.not_before
        record = self._cipher.seal(key, compromised_record.to_record(certificate))
        self.storage.put(key, record, ttl=lifetime + BEYOND_THE_END)

    def delete_compromised(self, id: ServerName) -> None:
        self.storage.delete(compromised_key(id))

    def account(self, directory: str) -> Account | None:
        """Return the account at a CA; a broken record is logged and counts as absent."""
        key, record = account_key(directory), None
        try:
            record = self.storage.get(key)
            return self._read(key, record, Account.from_record) if record is not None else None
        except (StorageCorrupt, CertificateError) as error:
            trouble = "the account at %s cannot be read and is created again: %s"
            self._warnings.warn_once(key, record, trouble, directory, error)
            return None

    def account_uri(self, directory: str) -> str | None:
        """Return the URL of the account at a CA (RFC 8555 section 7.3); None if no account can be read."""
        try:
            account = self.account(directory)
        except RecordRefused:
            return None
        return account.uri or None if account else None

    def claim_account(self, account: Account) -> Account:
        """Store ``account`` unless another node was first; return the stored one, so that all nodes use one key."""
        key, record = account_key(account.directory), self._sealed_account(account)
        if self.account(account.directory) is None and self.storage.swap(key, None, record):
            return account
        kept = self.account(account.directory)
        if kept is not None and kept.key:
            return kept
        self.storage.put(key, record)  # broken, or for an operator's own key that is no longer set
        return account

    def save_account(self, account: Account) -> None:
        self.account(account.directory)  # raises if the record must not be replaced
        self.storage.put(account_key(account.directory), self._sealed_account(account))

    def _sealed_account(self, account: Account) -> bytes:
        return self._cipher.seal(account_key(account.directory), account.to_record())

    def delete_account(self, directory: str) -> None:
        self.storage.delete(account_key(directory))

    def put_proof(self, proof: Proof) -> None:
        """Let this node, and then every other, show the proof to a validator (RFC 8555 section 8)."""
        self._own_proofs[proof_key(proof)] = proof
        self.storage.put(self._stored_key(proof), self._record_of(proof), ttl=_CHALLENGE_TTL)

    def put_test_proof(self, proof: Proof) -> bool:
        """Let other processes show the proof, unless another one has its location; say whether they do.

        The proof of an order replaces it at any time: a test never blocks an order.
        """
        written = self.storage.swap(self._stored_key(proof), None, self._record_of(proof), ttl=_CHALLENGE_TTL)
        if not written:
            self._proof_records.pop(proof, None)
        return written

    def delete_proof(self, proof: Proof) -> None:
        """Stop showing it; another proof that was stored at its location meanwhile stays."""
        key = proof_key(proof)
        if self._own_proofs.get(key) is proof:
            del self._own_proofs[key]
        self.storage.swap(self._stored_key(proof), self._proof_records.pop(proof, b""), None)

    def _stored_key(self, proof: Proof) -> str:
        key = proof_key(proof)
        return self._cipher.sign_key(key) if proof.type in TXT_TYPES else key

    def _record_of(self, proof: Proof) -> bytes:
        """Return the record, and remember it: sealing the same proof again gives another record."""
        record = self._proof_records[proof] = self._cipher.seal(self._stored_key(proof), proof.value.encode())
        return record

    def local_proof(self, type: str, location: str) -> str | None:
        """Return the proof of one of this node's own challenges, without reading storage."""
        proof = self._own_proofs.get(challenge_key(type, location))
        return proof.value if proof is not None else None

    def txt_records(self) -> set[tuple[str, str]]:
        """Return name and value of every TXT record that should be in DNS, for any node's order."""
        prefix = TXT_RECORDS_PREFIX
        keys = filter(None, map(self._cipher.verify_key, self.storage.keys(prefix, limit=_RECORDS)))
        found = (key.removeprefix(prefix).partition("~") for key in keys)
        return {(name, value) for name, _, value in found if len(value) <= _LONGEST_TXT}

    def local_txt_records(self) -> set[tuple[str, str]]:
        """Return those of this node's own orders, without reading storage."""
        own = tuple(self._own_proofs.values())
        return {(proof.location, proof.value) for proof in own if proof.type in TXT_TYPES}

    def proofs(self, wanted: Set[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """Return the wanted proofs, by type and location, that any node has stored.

        The number of calls depends on the pending challenges, not on how many are wanted.
        """
        listed = wanted if len(wanted) <= _FEW else wanted & self._pending({type for type, _ in wanted})
        read = {what: self.proof(*what) for what in listed}
        return {what: value for what, value in read.items() if value is not None}

    def _pending(self, types: Set[str]) -> set[tuple[str, str]]:
        """Return type and location of the pending challenges of some types, of any node."""
        prefixes = {type: challenge_prefix(type) for type in types}
        return {
            (type, key.removeprefix(prefix))
            for type, prefix in prefixes.items()
            for key in self.storage.keys(prefix, limit=_RECORDS)
        }

    def proof(self, type: str, location: str) -> str | None:
        """Return the proof of a challenge of any node; None if there is none.

        With a storage key, a proof that is not sealed is not shown: a CA would take a stranger's order for ours.
        """
        key = challenge_key(type, location)
        try:
            record = self.storage.get(key)
            return self._cipher.open(key, record).decode("ascii", "replace") if record is not None else None
        except StorageCorrupt:
            return None
        except (RecordRefused, CertificateError) as error:
            # Logged once for all challenges: a forger may write any number of such records.
            self._warnings.warn_once("challenges/", None, "a challenge is not answered: %s", error)
            return None

    def backoff(self, subject: str) -> Backoff | None:
        """Return the backoff of a name, of a CA (its directory URL), or of a name at one CA (``name_scope``)."""
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
        """Return up to ``limit`` active backoffs by scope: a name, ``key_part`` of a CA's URL, or ``name_scope``.

        A ``known`` backoff is not read again before it ends.
        """
        prefix = BACKOFFS_PREFIX
        scopes = [key.removeprefix(prefix) for key in self.storage.keys(prefix, limit=limit)]
        read = {s: known[s] if s in known and known[s].until > now else self.backoff(s) for s in scopes}
        return {scope: backoff for scope, backoff in read.items() if backoff is not None and backoff.until > now}
