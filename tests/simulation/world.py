"""One run: nodes, CAs, a storage, visitors and faults, all drawn from a seed.

Knows how the parts are put together; must not know how a fault is made (``trouble``), or what must hold
(``invariants``).
"""

import asyncio
import contextlib
import hashlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any
from unittest import mock

import mitmproxy_acme.lifecycle.cautious_clock as cautious_clock
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.store.keys import certificate_key
from mitmproxy_acme.store.renewal_schedule import RenewalSchedule, ScheduledCheck

from .ca import CaModel
from .cost_rules import require_costs
from .invariants import Invariants, Violation
from .loop import Deadlock, VirtualLoop
from .node import SimulatedNode, remember_task
from .parsing import parsed_once
from .scenario import Scenario
from .storage import StorageModel
from .threads import Crashed
from .trouble import Trouble
from .visitors import Visitors

EPOCH = 1_800_000_000.0
# Seconds for which a clock has to go evenly, an hour otherwise: certificates live for minutes here.
_EVEN_FOR = 300.0
# The part of a profile's lifetime over which the CA's window lies: some minutes, so that it comes in the run.
_PROFILE_WINDOW = 1e-5


@dataclass
class Outcome:
    """How a run ended: with a violation or without; ``trace`` is the same for each run of the same scenario."""

    violation: Violation | None
    trace: str
    at: float
    counts: dict[str, int] = field(default_factory=dict)


def run(scenario: Scenario, until: float = math.inf) -> Outcome:
    """Run one scenario to its end, or to the first violation; and no longer than ``until`` (seconds)."""
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
        parsed_once(),
    ):
        world = World(scenario, loop)
        with _logged_exceptions(world.invariants):
            try:
                loop.run_until_complete(world.run(min(scenario.until, until)))
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
        self.counts: dict[str, int] = {}
        self.invariants = Invariants(self._true_time, scenario.lifetime)
        self._storage = StorageModel(self._random, self._true_time)
        self._storage.watch = self._watch
        self._cas = [self._make_ca(number) for number in range(scenario.cas)]
        self._managed = [f"m{number}.example.test" for number in range(scenario.managed)]
        self._names = self._managed + [f"d{number}.example.test" for number in range(scenario.on_demand)]
        self._nodes = [self._make_node(number, role) for number, role in enumerate(scenario.roles)]
        self.invariants.cas.roles, self.invariants.cas.cas = scenario.roles, self._cas
        self.invariants.losses.holders = self._holders
        self._visitors = Visitors(self._nodes, self._names, self.invariants, self._random, loop.time, self.trace)
        self._trouble = Trouble(
            self._nodes, self._names, self._storage, self._cas, self.invariants, self._true_time, self.trace
        )
        self._violated = asyncio.Event()
        if scenario.is_profile:
            self._store_what_is_due()

    def _make_ca(self, number: int) -> CaModel:
        scenario = self.scenario
        ca = CaModel(
            self._random,
            self._true_time,
            scenario.lifetime,
            scenario.ari,
            scenario.limits,
            self.invariants,
            number=number,
        )
        ca.has_staging = scenario.staging
        if scenario.is_profile:
            ca.window_part = _PROFILE_WINDOW
        return ca

    def _make_node(self, number: int, role: str) -> SimulatedNode:
        options = {
            "acme_certificates": tuple(self._managed),
            "acme_domains": ("*.example.test",),
            "acme_tos_accepted": True,
            "acme_orders_per_client": "off",
            "acme_role": role,
        }
        config = Config.from_options(options)
        return SimulatedNode(number, config, self._storage, self._cas, self._random, self._true_time)

    def _store_what_is_due(self) -> None:
        """Store certificates that were issued long ago and become due in the run, as their nodes left them.

        The clocks of some of those nodes were ahead: by them the certificate was obtained in the future.
        """
        schedule, ca = RenewalSchedule(self._storage.memory), self._cas[0]
        clocks, lifetime = Random(f"clocks {self.scenario.seed}"), self.scenario.lifetime
        for name in self._names:
            if name not in self._managed and self._random.random() < 0.5:
                continue
            due = EPOCH + self._random.uniform(0.1, 0.5) * self.scenario.until
            issued_at = due - self.invariants.due_after(self.scenario.ari)
            certificate = ca.sign(Subject((ServerName(name),)), at=issued_at)
            if clocks.random() < 0.3:
                certificate = replace(certificate, obtained=issued_at + lifetime * clocks.uniform(0.7, 0.95))
            self._storage.memory.put(certificate_key(certificate.id), certificate.to_record())
            schedule.add(ScheduledCheck(certificate.id, self._random.uniform(EPOCH, due)))
            self.invariants.stored[name] = certificate

    def _holders(self, id: str, certificate: Certificate) -> list[int]:
        """Return the nodes that order, and have it in memory."""
        return [
            node.number
            for node in self._nodes
            if node.orders
            and node.manager is not None
            and (held := node.manager.cache.held().get(ServerName(id))) is not None
            and held.fingerprint == certificate.fingerprint
        ]

    def _true_time(self) -> float:
        return EPOCH + self._loop.time()

    def _watch(self, node: int, call: str, arguments: tuple[Any, ...], result: object) -> None:
        self._trouble.note()
        self.trace.update(f"{self._loop.time():.6f} {node} {call} {arguments[0]}\n".encode())
        self.invariants.storage_call(node, call, arguments, result)

    async def run(self, until: float) -> None:
        """Let everything happen until then (seconds), and check what must hold at the end."""
        for node in self._nodes:
            node.start()
        helpers = [self._loop.create_task(self._visitors.come(self.scenario.visits_every))]
        helpers.append(self._loop.create_task(self._inspect()))
        helpers += [self._loop.create_task(self._trouble.make(fault)) for fault in self.scenario.faults]
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(until):
                    await self._violated.wait()
            self._require_found()
            self._check()
            for helper in helpers:
                if helper.done() and not helper.cancelled() and helper.exception() is not None:
                    raise helper.exception()  # type: ignore[misc]  # it is not None
        finally:
            for helper in helpers:
                helper.cancel()
            self.counts = {
                "handshakes": self._visitors.count,
                "storage calls": self._storage.calls,
                "CA requests": self._requests,
                "orders": self.invariants.orders,
                "certificates": self.invariants.certificates,
            }

    @property
    def _requests(self) -> int:
        return sum(ca.requests for ca in self._cas)

    def end(self) -> None:
        """End all processes, and let their tasks end."""
        self._loop.resume_all()
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
            self._trouble.note()
            self._storage.remember()
            with contextlib.suppress(Violation):
                self._check()
            if self.invariants.found is not None:
                self._violated.set()

    def _check(self) -> None:
        """Check what no single step shows. Raises ``Violation``."""
        scenario, seconds = self.scenario, self._loop.time()
        self.invariants.require_renewed(self._managed)
        if scenario.is_profile:
            self.invariants.require_due_renewed(self._managed, scenario.ari)
        require_costs(
            self.invariants.require,
            self._storage.calls,
            self._requests,
            seconds,
            scenario.roles,
            scenario.cas,
            self._visitors.count,
        )
