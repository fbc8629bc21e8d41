"""One run: nodes, a CA, a storage, visitors and faults, all drawn from a seed.

Knows how the parts are put together, and how a fault is made and healed; must not know what must hold (``invariants``).
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any
from unittest import mock

import mitmproxy_acme.lifecycle.cautious_clock as cautious_clock
from acme_storage import StorageError
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.errors import AcmeError
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.rate_limits import Limit, Limits

from .ca import CaModel
from .faults import Fault, FaultKind, draw_faults
from .invariants import Invariants, Violation
from .loop import Deadlock, VirtualLoop
from .node import SimulatedNode, remember_task
from .storage import StorageModel
from .threads import Crashed

EPOCH = 1_800_000_000.0
_HANDSHAKE = 15.0  # seconds for which a visitor is held
# Seconds for which a clock has to go evenly, an hour otherwise: certificates live for minutes here.
_EVEN_FOR = 300.0

_STORAGE_FAULTS = (
    FaultKind.STORAGE_DOWN,
    FaultKind.PARTITION,
    FaultKind.STORAGE_SLOW,
    FaultKind.STORAGE_FLAKY,
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a seed stands for. ``faults`` may be cut; nothing else depends on their number."""

    seed: int
    nodes: int
    managed: int
    on_demand: int
    lifetime: float
    ari: bool
    limits: Limits
    visits_every: float
    until: float  # seconds; faults begin in the first part only
    faults: tuple[Fault, ...]

    @classmethod
    def of(cls, seed: int) -> "Scenario":
        random = Random(f"scenario {seed}")
        nodes, managed, on_demand = random.randint(1, 3), random.randint(1, 3), random.randint(0, 4)
        lifetime = random.choice((900.0, 1_200.0, 1_800.0))
        faulty = random.uniform(300.0, 1.2 * lifetime)
        number = random.choice((0, 1, 2, 4, 8))
        return cls(
            seed,
            nodes,
            managed,
            on_demand,
            lifetime,
            ari=random.random() < 0.5,
            limits=random.choice((Limits(), Limits(orders=Limit(30, 600.0), duplicates=Limit(5, 1_200.0)))),
            visits_every=random.choice((2.0, 5.0, 20.0)),
            until=faulty + 300.0 + 0.6 * lifetime,
            faults=tuple(draw_faults(random, number, faulty, nodes, managed + on_demand)),
        )


@dataclass
class Outcome:
    """How a run ended: with a violation or without; ``trace`` is the same for each run of the same scenario."""

    violation: Violation | None
    trace: str
    at: float
    counts: dict[str, int] = field(default_factory=dict)


def run(scenario: Scenario) -> Outcome:
    """Run one scenario to its end, or to the first violation."""
    loop = VirtualLoop()
    loop.set_task_factory(remember_task)
    loop.set_exception_handler(lambda loop, context: None)  # those of dead processes
    random = Random(f"tokens {scenario.seed}")

    def token(size: int = 32) -> str:
        return random.randbytes(size).hex()

    def unix_time() -> float:
        return EPOCH + loop.time()

    with (
        mock.patch("time.time", unix_time),
        mock.patch("time.monotonic", loop.time),
        mock.patch("secrets.token_hex", token),
        mock.patch.object(cautious_clock, "_PATIENCE", _EVEN_FOR),
    ):
        world = World(scenario, loop)
        with _logged_exceptions(world.invariants):
            try:
                loop.run_until_complete(world.run())
            except Violation as violation:
                world.invariants.found = world.invariants.found or violation
            except Deadlock:
                world.invariants.found = world.invariants.found or Violation("progress: nothing will ever happen")
            at = loop.time()
            world.end()
    asyncio.set_event_loop(None)
    loop.close()
    return Outcome(world.invariants.found, world.trace.hexdigest(), at, world.counts)


