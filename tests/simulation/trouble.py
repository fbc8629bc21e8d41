"""How faults are made and healed, and what each of them excuses.

Knows the parts of a run and kinds of faults; must not know when a fault comes (``scenario``), or what must hold.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from acme_storage import StorageError
from mitmproxy_acme.core.errors import AcmeError
from mitmproxy_acme.core.names import ServerName

from .ca import CaModel
from .faults import Fault, FaultKind
from .invariants import Invariants
from .node import SimulatedNode
from .storage import StorageModel

_STORAGE_FAULTS = (
    FaultKind.STORAGE_DOWN,
    FaultKind.STORAGE_LOSES,
    FaultKind.PARTITION,
    FaultKind.STORAGE_SLOW,
    FaultKind.STORAGE_FLAKY,
    FaultKind.PAUSE,  # a node that is paused has none
)
# Seconds. After a longer failure of a name, or of all CAs, the next attempt may come after the end of the run.
_LONG = 200.0


class Trouble:
    """Makes faults. ``names`` and ``nodes`` are those that the faults count."""

    def __init__(
        self,
        nodes: Sequence[SimulatedNode],
        names: Sequence[str],
        storage: StorageModel,
        cas: Sequence[CaModel],
        invariants: Invariants,
        true_time: Callable[[], float],
        trace: "hashlib._Hash",
    ) -> None:
        self._nodes, self._names = nodes, names
        self._storage, self._cas = storage, cas
        self._invariants = invariants
        self._true_time = true_time
        self._trace = trace
        self._active: list[Fault] = []
        self._usual: dict[tuple[int, str], Any] = {}
        self._all_down_since: float | None = None

    def note(self) -> None:
        """Tell the invariants which faults are active now."""
        now, invariants = self._true_time(), self._invariants
        kinds = {fault.kind for fault in self._active}
        invariants.clock_is_wrong = FaultKind.CLOCK_JUMP in kinds
        invariants.crashes = FaultKind.CRASH in kinds
        if invariants.clock_is_wrong:
            invariants.clock_trouble_at = now
        if not any(ca.is_well for ca in self._cas):
            invariants.outage_at = now
        if any(self._is_trouble(fault) for fault in self._active):
            invariants.trouble_at = now
        if kinds.intersection(_STORAGE_FAULTS):
            invariants.storage_trouble_at = now
        if invariants.clock_is_wrong or not all(ca.is_well for ca in self._cas):
            invariants.windows_are_known = False
        self._note_outage(now)

    def _is_trouble(self, fault: Fault) -> bool:
        """Say whether a fault excuses anything: not that of one CA while another works."""
        if fault.kind not in (FaultKind.CA_DOWN, FaultKind.CA_SLOW, FaultKind.CA_MISDELIVERS):
            return True
        return not any(ca.is_well for ca in self._cas)

    def _note_outage(self, now: float) -> None:
        if not all(ca.down or ca.misdelivery for ca in self._cas):
            self._all_down_since = None
            return
        self._all_down_since = self._all_down_since or now
        if now - self._all_down_since > _LONG:
            self._invariants.may_expire |= set(self._names)

    async def make(self, fault: Fault) -> None:
        """Wait until it begins, bring it about, and heal it."""
        await asyncio.sleep(fault.at)
        self._trace.update(str(fault).encode())
        self._active.append(fault)
        self.note()
        if fault.kind in (*_STORAGE_FAULTS, FaultKind.CRASH, FaultKind.CLOCK_JUMP):
            self._invariants.limits_excused = True
        if fault.seconds > _LONG and fault.kind is FaultKind.NAME_FAILS:
            self._invariants.may_expire.add(self._names[fault.name])
        try:
            await self._apply(fault)
        finally:
            self.note()
            self._active.remove(fault)

    async def _apply(self, fault: Fault) -> None:
        node, name, ca = self._nodes[fault.node], self._names[fault.name], self._cas[fault.ca]
        match fault.kind:
            case FaultKind.STORAGE_DOWN:
                await self._set(fault, self._storage, "down", True)
            case FaultKind.STORAGE_LOSES:
                await self._lose(fault)
            case FaultKind.PARTITION:
                self._storage.unreachable_for[fault.node] += 1
                await asyncio.sleep(fault.seconds)
                self._storage.unreachable_for[fault.node] -= 1
            case FaultKind.STORAGE_SLOW:
                await self._set(fault, self._storage, "latency", 0.5 * abs(fault.amount))
            case FaultKind.STORAGE_FLAKY:
                await self._set(fault, self._storage, "flaky", 0.3 * abs(fault.amount))
            case FaultKind.CA_DOWN:
                await self._set(fault, ca, "down", True)
            case FaultKind.CA_SLOW:
                await self._set(fault, ca, "latency", 20.0 * abs(fault.amount))
            case FaultKind.CA_MISDELIVERS:
                await self._set(fault, ca, "misdelivery", fault.amount)
            case FaultKind.NAME_FAILS:
                await self._fail(fault, name)
            case FaultKind.CRASH:
                await self._crash(node, fault.seconds)
            case FaultKind.PAUSE:
                node.pause(fault.seconds)
                await asyncio.sleep(fault.seconds)
            case FaultKind.CLOCK_JUMP:
                await self._jump(node, fault)
            case FaultKind.REVOCATION:
                self._call_for(name)
            case _:
                await self._ask_as_person(self._ordering(node), name, fault.kind)

    async def _lose(self, fault: Fault) -> None:
        """Restart the storage for at least five seconds; it comes back empty, or as it was up to a minute before."""
        older = 60.0 * fault.amount if fault.amount > 0 else None
        copy = self._storage.copy_of(self._true_time() - older) if older is not None else None
        self._storage.restarts += 1
        await asyncio.sleep(max(fault.seconds, 5.0))
        self._storage.lose(copy)
        self._storage.restarts -= 1
        self._invariants.values_lost(self._storage.memory)

    async def _fail(self, fault: Fault, name: str) -> None:
        """A name that cannot be validated cannot be so anywhere."""
        for ca in self._cas:
            ca.failing.add(name)
        await asyncio.sleep(fault.seconds)
        for ca in self._cas:
            ca.failing.discard(name)

    def _call_for(self, name: str) -> None:
        if (stored := self._invariants.stored.get(name)) is not None:
            for ca in self._cas:
                ca.called_for.add(stored.fingerprint)
            self._invariants.may_be_ordered.add(name)

    def _ordering(self, node: SimulatedNode) -> SimulatedNode:
        """Return the node, or for a data node, which refuses what a person asks, the first that orders."""
        return node if node.orders else next(other for other in self._nodes if other.orders)

    async def _jump(self, node: SimulatedNode, fault: Fault) -> None:
        """Ahead or behind by up to an hour, or by days; then the clock is set right, and the process goes on."""
        error = 3_600.0 * fault.amount if fault.seconds > 60.0 else 86_400.0 * 100 * fault.amount
        await self._set(fault, node, "clock_error", error)

    async def _set(self, fault: Fault, part: Any, attribute: str, value: object) -> None:
        """Give a part another value for as long as the fault lasts; of two faults of one kind the last one counts."""
        usual = self._usual.setdefault((id(part), attribute), getattr(part, attribute))
        setattr(part, attribute, value)
        await asyncio.sleep(fault.seconds)
        setattr(part, attribute, usual)

    async def _crash(self, node: SimulatedNode, seconds: float) -> None:
        node.crashes_at_next_call = True
        await asyncio.sleep(5.0)
        if node.crashes_at_next_call:
            node.crash()
        await asyncio.sleep(seconds)
        if node.manager is None:
            node.start()

    async def _ask_as_person(self, node: SimulatedNode, name: str, kind: FaultKind) -> None:
        manager = node.manager
        if manager is None:
            return
        id, subject = ServerName(name), manager.config.subject(ServerName(name))
        assert subject is not None

        self._invariants.may_be_ordered.add(name)

        async def ask() -> None:
            with contextlib.suppress(AcmeError, StorageError):
                match kind:
                    case FaultKind.PERSON_RENEWS:
                        await manager.renew(subject)
                    case FaultKind.PERSON_REVOKES:
                        self._invariants.may_be_deleted.add(id)
                        await manager.revoke(id, "superseded")
                    case FaultKind.PERSON_DELETES:
                        self._invariants.may_be_deleted.add(id)
                        await manager.delete(id)

        await asyncio.wait([node.spawn(ask)], timeout=120.0)
