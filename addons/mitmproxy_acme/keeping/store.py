"""The store as the addon sees it: certificates, accounts, challenges and backoffs instead of bytes.

This module spells every storage key; it must not know which database lies beneath, nor decide anything.
"""

import hashlib
import logging
from dataclasses import dataclass
from urllib.parse import urlsplit

from acme_storage import Storage, StorageCorrupt

from ..account import Account
from ..backoff import Backoff
from ..certificate import Certificate
from ..errors import CertificateError
from ..names import ServerName

logger = logging.getLogger(__name__)

# Longer than any CA takes to validate; what a killed process leaves behind is gone after it.
_CHALLENGE_TTL = 3_600.0
# A name that is left alone this long after its last failure begins anew.
_BACKOFF_MEMORY = 30 * 86_400.0
_BROKEN = 1_000


@dataclass(frozen=True, slots=True)
class Slot:
    """What lies under a certificate's key: the certificate, where it can be read, and what a write replaces.

    ``record`` None with ``corrupt`` means that the adapter itself cannot read it.
    """

    certificate: Certificate | None
    record: bytes | None
    corrupt: bool = False


class Store:
    """A typed view of one storage. Every method blocks, is safe from any thread, and raises ``StorageError``."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._published: dict[str, str] = {}
        self._broken: dict[ServerName, int] = {}

    def slot(self, id: ServerName) -> Slot:
        """Return what is stored for ``id``; a broken record is logged once and counts as none."""
        try:
            record = self.storage.get(_certificate_key(id))
        except StorageCorrupt as error:
            self._complain(id, None, error)
            return Slot(None, None, corrupt=True)
        if record is None:
            return Slot(None, None)
        try:
            return Slot(Certificate.from_record(id, record), record)
        except CertificateError as error:
            self._complain(id, record, error)
            return Slot(None, record)

    def _complain(self, id: ServerName, record: bytes | None, error: Exception) -> None:
        """Log a broken record, once for as long as it lies there."""
        mark = hash(record)
        if self._broken.get(id) == mark:
            return
        if len(self._broken) >= _BROKEN:
            self._broken.clear()
        self._broken[id] = mark
        logger.warning("%s: the stored certificate cannot be used and will be ordered anew: %s", id, error)

    def replace(self, slot: Slot, certificate: Certificate) -> bool:
        """Write ``certificate`` if ``slot`` is still what is there: the fence against a slower writer.

        Returns False when somebody else wrote meanwhile.
        """
        key = _certificate_key(certificate.id)
        if slot.corrupt:
            self.storage.delete(key)
        return self.storage.swap(key, slot.record, certificate.to_record())

    def delete(self, id: ServerName) -> None:
        self.storage.delete(_certificate_key(id))

    def account(self, directory: str) -> Account | None:
        """Return the account at a CA; a broken record is logged and counts as none."""
        try:
            record = self.storage.get(_account_key(directory))
            return Account.from_record(record) if record is not None else None
        except (StorageCorrupt, CertificateError) as error:
            logger.warning("the account at %s cannot be read and will be made anew: %s", directory, error)
            return None

    def claim_account(self, account: Account) -> Account:
        """Keep ``account`` unless another node was first; return the one that is kept, so that there is one key."""
        key = _account_key(account.directory)
        if self.account(account.directory) is None and self.storage.swap(key, None, account.to_record()):
            return account
        kept = self.account(account.directory)
        if kept is not None and kept.key:
            return kept
        self.storage.put(key, account.to_record())  # broken, or an operator's own key that is no longer given
        return account

    def save_account(self, account: Account) -> None:
        self.storage.put(_account_key(account.directory), account.to_record())

    def publish(self, token: str, key_authorization: str) -> None:
        """Let this node, and then every other, answer an http-01 challenge (RFC 8555 section 8.3)."""
        self._published[token] = key_authorization
        self.storage.put(_challenge_key(token), key_authorization.encode(), ttl=_CHALLENGE_TTL)

    def withdraw(self, token: str) -> None:
        self._published.pop(token, None)
        self.storage.delete(_challenge_key(token))

    def published_here(self, token: str) -> str | None:
        """Return what to answer for a challenge of this node's own: no storage, no wait."""
        return self._published.get(token)

    def key_authorization(self, token: str) -> str | None:
        """Return what to answer for ``token``; None where no node waits for it."""
        try:
            value = self.storage.get(_challenge_key(token))
        except StorageCorrupt:
            return None
        return value.decode("ascii", "replace") if value is not None else None

    def backoff(self, subject: str) -> Backoff | None:
        """Return the backoff of a name, or of a CA by its directory URL."""
        try:
            record = self.storage.get(_backoff_key(subject))
        except StorageCorrupt:
            return None
        return Backoff.from_record(record) if record is not None else None

    def save_backoff(self, subject: str, backoff: Backoff) -> None:
        self.storage.put(_backoff_key(subject), backoff.to_record(), ttl=_BACKOFF_MEMORY)

    def forget_backoff(self, subject: str) -> None:
        self.storage.delete(_backoff_key(subject))


def lease_key(what: str) -> str:
    return f"leases/{_part(what)}"


def calendar_prefix() -> str:
    return "calendar/"


def calendar_key(hour: int, id: str) -> str:
    """Return the key of an entry; hours are Unix seconds // 3600, of one width so that keys sort by time."""
    return f"calendar/{hour:08d}/{id}"


def change_prefix() -> str:
    return "changes/"


def change_key(ns: int, node: str, id: str) -> str:
    """Return the key of an announcement; Unix nanoseconds, so that a node's are distinct."""
    return f"changes/{ns}~{node}~{id}"


def changed(key: str) -> tuple[str, ServerName]:
    """Return which node announced a change of what, by the key of the announcement."""
    _, node, id = key.split("~", 2)
    return node, ServerName(id)


def request_prefix() -> str:
    return "requests/"


def request_key(id: str) -> str:
    return f"requests/{id}"


def refusal_key(id: str) -> str:
    return f"refusals/{id}"


def control_prefix() -> str:
    return "control-nodes/"


def control_key(node: str) -> str:
    return f"control-nodes/{node}"


def renewal_info_key(id: str) -> str:
    return f"renewal-info/{id}"


def _certificate_key(id: ServerName) -> str:
    return f"certificates/{id}"


def _account_key(directory: str) -> str:
    return f"accounts/{_part(directory)}"


def _challenge_key(token: str) -> str:
    return f"challenges/http-01/{token}"


def _backoff_key(subject: str) -> str:
    return f"backoffs/{_part(subject)}"


def _part(what: str) -> str:
    """Return one part of a key for a name or a URL: readable, and distinct for distinct URLs."""
    if "://" not in what:
        return what
    digest = hashlib.sha256(what.encode()).hexdigest()[:16]
    return f"{urlsplit(what).hostname or 'ca'}~{digest}"
