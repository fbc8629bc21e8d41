"""A storage whose calls are timed does what the other does."""

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.instrumentation import Instrumentation
from mitmproxy_acme.store.instrumented import InstrumentedStorage
from tests.mitmproxy_acme.fakes import Clock


class Told(Instrumentation):
    """Records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bool]] = []

    def storage(self, operation: str, seconds: float, *, failed: bool) -> None:
        assert seconds >= 0
        self.calls.append((operation, failed))


def test_every_call_is_passed_on_and_told(memory: Memory) -> None:
    """With its arguments and its result, by its name."""
    told = Told()
    storage = InstrumentedStorage(memory, told)

    storage.put("a/1", b"x", ttl=60.0)
    assert storage.get("a/1") == b"x"
    assert storage.swap("a/1", b"x", b"y", ttl=60.0)
    assert storage.keys("a/", after="a/0", limit=1) == ["a/1"]
    storage.delete("a/1")

    assert memory.get("a/1") is None
    assert told.calls == [(operation, False) for operation in ("put", "get", "swap", "keys", "delete")]


def test_failure_is_told_and_raised(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported as a failure, and raised unchanged."""

    def fail(key: str) -> bytes:
        raise StorageUnavailable("away")

    told = Told()
    monkeypatch.setattr(memory, "get", fail)
    with pytest.raises(StorageUnavailable):
        InstrumentedStorage(memory, told).get("a")
    assert told.calls == [("get", True)]


def test_ends_are_passed_on(memory: Memory, clock: Clock) -> None:
    """A lease that never ended would keep a name from all nodes."""
    storage = InstrumentedStorage(memory, Told())
    storage.put("a/1", b"x", ttl=60.0)
    assert storage.swap("a/2", None, b"x", ttl=60.0)
    assert storage.keys("a/") == ["a/1", "a/2"]
    assert storage.keys("a/", after="a/1") == ["a/2"]
    assert storage.keys("a/", limit=1) == ["a/1"]
    clock.advance(61.0)
    assert storage.keys("a/") == []
