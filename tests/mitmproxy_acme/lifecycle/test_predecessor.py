"""A node whose storage option was changed orders nothing that the storage of before has, or is getting."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import ChallengeFailed, IssuanceError, RecordRefused
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.lifecycle.predecessor import Predecessor
from mitmproxy_acme.mitm.challenge_lookup import ChallengeLookup
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import UNSEALED, Clock, FakeIssuer, make_certificate, manager_on
from tests.mitmproxy_acme.lifecycle.test_deploy_hook import until

NAME = ServerName("a.example.test")
KEY = f"certificates/{NAME}"


class SlowIssuer(FakeIssuer):
    """A CA that answers when it is told to."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.asked_for_one, self.may_answer = asyncio.Event(), asyncio.Event()

    async def obtain(self, subject: Subject, replacing: Certificate | None = None) -> Certificate:
        self.asked_for_one.set()
        await self.may_answer.wait()
        return await super().obtain(subject, replacing)


@pytest.fixture
async def issuer(clock: Clock) -> SlowIssuer:
    """What both managers order from: it counts the orders of both."""
    return SlowIssuer(clock)


@pytest.fixture
def new_memory(clock: Clock) -> Memory:
    return Memory(now=clock)


@pytest.fixture
def old(make_manager: MakeManager) -> Manager:
    return make_manager()


@pytest.fixture
def predecessor(old: Manager) -> Predecessor:
    return old.as_predecessor()


@pytest.fixture
async def new(predecessor: Predecessor, new_memory: Memory, clock: Clock, issuer: SlowIssuer) -> AsyncIterator[Manager]:
    manager = manager_on(new_memory, clock, issuer, predecessor=predecessor)
    yield manager
    await manager.close()


async def test_order_under_way_is_awaited(
    old: Manager, new: Manager, issuer: SlowIssuer, memory: Memory, new_memory: Memory
) -> None:
    """Both serve its certificate, and both storages have it, with its check scheduled."""
    first = asyncio.ensure_future(old.certificate_for(NAME, on_demand=True))
    await issuer.asked_for_one.wait()
    second = asyncio.ensure_future(new.certificate_for(NAME, on_demand=True))
    await until(lambda: NAME in new.ordering())
    issuer.may_answer.set()

    assert await first is await second
    assert len(issuer.orders) == 1
    assert new_memory.get(KEY) == memory.get(KEY)
    assert new_memory.keys("calendar/") == memory.keys("calendar/")


async def test_lookup_under_way_is_awaited_too(old: Manager, new: Manager, issuer: SlowIssuer) -> None:
    """A visitor who came just before the change has not begun the order yet."""
    issuer.may_answer.set()
    both = (manager.certificate_for(NAME, on_demand=True) for manager in (old, new))
    first, second = await asyncio.gather(*both)
    assert first is second
    assert len(issuer.orders) == 1


async def test_stored_certificate_is_taken_over(
    new: Manager, issuer: SlowIssuer, memory: Memory, new_memory: Memory, clock: Clock
) -> None:
    """It came after the last copy."""
    certificate = make_certificate([NAME], now=clock())
    memory.put(KEY, certificate.to_record())
    served = await new.certificate_for(NAME, on_demand=True)
    assert served is not None
    assert served.fingerprint == certificate.fingerprint
    assert not issuer.orders
    assert new_memory.get(KEY) == certificate.to_record()


async def test_renewal_that_the_copy_lacks_is_taken_over(
    new: Manager, issuer: SlowIssuer, memory: Memory, new_memory: Memory, clock: Clock
) -> None:
    due, renewed = (make_certificate([NAME], now=clock() - age) for age in (80 * 86_400, 0))
    new_memory.put(KEY, due.to_record())
    memory.put(KEY, renewed.to_record())
    subject = new.config.subject(NAME)
    assert subject is not None
    assert (await new.obtain(subject, due)).fingerprint == renewed.fingerprint
    assert not issuer.orders
    assert new_memory.get(KEY) == renewed.to_record()


