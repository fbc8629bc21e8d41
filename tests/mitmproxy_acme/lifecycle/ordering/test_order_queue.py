"""Orders begin in order of arrival, a few at a time; one that takes long keeps no other from beginning."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import IssuanceError, IssuerUnavailable
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.lifecycle.ordering.order_queue import OrderQueue
from tests.mitmproxy_acme.fakes import Clock, FakeIssuer, manager_on

_NEVER = 3_600.0


async def _settle() -> None:
    """Let every task run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_order_of_arrival() -> None:
    """Each one that leaves admits the one that has waited longest."""
    queue, entered = OrderQueue[int](2, _NEVER), list[int]()
    places = [queue.place(number) for number in range(5)]

    async def come(number: int) -> None:
        await places[number].enter()
        entered.append(number)

    tasks = [asyncio.get_running_loop().create_task(come(number)) for number in range(5)]
    await _settle()
    assert entered == [0, 1]
    for leaving in range(5):
        places[leaving].leave()
        await _settle()
        assert entered == list(range(min(leaving + 3, 5)))
    await asyncio.gather(*tasks)


async def test_slow_order_is_not_counted() -> None:
    """A slow CA keeps no other order from beginning."""
    queue = OrderQueue[str](1, 0.0)
    with queue.place("a") as slow, queue.place("b") as next_one:
        await slow.enter()
        await next_one.enter()


async def test_place_is_left_once() -> None:
    """A place that is left twice, by the timer too, still counts once."""
    queue = OrderQueue[str](1, _NEVER)
    with queue.place("a") as place:
        await place.enter()
        place.leave()
        place.leave()
    first, second = queue.place("b"), queue.place("c")
    await first.enter()
    waiting = asyncio.get_running_loop().create_task(second.enter())
    await _settle()
    assert not waiting.done()
    first.leave()
    await waiting
    second.leave()


async def _order(queue: OrderQueue[str], key: str, entered: list[str]) -> None:
    """Note the key when its turn comes, and leave at once."""
    with queue.place(key) as place:
        await place.enter()
        entered.append(key)


async def test_place_is_left_when_the_one_who_waits_gives_up() -> None:
    """A cancelled order frees its place."""
    queue = OrderQueue[str](1, _NEVER)
    with queue.place("a") as place:
        await place.enter()
        waiting = asyncio.get_running_loop().create_task(queue.place("b").enter())
        await _settle()
        waiting.cancel()
        await _settle()
    with queue.place("b") as other:
        await other.enter()


async def test_order_that_gave_up_and_comes_again_waits_behind_the_others() -> None:
    """Its earlier place is gone."""
    queue, entered = OrderQueue[str](1, _NEVER), list[str]()

    with queue.place("first") as first:
        await first.enter()
        gives_up, waits = (asyncio.get_running_loop().create_task(_order(queue, key, entered)) for key in "ab")
        await _settle()
        gives_up.cancel()
        await _settle()
        again = asyncio.get_running_loop().create_task(_order(queue, "a", entered))
        await _settle()
    await asyncio.gather(waits, again)
    assert entered == ["b", "a"]


async def test_turn_that_comes_as_the_one_who_waits_gives_up_is_passed_on() -> None:
    queue = OrderQueue[str](1, _NEVER)
    place, third = queue.place("a"), queue.place("c")
    await place.enter()
    second, last = (asyncio.get_running_loop().create_task(waiting.enter()) for waiting in (queue.place("b"), third))
    await _settle()
    place.leave()
    second.cancel()
    await last
    assert second.cancelled()
    third.leave()


async def test_order_that_is_hurried_begins_next() -> None:
    queue, entered = OrderQueue[str](1, _NEVER), list[str]()

    with queue.place("first") as first:
        await first.enter()
        tasks = [asyncio.get_running_loop().create_task(_order(queue, key, entered)) for key in "abcd"]
        await _settle()
        queue.hurry("c")
        queue.hurry("first")  # it has begun
        queue.hurry("unknown")
    await asyncio.gather(*tasks)
    assert entered == ["c", "a", "b", "d"]


# As many as scripts/bench has found to be best.
_A_FEW = 6


