"""The store in memory: the contract, and the instances that a whole process shares."""

import time
from pathlib import Path

import pytest

from acme_storage import Storage, open_storage
from acme_storage.memory import Memory
from tests.acme_storage.contract import ManualClock, StorageContract, together


class TestMemory(StorageContract):
    """The contract."""

    @pytest.fixture
    def storage(self, clock: ManualClock) -> Storage:
        return Memory(clock)


def test_shared(tmp_path: Path) -> None:
    """Who opens the same URL later, as a reloaded script does, finds the values; a name keeps others apart."""
    open_storage("memory:test-shared", default_folder=tmp_path).put("a", b"x")
    again = open_storage("memory:test-shared", default_folder=tmp_path)
    assert again.get("a") == b"x"
    again.close()
    assert open_storage("MEMORY:test-shared", default_folder=tmp_path).get("a") == b"x"
    assert open_storage("memory:test-other", default_folder=tmp_path).get("a") is None
    assert open_storage("memory:", default_folder=tmp_path) is open_storage("memory:", default_folder=tmp_path)


def test_forgets() -> None:
    """The next write removes expired values from memory, even if they are never read."""
    clock = ManualClock()
    memory = Memory(clock)
    for number in range(100):
        memory.put(f"a/{number}", b"x", ttl=10)
    clock.advance(11)
    memory.put("b", b"x")
    assert len(memory._values) == 1
    assert memory._expiries == []


class Slow(bytes):
    """A value whose comparison lets other threads run."""

    __hash__ = bytes.__hash__

    def __eq__(self, other: object) -> bool:
        same = bytes(self) == other
        time.sleep(0.002)
        return same

    def __ne__(self, other: object) -> bool:
        return not self == other


def test_swap_is_one_step() -> None:
    """No thread comes between the comparison and the write: of several with one old value, one wins."""
    memory = Memory()
    memory.put("a", Slow(b"old"))
    assert sum(together(lambda number: memory.swap("a", b"old", b"%d" % number), 4)) == 1


def test_first_users_of_a_name_share_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Threads that open it at the same moment have the same values."""
    opened = together(lambda _: open_storage("memory:test-at-once", default_folder=tmp_path), 8)
    assert len({id(store) for store in opened}) == 1


def test_permanent_values_are_not_among_those_that_end() -> None:
    """100,000 certificates would be looked at for nothing."""
    memory = Memory(ManualClock())
    memory.put("a", b"x")
    assert memory.swap("b", None, b"x")
    assert memory._expiries == []
