"""Usage marks: whether a client has asked for a certificate since it was obtained, on any node.

    usage/ID  one mark per certificate, unused until the first client comes; the next certificate has another

This module knows the marks; it must not know who a client is, or what follows from a mark. A certificate without a mark
(of an earlier release, imported, or written by a node that was killed) counts as used.
"""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self

from acme_storage import Storage, StorageCorrupt

from ..core.names import ServerName
from ..core.renewal import is_time
from .keys import usage_key


class Usage(StrEnum):
    """What is known about a certificate."""

    UNUSED = "unused"
    USED = "used"
    IDLE = "idle"  # it was due while unused, and so was not renewed


@dataclass(frozen=True, slots=True)
class UsageMark:
    """The usage of the certificate that began at ``begun`` (``Certificate.begun``, Unix seconds).

    An idle one has its next check in the renewal schedule at ``check_at``.
    """

    begun: float
    usage: Usage
    check_at: float = 0.0

    def to_record(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_record(cls, record: bytes | None) -> Self | None:
        """Read what ``to_record`` wrote; None for anything else."""
        try:
            fields = json.loads(record or b"")
            mark = cls(float(fields["begun"]), Usage(fields["usage"]), float(fields["check_at"]))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None
        return mark if is_time(mark.begun) and is_time(mark.check_at) else None


class UsageMarks:
    """The marks in one storage. Every method blocks, is safe from any thread, and raises ``StorageError``."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def get(self, id: ServerName) -> UsageMark | None:
        return UsageMark.from_record(self._read(id))

    def is_idle(self, id: ServerName, begun: float) -> bool:
        """Say whether the certificate that began then was passed over, and no client has asked for it since."""
        mark = self.get(id)
        return mark is not None and mark.begun == begun and mark.usage is Usage.IDLE

    def note_obtained(self, id: ServerName, begun: float) -> None:
        """Mark a new certificate as unused, unless it has its mark, or another process writes one."""
        record = self._read(id)
        mark = UsageMark.from_record(record)
        if mark is None or mark.begun != begun:
            self._storage.swap(usage_key(id), record, UsageMark(begun, Usage.UNUSED).to_record())

    def note_used(self, id: ServerName, begun: float) -> UsageMark | None:
        """Mark it as used; writes once per certificate. Returns the mark that said that it was idle.

        A client that was still served the certificate before the marked one counts for the marked one.
        """
        while True:  # some process's swap succeeds in every round
            record = self._read(id)
            mark = UsageMark.from_record(record)
            if mark is not None and mark.usage is Usage.USED and mark.begun >= begun:
                return None
            newest = max(begun, mark.begun) if mark is not None else begun
            if self._storage.swap(usage_key(id), record, UsageMark(newest, Usage.USED).to_record()):
                return mark if mark is not None and mark.usage is Usage.IDLE and mark.begun >= begun else None

    def pass_over(self, id: ServerName, begun: float, check_at: float) -> bool:
        """Mark an unused certificate as idle; False if it is used, or as far as is known may be."""
        record = self._read(id)
        mark = UsageMark.from_record(record)
        if mark is None or mark.begun != begun or mark.usage is Usage.USED:
            return False
        if mark.usage is Usage.IDLE:
            return True
        return self._storage.swap(usage_key(id), record, UsageMark(begun, Usage.IDLE, check_at).to_record())

    def delete(self, id: ServerName) -> None:
        self._storage.delete(usage_key(id))

    def _read(self, id: ServerName) -> bytes | None:
        try:
            return self._storage.get(usage_key(id))
        except StorageCorrupt:
            self._storage.delete(usage_key(id))  # otherwise no swap would ever succeed
            return None
