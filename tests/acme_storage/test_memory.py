"""The store in memory: the contract, and the instances that a whole process shares."""

from pathlib import Path

import pytest

from acme_storage import Storage, open_storage
from acme_storage.memory import Memory
from tests.acme_storage.contract import ManualClock, StorageContract


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
