"""What a validator gets, for orders of any node, and what strangers' requests cost the storage."""

import asyncio
from collections.abc import Callable

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.mitm import challenge_lookup
from mitmproxy_acme.mitm.challenge_lookup import ChallengeLookup
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import UNSEALED

HTTP = Proof("http-01", "token-token-token-token", "token.thumbprint")
TLS = Proof("tls-alpn-01", "victim.example.test", "00" * 32)


@pytest.fixture
def calls(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is read of the storage, key by key and listing by listing."""
    seen: list[str] = []
    read, listing = memory.get, memory.keys

    def get(key: str) -> bytes | None:
        seen.append(key)
        return read(key)

    def keys(prefix: str, *, after: str = "", limit: int | None = None) -> list[str]:
        seen.append(prefix)
        return listing(prefix, after=after, limit=limit)

    monkeypatch.setattr(memory, "get", get)
    monkeypatch.setattr(memory, "keys", keys)
    return seen


@pytest.mark.parametrize("proof", [HTTP, TLS], ids=["http-01", "tls-alpn-01"])
async def test_stranger_who_asked_first_does_not_hide_a_challenge(
    make_manager: MakeManager, memory: Memory, proof: Proof
) -> None:
    """A challenge is found although a stranger asked for it just before it was published."""
    lookup = ChallengeLookup(make_manager())
    assert await lookup.find(proof.type, proof.location) is None
    Store(memory, UNSEALED).put_proof(proof)
    assert await lookup.find(proof.type, proof.location) == proof.value


async def test_challenge_of_another_node_is_found_in_a_flood(make_manager: MakeManager, memory: Memory) -> None:
    """A validator is answered among a thousand strangers, for both types of challenges."""
    lookup, elsewhere = ChallengeLookup(make_manager()), Store(memory, UNSEALED)
    others = [Proof("http-01", f"{HTTP.location}-{number}", f"value-{number}") for number in range(20)]
    for proof in (HTTP, TLS, *others):
        elsewhere.put_proof(proof)
    strangers = [asyncio.ensure_future(lookup.find("http-01", f"invented-{number}")) for number in range(900)]
    found = await asyncio.gather(*(lookup.find(proof.type, proof.location) for proof in (HTTP, TLS, *others)))
    assert found == [proof.value for proof in (HTTP, TLS, *others)]
    assert set(await asyncio.gather(*strangers)) == {None}


@pytest.mark.parametrize("type", ["http-01", "tls-alpn-01"])
async def test_any_number_of_requests_costs_two_listings(
    make_manager: MakeManager, memory: Memory, calls: list[str], type: str
) -> None:
    """10,000 invented tokens at once: two listings, one while the first runs; no token is read by itself."""
    lookup = ChallengeLookup(make_manager())
    Store(memory, UNSEALED).put_proof(HTTP)
    found = await asyncio.gather(*(lookup.find(type, f"invented-{number}") for number in range(10_000)))
    assert set(found) == {None}
    assert calls.count(f"challenges/{type}/") == len(calls) <= 2


async def test_reads_have_a_pause_between_them(
    make_manager: MakeManager, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a second has a bounded number of reads."""
    lookup = ChallengeLookup(make_manager())
    rests: list[float] = []
    sleep: Callable[[float], object] = asyncio.sleep

    async def note(seconds: float) -> None:
        rests.append(seconds)
        await sleep(0)  # type: ignore[misc]  # the one of asyncio

    monkeypatch.setattr(asyncio, "sleep", note)
    for number in range(5):
        await lookup.find("http-01", f"invented-{number}")
    assert len(calls) == 5
    assert all(rest > 0.01 for rest in rests[1:])


async def test_own_challenge_costs_no_storage(make_manager: MakeManager, calls: list[str]) -> None:
    """What this node published itself is in memory."""
    manager = make_manager()
    manager.store.put_proof(HTTP)
    assert await ChallengeLookup(manager).find(HTTP.type, HTTP.location) == HTTP.value
    assert calls == []


async def test_storage_that_is_down_is_logged_once_and_not_read(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A stranger's request causes no log line, and takes no thread, while storage is known to be down."""
    asked = 0

    def down(*_: object, **__: object) -> None:
        nonlocal asked
        asked += 1
        raise StorageUnavailable("gone")

    monkeypatch.setattr(memory, "get", down)
    monkeypatch.setattr(memory, "keys", down)
    manager = make_manager()
    lookup = ChallengeLookup(manager)
    assert await lookup.find("http-01", "invented") is None
    assert not await manager.health.check()
    before = asked
    for number in range(10):
        assert await lookup.find("http-01", f"invented-{number}") is None
    assert asked == before
    assert [record.levelname for record in caplog.records if "storage" in record.message] == ["WARNING"]


async def test_memory_is_bounded_while_storage_hangs(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that waited and gave up are not remembered without bound."""
    manager, hanging = make_manager(), asyncio.Event()
    monkeypatch.setattr(challenge_lookup, "MAX_WAITING", 50)
    monkeypatch.setattr("mitmproxy_acme.mitm.shared_read.MAX_WAIT", 0.0)

    async def hang(*_: object) -> dict[str, str]:
        await hanging.wait()
        return {}

    manager.threads.storage = hang  # type: ignore[method-assign, assignment]  # a store that is silent
    lookup = ChallengeLookup(manager)
    for number in range(500):
        await lookup.find("http-01", f"invented-{number}")
    assert len(lookup._wanted) <= 50
    hanging.set()
