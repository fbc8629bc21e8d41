"""One of several nodes orders; the others get its certificate, or its failure."""

import asyncio
from typing import Any

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import BackingOff, NoControlNode
from mitmproxy_acme.core.instrumentation import Instrumentation
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.lifecycle.ordering.issuance_lock import IssuanceLock
from mitmproxy_acme.lifecycle.ordering.order_queue import OrderQueue
from mitmproxy_acme.lifecycle.ordering.order_request import OrderRequest, Requester
from mitmproxy_acme.store.lease import EXTEND_EVERY, Lease
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import Clock, make_certificate

_SUBJECT = Subject((ServerName("a.example.test"),))


class Waits(Instrumentation):
    """Counts how often an order waited for another node."""

    def __init__(self) -> None:
        self.count = 0

    def lease_wait(self, seconds: float) -> None:
        assert seconds > 0
        self.count += 1


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def lock(make_manager: MakeManager, waits: Waits, clock: Clock) -> IssuanceLock:
    manager = make_manager()
    return IssuanceLock(manager.store, manager.threads, manager._parts.obtainer.gate, None, "this", waits, clock)


async def held(lock: IssuanceLock) -> Certificate | None:
    """Hold the lock for a moment: return None with the lease held, or another node's certificate."""
    async with lock.hold(OrderRequest(_SUBJECT, Requester.OPERATOR), OrderQueue[ServerName]()) as found:
        lease = await lock._threads.storage(lock._store.storage.get, f"leases/{_SUBJECT.id}")
        assert found is not None or (lease or b"").startswith(b"this")
        return found


async def test_first_one_has_the_turn(lock: IssuanceLock, waits: Waits) -> None:
    """No other node wants it, so it does not wait."""
    assert await held(lock) is None
    assert waits.count == 0


async def test_other_one_gets_what_was_ordered(lock: IssuanceLock, waits: Waits, memory: Memory) -> None:
    """As soon as it is stored, though the lease is still held; the wait is measured."""
    assert Lease.acquire(memory, _SUBJECT.id, "other") is not None
    turn = asyncio.get_running_loop().create_task(held(lock))
    stored = make_certificate(_SUBJECT.names)

    memory.put(f"certificates/{_SUBJECT.id}", stored.to_record())

    found = await turn
    assert found is not None
    assert found.fingerprint == stored.fingerprint
    assert waits.count == 1


async def test_other_one_hears_of_the_failure(
    lock: IssuanceLock, waits: Waits, memory: Memory, make_manager: MakeManager, clock: Clock
) -> None:
    """It does not order what just failed, and measures the wait all the same."""
    assert Lease.acquire(memory, _SUBJECT.id, "other") is not None
    turn = asyncio.get_running_loop().create_task(held(lock))

    make_manager().store.save_backoff(_SUBJECT.id, Backoff(1, clock() + 60, "the CA said no"))

    with pytest.raises(BackingOff, match="the CA said no"):
        await turn
    assert waits.count == 1


async def test_turn_comes_when_the_other_one_gave_up(lock: IssuanceLock, memory: Memory) -> None:
    """Without a certificate and without a failure, as a node that was stopped."""
    lease = Lease.acquire(memory, _SUBJECT.id, "other")
    assert lease is not None
    turn = asyncio.get_running_loop().create_task(held(lock))

    lease.release()

    assert await turn is None


async def test_lease_that_nobody_frees_is_said_once(
    lock: IssuanceLock, memory: Memory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With what to do: the owner may have died while its clock was years ahead."""
    monkeypatch.setattr("mitmproxy_acme.lifecycle.ordering.issuance_lock._TOO_LONG", 0.0)
    memory.put(f"leases/{_SUBJECT.id}", b"another node")
    turn = asyncio.get_running_loop().create_task(held(lock))

    await asyncio.sleep(0.5)
    assert not turn.done()
    assert caplog.text.count("if no such process runs, delete leases/a.example.test from the storage") == 1

    memory.delete(f"leases/{_SUBJECT.id}")
    assert await turn is None


async def test_node_that_waits_looks_each_second(
    lock: IssuanceLock, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the other one takes: the visitor gets the certificate soon after it is stored."""
    lease, pauses, sleep = Lease.acquire(memory, _SUBJECT.id, "other"), list[float](), asyncio.sleep
    assert lease is not None

    async def note(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 40:
            lease.release()
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", note)
    assert await held(lock) is None
    looks = [pause for pause in pauses if pause != EXTEND_EVERY]
    assert len(looks) >= 40
    assert looks == sorted(looks)
    assert max(looks) <= 1.0


async def test_data_node_has_a_control_node_order(make_manager: MakeManager, waits: Waits, clock: Clock) -> None:
    """It takes no lease and no place in the queue; the wait is measured, though it fails."""
    manager, error = make_manager(), NoControlNode("no control node has answered")

    class Control:
        async def obtain(self, request: OrderRequest) -> Certificate:
            await asyncio.sleep(0.001)
            raise error

    control: Any = Control()
    gate = manager._parts.obtainer.gate
    lock = IssuanceLock(manager.store, manager.threads, gate, control, "this", waits, clock)
    queue = OrderQueue[ServerName](size=0, counted_for=60)
    with pytest.raises(NoControlNode):
        async with lock.hold(OrderRequest(_SUBJECT, Requester.PERSON), queue):
            pass
    assert manager.store.storage.keys("leases/") == []
    assert waits.count == 1


async def test_name_that_another_node_orders_takes_no_place_in_the_queue(lock: IssuanceLock, memory: Memory) -> None:
    """Other names begin meanwhile."""
    assert Lease.acquire(memory, _SUBJECT.id, "other") is not None
    queue, other = OrderQueue[ServerName](size=1, counted_for=60), Subject((ServerName("b.example.test"),))
    waiting = asyncio.get_running_loop().create_task(_hold(lock, _SUBJECT, queue))
    while queue._free:  # noqa: ASYNC110  # until it has its turn, which it gives back
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await _hold(lock, other, queue)
    assert not waiting.done()
    memory.delete(f"leases/{_SUBJECT.id}")
    await waiting


async def test_order_that_may_not_begin_leaves_its_place(lock: IssuanceLock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether an earlier one has failed, or the storage: the next in the queue begins."""
    queue, error = OrderQueue[ServerName](size=1, counted_for=60), BackingOff("an earlier order failed", until=0.0)

    def refuse(_: Subject) -> None:
        raise error

    with monkeypatch.context() as refusing:
        refusing.setattr(type(lock._gate), "require_in_memory", lambda _, subject: refuse(subject))
        with pytest.raises(BackingOff):
            await _hold(lock, _SUBJECT, queue)
    assert queue._free == 1


async def _hold(lock: IssuanceLock, subject: Subject, queue: OrderQueue[ServerName]) -> None:
    async with lock.hold(OrderRequest(subject, Requester.OPERATOR), queue) as found:
        assert found is None