async def test_certificate_to_replace_is_not_taken_over(
    new: Manager, issuer: SlowIssuer, memory: Memory, clock: Clock
) -> None:
    issuer.may_answer.set()
    due = make_certificate([NAME], now=clock())
    memory.put(KEY, due.to_record())
    subject = new.config.subject(NAME)
    assert subject is not None
    assert (await new.obtain(subject, due)).fingerprint != due.fingerprint
    assert len(issuer.orders) == 1


async def test_order_that_ends_in_what_is_to_be_replaced_is_not_enough(
    new: Manager, predecessor: Predecessor, new_memory: Memory, clock: Clock
) -> None:
    """As where the earlier manager has found that stored by another node."""
    due, other = make_certificate([NAME], now=clock()), make_certificate([NAME], now=clock())
    subject = new.config.subject(NAME)
    assert subject is not None
    loop = asyncio.get_running_loop()
    for found, taken in ((due, False), (other, True)):
        order = loop.create_future()
        order.set_result(found)
        predecessor._order_of = lambda _, order=order: order  # type: ignore[misc]
        assert (await predecessor.find(subject, due) is found) is taken


async def test_failing_order_is_not_repeated(old: Manager, new: Manager, issuer: SlowIssuer) -> None:
    issuer.error = ChallengeFailed("no")
    first = asyncio.ensure_future(old.certificate_for(NAME, on_demand=True))
    await issuer.asked_for_one.wait()
    second = asyncio.ensure_future(new.certificate_for(NAME, on_demand=True))
    await until(lambda: NAME in new.ordering())
    issuer.may_answer.set()
    for visit in (first, second):
        with pytest.raises(IssuanceError):
            await visit
    assert len(issuer.orders) == 1


async def test_old_storage_that_is_down_keeps_nothing(
    new: Manager, issuer: SlowIssuer, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People move away from a storage that fails."""

    def fail(key: str) -> bytes | None:
        raise StorageUnavailable("down")

    issuer.may_answer.set()
    monkeypatch.setattr(memory, "get", fail)
    assert await new.certificate_for(NAME, on_demand=True) is not None
    assert len(issuer.orders) == 1


async def test_closed_predecessor_is_not_asked(
    new: Manager, predecessor: Predecessor, issuer: SlowIssuer, memory: Memory, clock: Clock
) -> None:
    issuer.may_answer.set()
    memory.put(KEY, make_certificate([NAME], now=clock()).to_record())
    Store(memory, UNSEALED).put_proof(Proof("http-01", "token", "value"))
    predecessor.close()
    assert await new.certificate_for(NAME, on_demand=True) is not None
    assert len(issuer.orders) == 1
    assert await ChallengeLookup(new).find("http-01", "token") is None


async def test_challenges_of_the_old_storage_are_answered(old: Manager, new: Manager, memory: Memory) -> None:
    """Of this node's orders under way, and of a node that has not changed yet."""
    challenges = ChallengeLookup(new)
    old.store.put_proof(Proof("http-01", "own", "own value"))
    Store(memory, UNSEALED).put_proof(Proof("http-01", "other", "other value"))
    Store(new.store.storage, UNSEALED).put_proof(Proof("http-01", "new", "new value"))

    assert challenges.find_local("http-01", "own") == "own value"
    assert await challenges.find("http-01", "own") == "own value"
    assert await challenges.find("http-01", "other") == "other value"
    assert await challenges.find("http-01", "new") == "new value"
    assert await challenges.find("http-01", "none") is None


@pytest.mark.parametrize("error", [StorageUnavailable("down"), RecordRefused("sealed")])
async def test_certificate_that_the_earlier_storage_does_not_give_is_ordered(
    new: Manager, issuer: SlowIssuer, predecessor: Predecessor, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The new storage is what counts."""

    def fail(id: ServerName) -> None:
        raise error

    issuer.may_answer.set()
    monkeypatch.setattr(predecessor.store, "slot", fail)
    assert await new.certificate_for(NAME, on_demand=True) is not None
    assert len(issuer.orders) == 1
