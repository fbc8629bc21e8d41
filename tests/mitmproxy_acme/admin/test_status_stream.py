"""The overview for watchers: one look for all, none for nobody, the last never missed."""

import asyncio
import json

import pytest

from mitmproxy_acme.admin import status_stream as live_module
from mitmproxy_acme.admin.documents import Document
from mitmproxy_acme.admin.status_stream import StatusStream, TooManyWatchers


class Sight:
    """What is looked at, and how often."""

    def __init__(self) -> None:
        self.looks, self.shown = 0, 0
        self.error: Exception | None = None

    async def __call__(self) -> Document:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return {"shown": self.shown}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "_LOOK_EVERY", 0.0)


async def _next(news: asyncio.Queue[str]) -> int:
    return int(json.loads(await asyncio.wait_for(news.get(), 10))["shown"])


async def test_watchers_hear_what_is_and_what_changes() -> None:
    """Each gets the state at once, and then only changes; who reads slowly gets the last."""
    sight = Sight()
    live = StatusStream(sight)
    async with live.watch() as one, live.watch() as other:
        assert [await _next(one), await _next(other)] == [0, 0]
        for shown in (1, 2):
            sight.shown = shown
            assert await _next(one) == shown
        assert await _next(other) == 2
        looks = sight.looks
        while sight.looks < looks + 5:  # noqa: ASYNC110  # what it waits for has no event
            await asyncio.sleep(0)
        assert one.empty()


async def test_a_change_that_a_new_watcher_finds_is_told_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look of one who comes is a look for everybody."""
    monkeypatch.setattr(live_module, "_LOOK_EVERY", 3_600.0)
    sight = Sight()
    live = StatusStream(sight)
    async with live.watch() as one:
        assert await _next(one) == 0
        sight.shown = 1
        async with live.watch() as other:
            assert [await _next(other), await _next(one)] == [1, 1]


async def test_nobody_watches_and_nothing_is_looked_at() -> None:
    """When the last has gone the looks end; they begin anew with the next."""
    sight = Sight()
    live = StatusStream(sight)
    async with live.watch() as news:
        await _next(news)
    looks = sight.looks
    for _ in range(10):
        await asyncio.sleep(0)
    assert sight.looks == looks
    async with live.watch() as news:
        sight.shown = 7
        assert await _next(news) in (0, 7)


async def test_watchers_of_one_client_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one does not take all places from the others; clients that cannot be told apart are bounded in all."""
    monkeypatch.setattr(live_module, "_MOST_OF_A_CLIENT", 1)
    live = StatusStream(Sight())
    async with live.watch("192.0.2.1"), live.watch("192.0.2.2"), live.watch(), live.watch():
        with pytest.raises(TooManyWatchers):
            await live.watch("192.0.2.1").__aenter__()
    async with live.watch("192.0.2.1"):
        pass


async def test_watchers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is told so, and a place whose first look failed is free again."""
    monkeypatch.setattr(live_module, "_MOST_WATCHERS", 1)
    sight = Sight()
    live = StatusStream(sight)
    sight.error = RuntimeError("no look")
    with pytest.raises(RuntimeError):
        async with live.watch():
            pass
    sight.error = None
    async with live.watch():
        with pytest.raises(TooManyWatchers):
            async with live.watch():
                pass