@contextlib.contextmanager
def _logged_exceptions(invariants: Invariants) -> Iterator[None]:
    """A traceback in the log is a fault of the code: it is caught there so that the node goes on."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and not isinstance(record.exc_info[1], Violation | Crashed):
                invariants.found = invariants.found or Violation(
                    f"no traceback: {record.getMessage()}: {record.exc_info[1]!r}"
                )
            elif record.exc_info and isinstance(record.exc_info[1], Violation):
                invariants.found = invariants.found or record.exc_info[1]

    logger, handler = logging.getLogger("mitmproxy_acme"), Handler(logging.ERROR)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(min(logging.ERROR, level or logging.ERROR))
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class World:
    """The parts of one run."""

    def __init__(self, scenario: Scenario, loop: VirtualLoop) -> None:
        self.scenario = scenario
        self._loop = loop
        self._random = Random(f"run {scenario.seed}")
        self.trace = hashlib.sha256()
        self.counts: dict[str, int] = {"handshakes": 0}
        self.invariants = Invariants(self._true_time, scenario.lifetime)
        self._storage = StorageModel(self._random, self._true_time)
        self._storage.watch = self._watch
        self._ca = CaModel(
            self._random, self._true_time, scenario.lifetime, scenario.ari, scenario.limits, self.invariants
        )
        self._managed = [f"m{number}.example.test" for number in range(scenario.managed)]
        self._names = self._managed + [f"d{number}.example.test" for number in range(scenario.on_demand)]
        config = Config.from_options(
            {
                "acme_certificates": tuple(self._managed),
                "acme_domains": ("*.example.test",),
                "acme_tos_accepted": True,
                "acme_orders_per_client": "off",
            }
        )
        self._nodes = [
            SimulatedNode(number, config, self._storage, self._ca, self._random, self._true_time)
            for number in range(scenario.nodes)
        ]
        self._active: list[FaultKind] = []
        self._usual: dict[tuple[str, str], Any] = {}
        self._violated = asyncio.Event()

    def _true_time(self) -> float:
        return EPOCH + self._loop.time()

    def _watch(self, node: int, call: str, arguments: tuple[Any, ...], result: object) -> None:
        self._note_active()
        self.trace.update(f"{self._loop.time():.6f} {node} {call} {arguments[0]}\n".encode())
        self.invariants.storage_call(node, call, arguments, result)

    def _note_active(self) -> None:
        """Tell the invariants which faults are active now."""
        self.invariants.clock_is_wrong = FaultKind.CLOCK_JUMP in self._active
        if self._active:
            self.invariants.trouble_at = self._true_time()
            if any(kind in _STORAGE_FAULTS for kind in self._active):
                self.invariants.storage_trouble_at = self._true_time()

    async def run(self) -> None:
        """Let everything happen, and check what must hold at the end."""
        for node in self._nodes:
            node.start()
        helpers = [self._loop.create_task(self._visit()), self._loop.create_task(self._inspect())]
        helpers += [self._loop.create_task(self._make(fault)) for fault in self.scenario.faults]
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.scenario.until):
                    await self._violated.wait()
            self._require_found()
            self._check()
            for helper in helpers:
                if helper.done() and not helper.cancelled() and helper.exception() is not None:
                    raise helper.exception()  # type: ignore[misc]  # it is not None
        finally:
            for helper in helpers:
                helper.cancel()
            self.counts |= {
                "storage calls": self._storage.calls,
                "CA requests": self._ca.requests,
                "orders": self.invariants.orders,
                "certificates": self.invariants.certificates,
            }

    def end(self) -> None:
        """End all processes, and let their tasks end."""
        for node in self._nodes:
            node.crash()
        with contextlib.suppress(Deadlock, Violation):
            self._loop.run_until_complete(asyncio.sleep(0))

    def _require_found(self) -> None:
        if self.invariants.found is not None:
            raise self.invariants.found

    async def _inspect(self) -> None:
        while True:
            await asyncio.sleep(5.0)
            self._note_active()
            with contextlib.suppress(Violation):
                self._check()
            if self.invariants.found is not None:
                self._violated.set()

    def _check(self) -> None:
        """Check what no single step shows. Raises ``Violation``."""
        visits, seconds = self.counts["handshakes"], self._loop.time()
        self.invariants.require_renewed(self._managed)
        self.invariants.require_costs(self._storage.calls, self._ca.requests, seconds, self.scenario.nodes, visits)

    # Visitors

    async def _visit(self) -> None:
        while True:
            await asyncio.sleep(self._random.expovariate(1 / self.scenario.visits_every))
            node = self._random.choice(self._nodes)
            name = self._random.choice(self._names)
            if node.manager is not None:
                self.counts["handshakes"] += 1
                node.spawn(partial(self._handshake, node, name))

    async def _handshake(self, node: SimulatedNode, name: str) -> None:
        manager, number = node.manager, node.number
        if manager is None:
            return
        certificate, reason = manager.cache.get(ServerName(name)), "nothing came"
        if certificate is None:
            try:
                async with asyncio.timeout(_HANDSHAKE):
                    certificate = await manager.certificate_for(ServerName(name), on_demand=True, client="192.0.2.1")
            except (AcmeError, StorageError, TimeoutError) as error:
                reason = f"{type(error).__name__}: {error}"
        self.trace.update(f"{self._loop.time():.6f} {number} served {name} {certificate is not None}\n".encode())
        with contextlib.suppress(Violation):  # it is noted, and ends the run
            if certificate is not None:
                manager.usage.served[certificate.id] = certificate  # as a handshake does
                self.invariants.served(number, name, certificate, clock_is_right=not self._clock_was_wrong(node))
            else:
                self.invariants.not_served(number, name, reason)

    def _clock_was_wrong(self, node: SimulatedNode) -> bool:
        return FaultKind.CLOCK_JUMP in self._active or abs(node.clock_error) > 0

    # Faults

    async def _make(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at)
        self.trace.update(str(fault).encode())
        self._active.append(fault.kind)
        self._note_active()
        if fault.kind in (*_STORAGE_FAULTS, FaultKind.CRASH, FaultKind.CLOCK_JUMP):
            self.invariants.limits_excused = True
        if fault.seconds > 200.0 and fault.kind in (FaultKind.CA_DOWN, FaultKind.NAME_FAILS):
            of_name = {self._names[fault.name]}
            self.invariants.may_expire |= of_name if fault.kind is FaultKind.NAME_FAILS else set(self._names)
        try:
            await self._apply(fault)
        finally:
            self._note_active()
            self._active.remove(fault.kind)

    async def _apply(self, fault: Fault) -> None:
        node, name = self._nodes[fault.node], self._names[fault.name]
        match fault.kind:
            case FaultKind.STORAGE_DOWN:
                await self._set(fault, self._storage, "down", True)
            case FaultKind.PARTITION:
                self._storage.unreachable_for[fault.node] += 1
                await asyncio.sleep(fault.seconds)
                self._storage.unreachable_for[fault.node] -= 1
            case FaultKind.STORAGE_SLOW:
                await self._set(fault, self._storage, "latency", 0.5 * abs(fault.amount))
            case FaultKind.STORAGE_FLAKY:
                await self._set(fault, self._storage, "flaky", 0.3 * abs(fault.amount))
            case FaultKind.CA_DOWN:
                await self._set(fault, self._ca, "down", True)
            case FaultKind.CA_SLOW:
                await self._set(fault, self._ca, "latency", 20.0 * abs(fault.amount))
            case FaultKind.NAME_FAILS:
                self._ca.failing.add(name)
                await asyncio.sleep(fault.seconds)
                self._ca.failing.discard(name)
            case FaultKind.CRASH:
                await self._crash(node, fault.seconds)
            case FaultKind.CLOCK_JUMP:
                await self._jump(node, fault)
            case FaultKind.REVOCATION:
                if (stored := self.invariants.stored.get(name)) is not None:
                    self._ca.called_for.add(stored.fingerprint)
                    self.invariants.may_be_ordered.add(name)
            case _:
                await self._ask_as_person(node, name, fault.kind)

    async def _jump(self, node: SimulatedNode, fault: Fault) -> None:
        """What a node has put off by a clock that was ahead comes when the right clock is there; another node is first.

        Ahead by up to an hour, or by days.
        """
        error = 3_600.0 * fault.amount if fault.seconds > 60.0 else 86_400.0 * 100 * fault.amount
        await self._set(fault, node, "clock_error", error)
        if len(self._nodes) == 1:
            await self._crash(node, 1.0)  # a person who sets the clock of the only node starts it again

    async def _set(self, fault: Fault, part: Any, attribute: str, value: object) -> None:
        """Give a part another value for as long as the fault lasts; of two faults of one kind the last one counts."""
        usual = self._usual.setdefault((type(part).__name__, attribute), getattr(part, attribute))
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

        self.invariants.may_be_ordered.add(name)

        async def ask() -> None:
            with contextlib.suppress(AcmeError, StorageError):
                match kind:
                    case FaultKind.PERSON_RENEWS:
                        await manager.renew(subject)
                    case FaultKind.PERSON_REVOKES:
                        self.invariants.may_be_deleted.add(id)
                        await manager.revoke(id, "superseded")
                    case FaultKind.PERSON_DELETES:
                        self.invariants.may_be_deleted.add(id)
                        await manager.delete(id)

        await asyncio.wait([node.spawn(ask)], timeout=120.0)


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool]) -> Scenario:
    """Return the scenario with as few faults as still fail, one by one and by halves."""
    faults: Sequence[Fault] = scenario.faults
    size = max(len(faults) // 2, 1)
    while faults and size:
        for start in range(0, len(faults), size):
            fewer = (*faults[:start], *faults[start + size :])
            if fails(_with(scenario, fewer)):
                faults = fewer
                break
        else:
            size //= 2
    return _with(scenario, tuple(faults))


def _with(scenario: Scenario, faults: Sequence[Fault]) -> Scenario:
    return replace(scenario, faults=tuple(faults))
