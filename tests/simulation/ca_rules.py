"""What must hold for the CAs: who asks them, in which order, and when a name is rehearsed first.

Knows the modelled CAs, roles, and what failed; must not know what is stored or served.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .ca import CaModel

# Seconds for which a whole CA may back off: ten minutes, and a tenth. And those of one attempt.
_BACKOFF = 660.0 + 60.0
# The keys that a data node may not write, or not even read (docs/how-to/data-nodes.md).
_NOT_READ = ("accounts/", "compromised/", "leases/", "budgets/", "expired/", "housekeeping/")
_NOT_WRITTEN = (*_NOT_READ, "certificates/", "backoffs/", "challenges/", "renewal-info/")


@dataclass
class CaRules:
    """``require`` raises a ``Violation`` unless its first argument is true."""

    require: Callable[[bool, str], None]
    true_time: Callable[[], float]
    roles: Sequence[str] = ()
    cas: Sequence[CaModel] = ()
    _failed: dict[str, float] = field(default_factory=dict)  # names that could not be validated, and when
    _rehearsed: dict[tuple[int, str], float] = field(default_factory=dict)

    def _is_data(self, node: int) -> bool:
        return bool(self.roles) and self.roles[node] == "data"

    def asked(self, node: int) -> None:
        """A node asks a CA for anything."""
        self.require(not self._is_data(node), f"data nodes never ask a CA: node {node} does")

    def storage_call(self, node: int, call: str, key: str) -> None:
        barred = _NOT_READ if call in ("get", "keys") else _NOT_WRITTEN
        self.require(
            not (self._is_data(node) and key.startswith(barred)),
            f"data nodes have few rights: node {node} calls {call} of {key}",
        )

    def ordered(self, node: int, id: str, number: int, *, fallback_excused: bool, rehearsal_excused: bool) -> None:
        """An order begins at a CA: the preferred one that works, and only after a rehearsal if the name has failed."""
        now = self.true_time()
        for ca in self.cas[:number]:
            self.require(
                now - ca.failed_at < _BACKOFF or fallback_excused,
                f"the preferred CA is asked first: node {node} orders {id} at CA {number}, though CA {ca.number} works",
            )
        failed, rehearsed = self._failed.get(id), self._rehearsed.get((node, id), -1e9)
        has_staging = bool(self.cas) and self.cas[number].has_staging
        self.require(
            failed is None or rehearsed > failed or not has_staging or rehearsal_excused,
            f"what has failed is rehearsed: node {node} orders {id}, which failed {now - (failed or 0):.0f} s ago",
        )

    def rehearsed(self, node: int, id: str) -> None:
        """A rehearsal succeeded, or staging is down."""
        self._rehearsed[node, id] = self.true_time()

    def validation_failed(self, id: str) -> None:
        self._failed[id] = self.true_time()

    def issued(self, id: str) -> None:
        self._failed.pop(id, None)
