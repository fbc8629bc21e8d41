"""How often storage is read for DNS queries."""

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


async def test_values_of_all_nodes_are_combined(make_manager: MakeManager, memory: Memory) -> None:
    """Several orders, on any nodes, may publish values under one name; each removes only its own."""
    here, elsewhere = make_manager(), Store(memory, UNSEALED)
    proofs = [Proof("dns-01", PLACE, value) for value in ("2", "1", "3")]
    for store, proof in zip((elsewhere, here.store, elsewhere), proofs, strict=True):
        store.put_proof(proof)
    elsewhere.put_proof(Proof("http-01", "token", "not in DNS"))
    reader = TxtRecordReader(here)
    assert await reader.all() == TxtRecords({PLACE: ("1", "2", "3")})
    elsewhere.delete_proof(proofs[0])
    assert await reader.all() == TxtRecords({PLACE: ("1", "3")})
    assert reader.local() == TxtRecords({PLACE: ("1",)})
    assert memory.keys("challenges/txt/") == [f"challenges/txt/{PLACE}~1", f"challenges/txt/{PLACE}~3"]


async def test_any_number_of_queries_costs_one_listing_at_a_time(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any names: strangers' queries never cause two listings at a time."""
    counting, reader = Counting(memory, monkeypatch), TxtRecordReader(make_manager())
    await asyncio.gather(*(reader.all() for _ in range(500)))
    assert counting.count == 1


async def test_read_that_runs_is_not_joined(make_manager: MakeManager, memory: Memory) -> None:
    """It may have missed what was published just before the query."""
    manager = make_manager()
    reader, elsewhere, begun = TxtRecordReader(manager), Store(memory, UNSEALED), asyncio.Event()
    read, go_on = manager.threads.storage, asyncio.Event()

    async def slow(call, *args, **kwargs):  # type: ignore[no-untyped-def]  # as the threads' own
        found = await read(call, *args, **kwargs)
        begun.set()
        await go_on.wait()
        return found

    manager.threads.storage = slow  # type: ignore[method-assign]
    first = asyncio.ensure_future(reader.all())
    await begun.wait()
    elsewhere.put_proof(Proof("dns-01", PLACE, "1"))
    second = asyncio.ensure_future(reader.all())
    go_on.set()
    assert await first == NO_TXT_RECORDS
    assert await second == TxtRecords({PLACE: ("1",)})


async def test_without_storage_only_own_records_are_known(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The absence of a value is not answered then."""
    manager = make_manager()
    manager.store.put_proof(Proof("dns-01", PLACE, "1"))

    def down(*_: object, **__: object) -> list[str]:
        raise StorageUnavailable("gone")

    monkeypatch.setattr(memory, "keys", down)
    reader = TxtRecordReader(manager)
    assert await reader.all() is None
    assert reader.local() == TxtRecords({PLACE: ("1",)})
    assert manager.health.trouble_now == "gone"


async def test_thousands_of_records_are_not_indexed_on_the_loop(make_manager: MakeManager) -> None:
    """Nor again while they do not change: a query costs no more than without them."""
    manager = make_manager(acme_challenges=("dns-01",), acme_dns_zone="acme.example.test")
    for number in range(2_000):
        manager.store.put_proof(Proof("dns-01", f"_acme-challenge.n{number % 500}.example.test", str(number)))
    reader = TxtRecordReader(manager)
    first = await reader.all()
    assert first is not None
    assert len(first.values("n7.example.test.acme.example.test")) == 4
    assert await reader.all() is first
    assert reader.local() is first
    assert await loop_seconds(reader.all) < 0.01
    manager.store.put_proof(Proof("dns-01", PLACE, "new"))
    again = await reader.all()
    assert again is not None
    assert again.values(PLACE) == ("new",)
