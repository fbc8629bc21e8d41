"""Requests: what data nodes ask of control nodes, through the storage that both share.

    requests/ID   a data node wants this certificate; "person" where a person says that it is to be tried now
    refusals/ID   why it cannot be had, for some seconds (a ``Backoff``)

This module knows these records; it must not know what a node does about them. A certificate itself travels under its
own key, as ever.
"""

from acme_storage import Storage, StorageCorrupt

from ..backoff import Backoff
from ..names import ServerName
from .places import refusal_key, request_key, request_prefix

# How often a control node looks for requests (seconds).
LOOK_EVERY = 0.3
_ASKED_FOR = 30.0
_FOR_VISITOR, _FOR_PERSON = b"", b"person"
_MOST_AT_ONCE = 1_000


class Requests:
    """The requests in one storage. Every method blocks, is safe from any thread, and raises ``StorageError``."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    # What a data node does

    def ask(self, id: ServerName, for_person: bool = False) -> Backoff | None:
        """Ask for a certificate unless somebody has; return the refusal where there is one already.

        For a person no refusal counts, and what others have asked is asked anew.
        """
        if for_person:
            self._storage.delete(refusal_key(id))
            self._storage.put(request_key(id), _FOR_PERSON, ttl=_ASKED_FOR)
            return None
        try:
            record = self._storage.get(refusal_key(id))
        except StorageCorrupt:
            record = None
        if record is not None and (refusal := Backoff.from_record(record)) is not None:
            return refusal
        self._storage.swap(request_key(id), None, _FOR_VISITOR, ttl=_ASKED_FOR)
        return None

    # What a control node does

    def pending(self) -> list[ServerName]:
        """Return what is asked for and not answered yet, some of it where it is much."""
        keys = self._storage.keys(request_prefix(), limit=_MOST_AT_ONCE)
        return [ServerName(key.removeprefix(request_prefix())) for key in keys]

    def is_for_person(self, id: ServerName) -> bool:
        """Say whether a person waits for what is asked for."""
        try:
            return self._storage.get(request_key(id)) == _FOR_PERSON
        except StorageCorrupt:
            return False

    def fulfil(self, id: ServerName) -> None:
        """The certificate is stored."""
        self._storage.delete(request_key(id))

    def refuse(self, id: ServerName, refusal: Backoff, seconds: float, *, for_person: bool) -> None:
        """Say for so long why it cannot be had; not where a person has come to ask since: that is answered next."""
        if not for_person and self.is_for_person(id):
            return
        self._storage.put(refusal_key(id), refusal.to_record(), ttl=seconds)
        self._storage.delete(request_key(id))
