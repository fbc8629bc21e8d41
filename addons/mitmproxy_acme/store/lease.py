"""Leases: which thread, process or node may order now.

This module knows ``swap`` and time to live; it must not know what is done under a lease. A lease is never held during a
backoff, and only its owner frees it: ``swap`` does not remove another owner's value.
"""

import secrets
from dataclasses import dataclass
from typing import Self

from acme_storage import Storage

from .keys import lease_key

# Short, because a killed owner blocks its name for so long, and a held handshake (15 s) should outlast that; long
# enough to survive three late extensions.
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
        """Take the lease, or return None while another owner has it. Raises ``StorageError``.

        The new owner must check again whether the work is still needed.
        """
        lease = cls(storage, lease_key(what), f"{node} {secrets.token_hex(8)}".encode())
        return lease if storage.swap(lease.key, None, lease.owner, ttl=LEASE_TTL) else None

    def extend(self) -> bool:
        """Extend it by ``LEASE_TTL`` seconds from now; False if it was lost."""
        return self.storage.swap(self.key, self.owner, self.owner, ttl=LEASE_TTL)

    def release(self) -> None:
        """Free it, if it is still ours."""
        self.storage.swap(self.key, self.owner, None)
