"""Requests of data nodes to control nodes, through the storage that they share.

    requests/ID   a data node wants this certificate; "person" if a person asks to try it now
    refusals/ID   why it cannot be obtained, for some seconds (a ``Backoff``)

With a storage key, requests are signed (``RecordCipher.sign_key``), and their content is sealed. This module knows
these records; it must not know what a node does about them. The certificate itself is stored under its own key, as
always.
"""

from dataclasses import dataclass

from acme_storage import Storage, StorageCorrupt

from ..core.backoff import Backoff
from ..core.errors import CertificateError, DecryptionFailed, RecordRefused
from ..core.names import ServerName
from .encryption import RecordCipher
from .keys import REQUESTS_PREFIX, refusal_key, request_key

# How often a control node reads requests (seconds).
READ_EVERY = 0.3
# Seconds after which a request without an answer ends.
ASKED_FOR = 30.0
_FOR_VISITOR, _FOR_PERSON = b"", b"person"
_MOST_AT_ONCE = 1_000
_UNSIGNED = "the request is not signed with the control node's acme_storage_key; set the same key on all nodes"


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of asking: ``refusal`` if a control node has refused, ``is_new`` if no request was open."""

    refusal: Backoff | None = None
    is_new: bool = False


class IssuanceRequests:
    """The requests in one storage. Every method blocks, is safe from any thread, and raises ``StorageError``."""

    def __init__(self, storage: Storage, cipher: RecordCipher) -> None:
        self._storage = storage
        self._cipher = cipher

    # Methods for data nodes

    def ask(self, id: ServerName, for_person: bool = False) -> Asked:
        """Ask for a certificate unless another node has, or it is refused.

        For a person, earlier refusals do not count, and the request is written again. Raises ``DecryptionFailed`` if a
        control node sealed its refusal with a key that this node lacks.
        """
        key = self._cipher.sign_key(request_key(id))
        if for_person:
            self._storage.delete(refusal_key(id))
            self._storage.put(key, self._cipher.seal(key, _FOR_PERSON), ttl=ASKED_FOR)
            return Asked(is_new=True)
        if (refusal := self._refusal(id)) is not None:
            return Asked(refusal)
        return Asked(is_new=self._storage.swap(key, None, _FOR_VISITOR, ttl=ASKED_FOR))

    def _refusal(self, id: ServerName) -> Backoff | None:
        key = refusal_key(id)
        try:
            record = self._storage.get(key)
            return Backoff.from_record(self._cipher.open(key, record)) if record is not None else None
        except DecryptionFailed:
            raise
        except (StorageCorrupt, RecordRefused, CertificateError):  # not written by a control node
            return None

    # Methods for control nodes

    def pending(self, now: float) -> list[ServerName]:
        """Return the ids of open requests; if there are many, only some of them.

        Requests that are not signed with a key of this node are refused: they are forged, or their node lacks the key
        and is told so.
        """
        keys = self._storage.keys(REQUESTS_PREFIX, limit=_MOST_AT_ONCE)
        signed = {key: self._cipher.verify_key(key) for key in keys}
        for key in [key for key, verified in signed.items() if verified is None]:
            self._refuse_unsigned(key, now)
        return [ServerName(key.removeprefix(REQUESTS_PREFIX)) for key in signed.values() if key is not None]

    def _refuse_unsigned(self, key: str, now: float) -> None:
        id = ServerName(key.removeprefix(REQUESTS_PREFIX).partition("~")[0])
        self.refuse(id, Backoff(1, now + ASKED_FOR, _UNSIGNED), ASKED_FOR, for_person=False)
        self._storage.delete(key)

    def is_for_person(self, id: ServerName) -> bool:
        """Say whether a person waits for the requested certificate."""
        return any(map(self._says_person, self._cipher.signed_keys(request_key(id))))

    def _says_person(self, key: str) -> bool:
        try:
            record = self._storage.get(key)
            return record is not None and self._cipher.open(key, record) == _FOR_PERSON
        except (StorageCorrupt, RecordRefused, CertificateError):
            return False

    def fulfil(self, id: ServerName) -> None:
        """Remove the request: the certificate is stored, or refused."""
        for key in self._cipher.signed_keys(request_key(id)):
            self._storage.delete(key)

    def refuse(self, id: ServerName, refusal: Backoff, seconds: float, *, for_person: bool) -> None:
        """Publish for ``seconds`` why it cannot be obtained; not if a person has asked since: that comes next."""
        if not for_person and self.is_for_person(id):
            return
        key = refusal_key(id)
        self._storage.put(key, self._cipher.seal(key, refusal.to_record()), ttl=seconds)
        self.fulfil(id)
