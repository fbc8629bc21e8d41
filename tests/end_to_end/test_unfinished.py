"""A real CA that takes an order and does not come to an end with it: the next serves that name, and it the others."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.ca.issuers import issuers_of
from mitmproxy_acme.ca.solver import Solver
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.errors import ChallengeFailed, Unfinished
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.core.thread_pools import ThreadPools
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.keys import name_scope
from mitmproxy_acme.store.store import Store
from tests.servers.binaries import need
from tests.servers.gate import Gate
from tests.servers.pebble import ChallTestSrv, Pebble

type MakeManager = Callable[..., Manager]

_PATIENCE = 1.0
_A, _B, _C = (Subject((ServerName(f"{letter}.example.test"),)) for letter in "abc")
_VALIDATION, _ORDER = ("/authZ/", b'"valid"', b'"pending"'), ("/my-order/", b'"valid"', b'"processing"')


@pytest.fixture(scope="module")
def first() -> Iterator[Pebble]:
    need("pebble")
    with Pebble(always_valid=True) as server:
        yield server


@pytest.fixture(scope="module")
def second() -> Iterator[Pebble]:
    need("pebble")
    with Pebble(always_valid=True) as server:
        yield server


@pytest.fixture
def gate(first: Pebble, tmp_path: Path) -> Iterator[Gate]:
    """The front door of the first."""
    with Gate(first, tmp_path / "gate") as door:
        yield door


@pytest.fixture
async def make_manager() -> AsyncIterator[MakeManager]:
    """Make managers before some CAs, each a directory and what it is trusted by, that give an order a second."""
    async with AsyncExitStack() as stack:

        def make(*cas: Gate | Pebble) -> Manager:
            entries = [f"{ca.directory};ca_bundle={ca.ca_bundle}" for ca in cas]
            options = {"acme_ca": entries, "acme_tos_accepted": True, "acme_domains": ["**.example.test"]}
            config, storage, threads = Config.from_options(options), Memory(), ThreadPools()
            issuers = issuers_of(config, Store(storage, RecordCipher(())), threads, timeout=_PATIENCE)
            manager = Manager(config, storage, issuers=issuers)
            stack.callback(threads.close)
            stack.push_async_callback(manager.close)
            return manager

        yield make


@pytest.mark.parametrize("change", [_VALIDATION, _ORDER], ids=["validation", "order"])
async def test_next_serves_the_name(
    make_manager: MakeManager, gate: Gate, second: Pebble, change: tuple[str, bytes, bytes]
) -> None:
    """Only this name is kept from the first, and not for long: others are ordered there, and it is at the second."""
    manager = make_manager(gate, second)
    gate.change(*change)
    assert (await manager.obtain(_A)).ca == second.directory
    gate.open()

    assert (await manager.obtain(_B)).ca == gate.directory
    await manager.delete(_A.id)
    asked = len(gate.asked)
    assert (await manager.obtain(_A)).ca == second.directory

    assert len(gate.asked) == asked
    backoff = manager.store.backoff(name_scope(_A.id, gate.directory))
    assert backoff is not None
    assert "did not complete the " in backoff.reason
    assert manager.store.backoff(_A.id) is None
    assert manager.store.backoff(gate.directory) is None


async def test_ca_that_hangs_twice_is_left_alone(make_manager: MakeManager, gate: Gate, second: Pebble) -> None:
    """No third name waits for it, until it is asked again."""
    manager = make_manager(gate, second)
    gate.change(*_ORDER)
    for subject in (_A, _B):
        assert (await manager.obtain(subject)).ca == second.directory
    asked = len(gate.asked)

    assert (await manager.obtain(_C)).ca == second.directory
    assert len(gate.asked) == asked
    backoff = manager.store.backoff(gate.directory)
    assert backoff is not None
    assert "did not complete the order for b.example.test in time" in backoff.reason


async def test_ca_is_not_blamed_for_proofs_that_took_long(
    make_manager: MakeManager, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that nameservers show late, say: from when it is asked, the CA has time of its own."""
    present = Solver.present

    async def present_late(self: Solver, proofs: list[Proof]) -> None:
        await present(self, proofs)
        await asyncio.sleep(1.1 * _PATIENCE)

    monkeypatch.setattr(Solver, "present", present_late)
    gate.change(*_VALIDATION)
    with pytest.raises(Unfinished):
        await make_manager(gate).obtain(_A)
    answered = next(n for n, path in enumerate(gate.paths()) if path.startswith("/chalZ/"))
    assert len([path for path in gate.paths()[answered:] if path.startswith("/authZ/")]) > 1


async def test_only_ca_is_tried_again_soon(make_manager: MakeManager, gate: Gate) -> None:
    """As one that is down: after minutes, and not after the waits of a name that fails for the third time."""
    manager = make_manager(gate)
    gate.change(*_ORDER)
    for failures in range(1, 4):
        begun = manager.now()
        with pytest.raises(Unfinished, match=r"did not complete the order for a\.example\.test in time"):
            await manager.obtain(_A)
        scope = name_scope(_A.id, gate.directory)
        backoff = manager.store.backoff(scope)
        assert backoff is not None
        assert backoff.failures == failures
        assert backoff.until - begun < 300
        manager.backoffs._known.put(scope, type(backoff)(failures, begun, backoff.reason))
        manager.store.save_backoff(scope, type(backoff)(failures, begun, backoff.reason))


async def test_validation_that_the_ca_goes_on_trying_is_the_names_fault(
    make_manager: MakeManager, second: Pebble, dns: ChallTestSrv, tmp_path: Path
) -> None:
    """It tells the failure of the first try, and stays undecided (RFC 8555 section 8.2): no other CA is asked."""
    with Pebble(dns) as strict, Gate(strict, tmp_path / "strict") as door:  # nothing listens where it validates
        manager = make_manager(door, second)
        door.change("/authZ/", b'"invalid"', b'"pending"')
        before = second.seen()
        with pytest.raises(ChallengeFailed, match=r"could not validate a\.example\.test: connection"):
            await manager.obtain(_A)
    assert manager.store.backoff(_A.id) is not None
    assert (second.seen() - before).requests == 0
