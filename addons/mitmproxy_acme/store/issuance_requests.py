"""Requests: what data nodes ask of control nodes, through the storage that both share.

    requests/ID   a data node wants this certificate; "person" where a person says that it is to be tried now
    refusals/ID   why it cannot be had, for some seconds (a ``Backoff``)

Where there is a storage key a request is signed (``RecordCipher.sign_key``), and what a node says in one is sealed.
This module knows these records; it must not know what a node does about them. A certificate itself travels under its
own key, as ever.
"""

from acme_storage import Storage, StorageCorrupt

from ..core.backoff import Backoff
from ..core.errors import CertificateError, DecryptionFailed, RecordRefused
from ..core.names import ServerName
from .encryption import RecordCipher
from .keys import refusal_key, request_key, request_prefix

# How often a control node looks for requests (seconds).
LOOK_EVERY = 0.3
_ASKED_FOR = 30.0
_FOR_VISITOR, _FOR_PERSON = b"", b"person"
_MOST_AT_ONCE = 1_000
_UNSIGNED = "the request is not signed by the control node's acme_storage_key; give all nodes the same"


class IssuanceRequests:
    """The requests in one storage. Every method blocks, is safe from any thread, and raises ``StorageError``."""

    def __init__(self, storage: Storage, sealing: RecordCipher) -> None:
        self._storage = storage
        self._sealing = sealing

    # What a data node does

    def ask(self, id: ServerName, for_person: bool = False) -> Backoff | None:
        """Ask for a certificate unless somebody has; return the refusal where there is one already.

        For a person no refusal counts, and what others have asked is asked anew. Raises ``DecryptionFailed`` if a
        control node has sealed its refusal with a key that this node lacks.
        """
        key = self._sealing.sign_key(request_key(id))
        if for_person:
            self._storage.delete(refusal_key(id))
            self._storage.put(key, self._sealing.seal(key, _FOR_PERSON), ttl=_ASKED_FOR)
            return None
        if (refusal := self._refusal(id)) is not None:
            return refusal
        self._storage.swap(key, None, _FOR_VISITOR, ttl=_ASKED_FOR)
        return None

    def _refusal(self, id: ServerName) -> Backoff | None:
        key = refusal_key(id)
        try:
            record = self._storage.get(key)
            return Backoff.from_record(self._sealing.open(key, record)) if record is not None else None
        except DecryptionFailed:
            raise
        except (StorageCorrupt, RecordRefused, CertificateError):  # no control node wrote it
            return None

    # What a control node does

    def pending(self, now: float) -> list[ServerName]:
        """Return what is asked for and not answered yet, some of it where it is much.

        What is not signed by a key of this node is refused: it is forged, or its node lacks that key and is told so.
        """
        keys = self._storage.keys(request_prefix(), limit=_MOST_AT_ONCE)
        signed = {key: self._sealing.verify_key(key) for key in keys}
        for key in [key for key, verified in signed.items() if verified is None]:
            self._refuse_unsigned(key, now)
        return [ServerName(key.removeprefix(request_prefix())) for key in signed.values() if key is not None]

    def _refuse_unsigned(self, key: str, now: float) -> None:
        id = ServerName(key.removeprefix(request_prefix()).partition("~")[0])
        self.refuse(id, Backoff(1, now + _ASKED_FOR, _UNSIGNED), _ASKED_FOR, for_person=False)
        self._storage.delete(key)

    def is_for_person(self, id: ServerName) -> bool:
        """Say whether a person waits for what is asked for."""
        return any(map(self._says_person, self._sealing.signed_keys(request_key(id))))

    def _says_person(self, key: str) -> bool:
        try:
            record = self._storage.get(key)
            return record is not None and self._sealing.open(key, record) == _FOR_PERSON
        except (StorageCorrupt, RecordRefused, CertificateError):
            return False

    def fulfil(self, id: ServerName) -> None:
        """The certificate is stored, or refused: nobody need ask for it any more."""
        for key in self._sealing.signed_keys(request_key(id)):
            self._storage.delete(key)

    def refuse(self, id: ServerName, refusal: Backoff, seconds: float, *, for_person: bool) -> None:
        """Say for so long why it cannot be had; not where a person has come to ask since: that is answered next."""
        if not for_person and self.is_for_person(id):
            return
        key = refusal_key(id)
        self._storage.put(key, self._sealing.seal(key, refusal.to_record()), ttl=seconds)
        self.fulfil(id)
