"""The status for watchers: one reading for all, none without watchers, the last change never missed."""

import asyncio
import json

import pytest

from mitmproxy_acme.admin import status_stream
from mitmproxy_acme.admin.documents import Document
from mitmproxy_acme.admin.status_stream import StatusStream, TooManyWatchers, Watcher


class Source:
    """What is read, and how often."""

    def __init__(self) -> None:
        self.readings, self.shown = 0, 0
        self.error: Exception | None = None

    async def __call__(self) -> dict[str, Document]:
        self.readings += 1
        if self.error is not None:
            raise self.error
        return {"status": {"shown": self.shown}, "other": {}}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_stream, "_READ_EVERY", 0.0)


async def _next(watcher: Watcher) -> int:
    """Return what the next status shows; the other document comes once, and does not change."""
    name, text = await asyncio.wait_for(watcher.get(), 10)
    if name == "other":
        assert text == "{}"
        return await _next(watcher)
    return int(json.loads(text)["shown"])


async def test_watchers_hear_what_is_and_what_changes() -> None:
    """Each gets the status at once, and then only changes; a slow reader gets the last."""
    source = Source()
    stream = StatusStream(source)
    async with stream.watch() as one, stream.watch() as other:
        assert [await _next(one), await _next(other)] == [0, 0]
        for shown in (1, 2):
            source.shown = shown
            assert await _next(one) == shown
        assert await _next(other) == 2
        readings = source.readings
        while source.readings < readings + 5:  # noqa: ASYNC110  # what it waits for has no event
            await asyncio.sleep(0)
        assert one.empty()


async def test_a_change_that_a_new_watcher_finds_is_told_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new watcher's first reading is sent to all."""
    monkeypatch.setattr(status_stream, "_READ_EVERY", 3_600.0)
    source = Source()
    stream = StatusStream(source)
    async with stream.watch() as one:
        assert await _next(one) == 0
        source.shown = 1
        async with stream.watch() as other:
            assert [await _next(other), await _next(one)] == [1, 1]


async def test_nothing_is_read_without_watchers() -> None:
    """Reading ends when the last watcher leaves, and begins again with the next."""
    source = Source()
    stream = StatusStream(source)
    async with stream.watch() as changes:
        await _next(changes)
    readings = source.readings
    for _ in range(10):
        await asyncio.sleep(0)
    assert source.readings == readings
    async with stream.watch() as changes:
        assert await _next(changes) == 0
        source.shown = 7
        assert await _next(changes) == 7


async def test_watchers_of_one_client_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one client cannot keep out the others; clients that look the same are bounded in all."""
    monkeypatch.setattr(status_stream, "_MOST_PER_CLIENT", 1)
    stream = StatusStream(Source())
    async with stream.watch("192.0.2.1"), stream.watch("192.0.2.2"), stream.watch(), stream.watch():
        with pytest.raises(TooManyWatchers):
            await stream.watch("192.0.2.1").__aenter__()
    async with stream.watch("192.0.2.1"):
        pass


async def test_watchers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is refused; a watcher whose first reading failed is not counted."""
    monkeypatch.setattr(status_stream, "_MOST_WATCHERS", 1)
    source = Source()
    stream = StatusStream(source)
    source.error = RuntimeError("no reading")
    with pytest.raises(RuntimeError):
        async with stream.watch():
            pass
    source.error = None
    async with stream.watch():
        with pytest.raises(TooManyWatchers):
            async with stream.watch():
                pass
