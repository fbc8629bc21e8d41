"""Live through a change of the industry's rules: names, nodes and a CA, from before the change until long after it.

Knows how to put the parts together for months of virtual time; must not know which changes there are
(``industry_calendar``). The arithmetic of what is due when is spelt here again, and not taken from the code.
"""

import asyncio
import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from unittest import mock

from cryptography import x509

from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.rate_limits import Limits

from .ca import CaModel
from .industry_calendar import DAY, HOUR, Change
from .invariants import Invariants, Violation
from .loop import VirtualLoop
from .node import SimulatedNode, remember_task
from .pace import slowed
from .parsing import parsed_once
from .storage import StorageModel

# Visits of each name in a lifetime; the nodes read what is due as often.
_VISITS = 40
# A CA's window lies around the moment when a third of the lifetime is left, or half of a short one.
_WINDOW = 0.01
# Seconds from the end of an outage until a name is tried again: the longest backoff of a whole CA, and a part of the
# hour that is left then.
_TRIED_AGAIN = 15 * 60.0


def margin(lifetime: float) -> float:
    """Return how many seconds before its end a certificate is due."""
    return lifetime / 2 if lifetime < 10 * DAY else lifetime / 3


@dataclass
class CalendarCa(CaModel):
    """Issues by the terms of the day, and validates a name anew when its validation is too old."""

    change: Change | None = None
    validated_at: dict[str, float] = field(default_factory=dict)
    validations: list[tuple[str, float]] = field(default_factory=list)
    issued: list[tuple[float, Certificate]] = field(default_factory=list)

    def authorize(self, subject: Subject) -> None:
        assert self.change is not None
        now = self.true_time()
        for name in subject.names:
            if now - self.validated_at.get(name, 0.0) > self.change.terms(now).reuse:
                self.validated_at[name] = now
                self.validations.append((name, now))

    def subject_name(self, subject: Subject) -> x509.Name:
        assert self.change is not None
        if not self.change.terms(self.true_time()).common_name:
            return x509.Name([])
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject.name)])

    def sign(self, subject: Subject, at: float | None = None) -> Certificate:
        assert self.change is not None
        self.lifetime = self.change.terms(self.true_time()).lifetime
        certificate = super().sign(subject, at)
        self.issued.append((self.true_time(), certificate))
        return certificate

    def window(self, certificate: Certificate) -> tuple[float, float]:
        lifetime = certificate.not_after - certificate.not_before
        ideal = certificate.not_after - margin(lifetime)
        return ideal - _WINDOW * lifetime, ideal + _WINDOW * lifetime


@dataclass(frozen=True, slots=True)
class Course:
    """How a change is lived through. Lifetimes are those after the change; ``outage`` is as long as may be survived."""

    change: Change
    ari: bool
    outage: bool
    names: int = 2
    nodes: int = 2
    lifetimes: float = 3.0
    ask_again: float = DAY  # the CA's Retry-After for windows
    renew_before: str = "auto"  # or 30d


@dataclass
class Lived:
    """What happened: all times are Unix seconds, ``down`` those of the outage."""

    course: Course
    begun: float
    ended: float
    issued: dict[str, list[Certificate]]
    validations: dict[str, list[float]]
    orders: int
    handshakes: int
    down: tuple[float, float] | None
    violation: Violation | None

    def expected(self) -> tuple[int, int]:
        """Return the least and the most certificates of one name that the terms, and the outage, account for."""
        spread = _WINDOW if self.course.ari else 0.0
        return self._count(spread, _TRIED_AGAIN), self._count(-spread, 0.0)

    def _count(self, spread: float, late: float) -> int:
        issued_at, number = self.begun, 0
        while issued_at < self.ended:
            number += 1
            lifetime = self.course.change.terms(issued_at).lifetime
            left = margin(lifetime) if self.course.renew_before == "auto" else min(30 * DAY, lifetime / 2)
            issued_at += lifetime - left + spread * lifetime
            if self.down and self.down[0] <= issued_at < self.down[1]:
                issued_at = self.down[1] + late
        return number

    def fraction_validated(self) -> float:
        """Return the part of the certificates after the change, the first one excepted, that took a validation."""
        at = self.course.change.at
        issued = sum(1 for all in self.issued.values() for one in all if one.not_before > at)
        validated = sum(1 for all in self.validations.values() for moment in all if moment > at)
        return validated / issued


def live_through(course: Course) -> Lived:
    """Run from certificates by the old terms on, which end after the change. The same course is the same run."""
    loop = VirtualLoop()
    loop.set_task_factory(remember_task)
    before = course.change.before.lifetime
    begun = course.change.at - (before - margin(before)) + 0.2 * course.change.after.lifetime
    with virtual_time(loop, begun), parsed_once():
        world = _World(course, loop, begun)
        try:
            with slowed(before / _VISITS / 30.0):
                loop.run_until_complete(world.run_before())
            with slowed(course.change.after.lifetime / _VISITS / 30.0):
                loop.run_until_complete(world.run_after())
        except* Violation as violations:
            world.invariants.found = world.invariants.found or Violation(str(violations.exceptions))
        finally:
            world.end()
    asyncio.set_event_loop(None)
    loop.close()
    return world.lived()


