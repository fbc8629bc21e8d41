"""Leases: which thread, process or node may order now.

This module knows ``swap`` and time to live; it must not know what is done under a lease. A lease is never held during a
backoff, and only its owner frees it: ``swap`` does not remove another owner's value. The exception is an owner that
was a process of this machine and no longer lives (``core.process_identity``).
"""

import logging
import secrets
from dataclasses import dataclass
from typing import Self

from acme_storage import Storage, StorageCorrupt

from ..core.process_identity import ProcessIdentity
from ..core.structured_logging import fields
from .keys import lease_key

logger = logging.getLogger(__name__)

# Short, because a killed owner blocks its name for so long, and a held handshake (15 s) should outlast that; long
# enough to survive three late extensions.
LEASE_TTL = 10.0
EXTEND_EVERY = 2.5
# Of an owner: node, token, process.
_WORDS = 3


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to order for one subject, for ``LEASE_TTL`` seconds from the last extension. Every method blocks."""

    storage: Storage
    key: str
    owner: bytes

    @classmethod
    def acquire(cls, storage: Storage, what: str, node: str) -> Self | None:
        """Take the lease, or return None while another owner has it. Raises ``StorageError``.

        The lease of a dead process of this machine is taken over at once. The new owner must check again whether the
        work is still needed.
        """
        lease = cls(storage, lease_key(what), _make_owner(node))
        if storage.swap(lease.key, None, lease.owner, ttl=LEASE_TTL) or lease._take_over():
            return lease
        return None

    def _take_over(self) -> bool:
        """Replace an owner that is dead; of several processes that try, one succeeds."""
        try:
            dead = self.storage.get(self.key)
        except StorageCorrupt:
            return False
        if dead is None or not _has_died(dead) or not self.storage.swap(self.key, dead, self.owner, ttl=LEASE_TTL):
            return False
        logger.info(
            "%s is taken over from a process of this machine that was killed",
            self.key,
            extra=fields("lease_taken_over", key=self.key),
        )
        return True

    def extend(self) -> bool:
        """Extend it by ``LEASE_TTL`` seconds from now; False if it was lost."""
        return self.storage.swap(self.key, self.owner, self.owner, ttl=LEASE_TTL)

    def release(self) -> None:
        """Free it, if it is still ours."""
        self.storage.swap(self.key, self.owner, None)


def _make_owner(node: str) -> bytes:
    """Return a value that no other lease has; its last word names this process, or is a dash where none is known."""
    return f"{node} {secrets.token_hex(8)} {ProcessIdentity.of_this_process() or '-'}".encode()


def _has_died(owner: bytes) -> bool:
    """Say whether an owner was a process that is known to be dead. Earlier releases wrote no process."""
    words = owner.decode("ascii", "replace").split(" ")
    process = ProcessIdentity.parse(words[-1]) if len(words) == _WORDS else None
    return process is not None and process.has_died()
