"""Leases: who may order now, among threads, processes and nodes.

This module knows ``swap`` and time to live; it must not know what is done under a lease. A lease is never held over
a backoff, and it is freed by its owner alone: a value that is not mine is not swapped away.
"""

import secrets
from dataclasses import dataclass
from typing import Self

from acme_storage import Storage

from .keys import lease_key

# Short, because a killed owner blocks its name for so long, and a held handshake (15 s) should outlive that;
# long enough that three extensions may be late.
LEASE_TTL = 10.0
EXTEND_EVERY = 2.5


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to order for one subject, for ``LEASE_TTL`` seconds from the last extension. Every method blocks."""

    storage: Storage
    key: str
    owner: bytes

    @classmethod
    def acquire(cls, storage: Storage, what: str, node: str) -> Self | None:
        """Take the lease, or return None while somebody else has it. Raises ``StorageError``.

        Whoever acquires it must look again whether the work is still needed.
        """
        lease = cls(storage, lease_key(what), f"{node} {secrets.token_hex(8)}".encode())
        return lease if storage.swap(lease.key, None, lease.owner, ttl=LEASE_TTL) else None

    def extend(self) -> bool:
        """Hold it for another ``LEASE_TTL`` seconds; False when it was lost."""
        return self.storage.swap(self.key, self.owner, self.owner, ttl=LEASE_TTL)

    def release(self) -> None:
        """Free it, if it is still mine."""
        self.storage.swap(self.key, self.owner, None)