@contextlib.contextmanager
def virtual_time(loop: VirtualLoop, begun: float) -> Iterator[None]:
    random = Random("calendar")

    def token(size: int = 32) -> str:
        return random.randbytes(size).hex()

    def unix_time() -> float:
        return begun + loop.time()

    with (
        mock.patch("time.time", unix_time),
        mock.patch("time.monotonic", loop.time),
        mock.patch("secrets.token_hex", token),
    ):
        yield


class _World:
    def __init__(self, course: Course, loop: VirtualLoop, begun: float) -> None:
        self._course, self._loop, self._begun = course, loop, begun
        random = Random(str(course))
        self._names = [f"m{number}.example.test" for number in range(course.names)]
        self.invariants = Invariants(self._now, course.change.after.lifetime)
        self.invariants.lifetime_may_shrink = True
        self._storage = StorageModel(random, self._now)
        self._storage.watch = self.invariants.storage_call
        if course.nodes == 1:  # no other node's calls come between: a fifth of a run was waits for that (measured)
            self._storage.latency = 0.0
        self._ca = CalendarCa(
            random,
            self._now,
            course.change.before.lifetime,
            course.ari,
            Limits(),
            self.invariants,
            ask_again=course.ask_again,
            change=course.change,
        )
        # The last name is one that visitors brought.
        config = Config.from_options(
            {
                "acme_certificates": tuple(self._names[:-1]),
                "acme_domains": ("*.example.test",),
                "acme_renew_before": course.renew_before,
                "acme_tos_accepted": True,
            }
        )
        self._nodes = [
            SimulatedNode(number, config, self._storage, (self._ca,), random, self._now)
            for number in range(course.nodes)
        ]
        self._handshakes = 0
        self._down: tuple[float, float] | None = None

    def _now(self) -> float:
        return self._begun + self._loop.time()

    @property
    def _end(self) -> float:
        change = self._course.change
        return change.at + self._course.lifetimes * change.after.lifetime

    async def run_before(self) -> None:
        for node in self._nodes:
            node.start()
        await self._visit_until(self._course.change.at, self._course.change.before.lifetime / _VISITS)

    async def run_after(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            if self._course.outage:
                tasks.create_task(self._go_down())
            tasks.create_task(self._visit_until(self._end, self._course.change.after.lifetime / _VISITS))

    async def _visit_until(self, moment: float, every: float) -> None:
        while self._now() < moment:
            for name in self._names:
                await self._visit(self._nodes[self._handshakes % len(self._nodes)], name)
            await asyncio.sleep(every)

    async def _visit(self, node: SimulatedNode, name: str) -> None:
        """Each handshake gets a certificate that is valid now; a managed one needs no visitor."""
        manager = node.manager
        assert manager is not None
        self._handshakes += 1
        id = ServerName(name)
        certificate = manager.cache.get(id) or await manager.certificate_for(id, on_demand=True, client="192.0.2.1")
        assert certificate is not None
        manager.usage.served[certificate.id] = certificate
        # Changes are read too seldom for an old certificate to be gone in seconds; what counts is that it is valid.
        self.invariants.trouble_at = self._now()
        self.invariants.served(node.number, name, certificate, clock_is_right=True)
        self.invariants.trouble_at = -math.inf

    async def _go_down(self) -> None:
        """Take the CA down when a renewal by the new terms is due, until an hour before the first certificate ends."""
        lifetime = self._course.change.after.lifetime
        for _ in range(_VISITS):  # until all are by the new terms
            if all(certificate.not_after - certificate.not_before == lifetime for certificate in self._last()):
                break
            await asyncio.sleep(lifetime / _VISITS)
        begins = min(self._ca.window(certificate)[0] for certificate in self._last())
        await asyncio.sleep(max(begins - self._now(), 0.0))
        begins, ends = self._now(), min(certificate.not_after for certificate in self._last()) - HOUR
        self._down = begins, ends
        self._ca.down = True
        await asyncio.sleep(ends - begins)
        self._ca.down = False

    def _last(self) -> list[Certificate]:
        return list({certificate.id: certificate for _, certificate in self._ca.issued}.values())

    def end(self) -> None:
        for node in self._nodes:
            node.crash()
        self._loop.run_until_complete(asyncio.sleep(0))

    def lived(self) -> Lived:
        issued: dict[str, list[Certificate]] = {name: [] for name in self._names}
        for _, certificate in self._ca.issued:
            issued[certificate.id].append(certificate)
        validations = {name: [at for other, at in self._ca.validations if other == name] for name in self._names}
        return Lived(
            self._course,
            self._begun,
            self._end,
            issued,
            validations,
            self.invariants.orders,
            self._handshakes,
            self._down,
            self.invariants.found,
        )