@dataclass
class _Counting(FakeIssuer):
    """Counts what is under way, and the leases that are held meanwhile; its orders wait for ``opened``."""

    memory: Memory | None = None
    under_way: int = 0
    most: int = 0
    leases: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def obtain(self, subject: Subject, replacing: Certificate | None = None) -> Certificate:
        assert self.memory is not None
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.leases = max(self.leases, len(self.memory.keys("leases/")))
        await self.opened.wait()
        self.under_way -= 1
        return await super().obtain(subject, replacing)


async def _until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not reached():  # noqa: ASYNC110  # what is waited for happens in threads
            await asyncio.sleep(0.001)


async def test_burst_of_unknown_names_is_ordered_a_few_at_a_time(clock: Clock, memory: Memory) -> None:
    """A waiting order holds no lease, and the first to arrive is ordered first."""
    issuer = _Counting(clock, memory=memory)
    manager = manager_on(memory, clock, issuer)
    issuer.opened.set()
    names = [ServerName(f"n{number:03}.example.test") for number in range(100)]
    await asyncio.gather(*(manager.certificate_for(name, on_demand=True) for name in names))
    assert len(issuer.orders) == 100
    assert issuer.most <= _A_FEW
    assert issuer.leases <= _A_FEW
    begun = [int(subject.name[1:4]) for subject in issuer.orders]
    in_turn = sum(abs(turn - number) < 20 for turn, number in enumerate(begun))
    assert in_turn > 90  # a thread of the storage may be late with a few
    await manager.close()


async def test_burst_keeps_no_managed_name_waiting(clock: Clock, memory: Memory) -> None:
    """The operator's own names have a queue of their own."""
    issuer = _Counting(clock, memory=memory)
    manager = manager_on(memory, clock, issuer, acme_certificates=("own.example.test",))
    crowd = [
        asyncio.get_running_loop().create_task(
            manager.certificate_for(ServerName(f"n{number}.example.test"), on_demand=True)
        )
        for number in range(50)
    ]
    await _until(lambda: issuer.under_way == _A_FEW)
    own = manager.config.subject(ServerName("own.example.test"))
    assert own is not None
    ordering = asyncio.get_running_loop().create_task(manager.ensure(own))
    await _until(lambda: issuer.under_way == _A_FEW + 1)
    issuer.opened.set()
    await asyncio.gather(ordering, *crowd)
    await manager.close()


async def test_person_does_not_wait_behind_a_burst(
    clock: Clock, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person asks for begins next, although a visitor asked for it first."""
    hurried, hurry = list[ServerName](), OrderQueue.hurry

    def note(queue: OrderQueue[ServerName], key: ServerName) -> None:
        hurry(queue, key)
        hurried.append(key)

    monkeypatch.setattr(OrderQueue, "hurry", note)
    issuer = _Counting(clock, memory=memory)
    manager = manager_on(memory, clock, issuer)
    names = [ServerName(f"n{number:02}.example.test") for number in range(50)]
    crowd = []
    for name in names:  # the last one arrives last
        crowd.append(asyncio.get_running_loop().create_task(manager.certificate_for(name, on_demand=True)))
        await _until(lambda: name in manager.ordering())  # noqa: B023  # called at once
    await _until(lambda: issuer.under_way == _A_FEW)
    last = manager.config.subject(names[-1])
    assert last is not None
    issuing = asyncio.get_running_loop().create_task(manager.issue(last))
    await _until(lambda: hurried == [last.id])
    issuer.opened.set()
    await asyncio.gather(issuing, *crowd)
    assert issuer.orders.index(last) < 2 * _A_FEW
    await manager.close()


async def test_ca_that_fails_is_not_asked_by_those_who_wait(clock: Clock, memory: Memory) -> None:
    """They fail with the same reason when their turn comes, and take no lease."""
    issuer = _Counting(clock, memory=memory, error=IssuerUnavailable("the CA is down"))
    manager = manager_on(memory, clock, issuer)
    names = [ServerName(f"n{number}.example.test") for number in range(50)]
    visits = asyncio.gather(*(manager.certificate_for(name, on_demand=True) for name in names), return_exceptions=True)
    await _until(lambda: issuer.under_way == _A_FEW)
    issuer.opened.set()
    answers = await visits
    assert all(isinstance(answer, IssuanceError) for answer in answers)
    assert len(issuer.orders) == _A_FEW
    await manager.close()
