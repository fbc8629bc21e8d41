"""How often storage is read for those who ask of DNS."""

import asyncio

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.mitm.dns.txt_records import TxtRecordReader
from mitmproxy_acme.mitm.dns.zones import NO_TXT_RECORDS, TxtRecords
from mitmproxy_acme.store.store import Store
from tests.costs import loop_seconds
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import UNSEALED

PLACE = "_acme-challenge.a.example.test"


class Counting:
    """Counts the listings of a store, and calls ``during`` in each."""

    def __init__(self, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._keys = memory.keys
        monkeypatch.setattr(memory, "keys", self.keys)

    def keys(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[str]:
        if prefix == "challenges/txt/":
            self.count += 1
        return self._keys(prefix, after=after, limit=limit)


async def test_values_of_all_nodes_stand_side_by_side(make_manager: MakeManager, memory: Memory) -> None:
    """Several orders, on whichever node, may wait for values under one name; each takes back its own only."""
    here, elsewhere = make_manager(), Store(memory, UNSEALED)
    proofs = [Proof("dns-01", PLACE, value) for value in ("2", "1", "3")]
    for store, proof in zip((elsewhere, here.store, elsewhere), proofs, strict=True):
        store.publish(proof)
    elsewhere.publish(Proof("http-01", "token", "not in DNS"))
    asked = TxtRecordReader(here)
    assert await asked.all() == TxtRecords({PLACE: ("1", "2", "3")})
    elsewhere.withdraw(proofs[0])
    assert await asked.all() == TxtRecords({PLACE: ("1", "3")})
    assert asked.local() == TxtRecords({PLACE: ("1",)})
    assert memory.keys("challenges/txt/") == [f"challenges/txt/{PLACE}~1", f"challenges/txt/{PLACE}~3"]


async def test_any_number_of_questions_costs_one_look(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is asked for: of strangers' questions storage sees no more than one listing at a time."""
    counting, asked = Counting(memory, monkeypatch), TxtRecordReader(make_manager())
    await asyncio.gather(*(asked.all() for _ in range(500)))
    assert counting.count == 1


async def test_look_under_way_is_not_waited_for(make_manager: MakeManager, memory: Memory) -> None:
    """It may have missed what was published a moment before the question."""
    manager = make_manager()
    asked, elsewhere, begun = TxtRecordReader(manager), Store(memory, UNSEALED), asyncio.Event()
    read, go_on = manager.threads.storage, asyncio.Event()

    async def slow(call, *args, **kwargs):  # type: ignore[no-untyped-def]  # as the threads' own
        found = await read(call, *args, **kwargs)
        begun.set()
        await go_on.wait()
        return found

    manager.threads.storage = slow  # type: ignore[method-assign]
    first = asyncio.ensure_future(asked.all())
    await begun.wait()
    elsewhere.publish(Proof("dns-01", PLACE, "1"))
    second = asyncio.ensure_future(asked.all())
    go_on.set()
    assert await first == NO_TXT_RECORDS
    assert await second == TxtRecords({PLACE: ("1",)})


async def test_without_storage_nothing_is_known_but_ones_own(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The absence of a value is then not said."""
    manager = make_manager()
    manager.store.publish(Proof("dns-01", PLACE, "1"))

    def down(*_: object, **__: object) -> list[str]:
        raise StorageUnavailable("gone")

    monkeypatch.setattr(memory, "keys", down)
    asked = TxtRecordReader(manager)
    assert await asked.all() is None
    assert asked.local() == TxtRecords({PLACE: ("1",)})
    assert manager.health.trouble_now == "gone"


async def test_thousands_of_records_are_not_sorted_on_the_loop(make_manager: MakeManager) -> None:
    """Nor again while they are the same: a question costs no more than without them."""
    manager = make_manager(acme_challenges=("dns-01",), acme_dns_zone="acme.example.test")
    for number in range(2_000):
        manager.store.publish(Proof("dns-01", f"_acme-challenge.n{number % 500}.example.test", str(number)))
    asked = TxtRecordReader(manager)
    first = await asked.all()
    assert first is not None
    assert len(first.values("n7.example.test.acme.example.test")) == 4
    assert await asked.all() is first
    assert asked.local() is first
    assert await loop_seconds(asked.all) < 0.01
    manager.store.publish(Proof("dns-01", PLACE, "new"))
    again = await asked.all()
    assert again is not None
    assert again.values(PLACE) == ("new",)
