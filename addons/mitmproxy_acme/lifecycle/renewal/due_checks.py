"""Due checks: what the renewal schedule lists for now, in parts, and which node checks what.

This module knows the schedule and the lease of a check; it must not know what a check does.
"""

import random
from itertools import islice

from ...config.config import Config
from ...core.renewal import DAY
from ...store.keys import check_scope
from ...store.lease import Lease
from ...store.renewal_schedule import RenewalSchedule, ScheduledCheck
from ...store.store import Store

# Entries that one call reads; the next one goes on behind them. After a week's outage of a CA a fifth of all names may
# be due: as many tasks would take much memory, and what becomes due meanwhile would wait behind all of them.
MOST_READ = 500


class DueChecks:
    """The checks for one node. ``read`` and ``claim`` block and raise ``StorageError``; call ``read`` one at a time."""

    def __init__(self, config: Config, schedule: RenewalSchedule, store: Store, node: str) -> None:
        self._config = config
        self._schedule = schedule
        self._store = store
        self._node = node
        self._after = ""  # the key behind which the next call reads
        # Each node works on a backlog in another order, so that they do not wait for each other's leases.
        self._order = random.Random(node)  # noqa: S311  # keeps no secret

    @property
    def are_more_listed(self) -> bool:
        """Whether the last ``read`` ended before the last entry."""
        return bool(self._after)

    def read(self, now: float, until: float) -> list[ScheduledCheck]:
        """Return what is due, and what becomes due by ``until`` (Unix seconds); of many the next part."""
        listed = self._schedule.due_by(until, after=self._after, over_by=now)
        entries = list(islice(listed, MOST_READ))
        self._after = entries[-1].key if len(entries) == MOST_READ else ""
        entries = self._without_duplicates(entries)
        return self._order.sample(entries, len(entries))

    def _without_duplicates(self, entries: list[ScheduledCheck]) -> list[ScheduledCheck]:
        """Keep the last of a name's entries: two nodes that check at the same moment may move one entry to two minutes.

        Otherwise each of the two could become two again at every check. The last one counts, a minute later.
        """
        last = {entry.id: entry for entry in entries}
        for entry in entries:
            if last[entry.id] is not entry and self._config.subject(entry.id) is not None:
                self._schedule.remove(entry)
        return list(last.values())

    def concern_us(self, entry: ScheduledCheck, now: float) -> bool:
        """Say whether to check an entry: of a name of ours, or one that no node has moved for a day.

        Other names in the same storage belong to proxies with other options, which move their entries themselves.
        """
        return self._config.subject(entry.id) is not None or now - entry.at > DAY

    def claim(self, entry: ScheduledCheck) -> Lease | None:
        """Take the lease of a check; None if another node checks it now, or has done so.

        All nodes see it at the same moment: without a lease each of them would ask the CA for the same window. It is
        not extended: an order has its own lease, and the entry is due again in a later round if this process ends.
        """
        if not self._schedule.is_listed(entry):
            return None
        lease = Lease.acquire(self._store.storage, check_scope(entry.id), self._node)
        if lease is not None and not self._schedule.is_listed(entry):  # another node had it, and is done
            lease.release()
            return None
        return lease
