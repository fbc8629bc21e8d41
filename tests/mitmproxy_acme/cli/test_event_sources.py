"""Where watch gets events: through restarts of a proxy and outages of a storage, each said once."""

import time
from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.admin.documents import Document
from mitmproxy_acme.cli import event_sources
from mitmproxy_acme.core.errors import RequestFailed
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.event_log import EventKind, EventLog, LoggedEvent
from mitmproxy_acme.store.keys import EventId
from tests.mitmproxy_acme.fakes import EPOCH, UNSEALED

EVENT = LoggedEvent(EventId(int(EPOCH * 1000), 0, "aa"), EventKind.OBTAINED, "a.example.test")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for interval in ("_READ_EVERY", "_TRY_EVERY"):
        monkeypatch.setattr(event_sources, interval, 0.0)


class Api:
    """A proxy that is away at every second call."""

    def __init__(self) -> None:
        self.calls = 0

    def histories(self) -> Iterator[list[Document]]:
        self.calls += 1
        if self.calls % 3:
            raise RequestFailed("the proxy does not answer any more")
        yield [{"id": str(self.calls)}]
        raise RequestFailed("the proxy does not answer any more")


def test_proxy_that_comes_and_goes_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """However many attempts it takes."""
    histories = event_sources._of_proxy(Api())  # type: ignore[arg-type]  # the one method
    assert [next(histories)[0]["id"] for _ in range(2)] == ["3", "6"]
    away = "the proxy does not answer any more; waiting for it"
    assert capsys.readouterr().err.splitlines() == [away, "the proxy answers again"] * 2


def test_storage_that_comes_and_goes_is_said_once(
    memory: Memory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure at the begin ends it instead: the options may be wrong."""
    log = EventLog(memory, UNSEALED)
    monkeypatch.setattr(time, "time", lambda: EPOCH)
    log.write(EVENT)
    histories, keys, failures = event_sources._of_storage(log), memory.keys, [True, True, False]

    def fail(prefix: str, **more: str) -> list[str]:
        if failures.pop(0):
            raise StorageUnavailable("the storage is down")
        return keys(prefix, **more)  # type: ignore[arg-type]

    assert [event["host"] for event in next(histories)] == ["a.example.test"]
    monkeypatch.setattr(memory, "keys", fail)
    for _ in range(3):
        assert [event["host"] for event in next(histories)] == ["a.example.test"]
    assert capsys.readouterr().err.splitlines() == ["the storage is down; waiting for it", "the storage answers again"]
    failures.append(True)
    with pytest.raises(StorageUnavailable):
        next(event_sources._of_storage(log))


def test_sealed_events_without_their_key_are_said(
    memory: Memory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would show nothing, for ever."""
    monkeypatch.setattr(time, "time", lambda: EPOCH)
    EventLog(memory, RecordCipher([Fernet.generate_key().decode()])).write(EVENT)
    assert next(event_sources._of_storage(EventLog(memory, UNSEALED))) == []
    assert "1 of the last 1 events cannot be read; set acme_storage_key" in capsys.readouterr().err
