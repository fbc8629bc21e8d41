"""How an order is watched: soon, then as the CA asks, within what an order may last."""

import asyncio

import pytest

from mitmproxy_acme.ca.polling import poll_until


@pytest.mark.parametrize(
    ("retry_after", "waited"),
    [(None, [0.32, 0.64]), (3.0, [3.0, 3.0]), (600.0, [15.0, 15.0])],
    ids=["none", "in reason", "longer than an order may last"],
)
async def test_ca_that_asks_for_time_gets_it(
    monkeypatch: pytest.MonkeyPatch, retry_after: float | None, waited: list[float]
) -> None:
    """Four quick polls come first; then its Retry-After holds, but the order is not given up for it."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def look() -> tuple[int, float | None]:
        return len(slept), retry_after

    monkeypatch.setattr(asyncio, "sleep", sleep)
    assert await poll_until(look, lambda looks: looks == 6, asyncio.get_running_loop().time() + 180, retry_after) == 6
    assert slept == [0.02, 0.04, 0.08, 0.16, *waited]


@pytest.mark.parametrize("left", [0.05, 0.0, -1.0])
async def test_last_look_is_at_the_end(left: float) -> None:
    """The last reply is returned, done or not, and the CA's Retry-After does not extend the time."""
    looks: list[float] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + left

    async def look() -> tuple[str, float | None]:
        looks.append(loop.time())
        return "pending", 15.0

    assert await poll_until(look, lambda seen: seen == "done", end, 15.0) == "pending"
    assert looks[-1] >= end
    assert sum(at >= end for at in looks) == 1


class Leap:
    """Sleeps that take no time, and move the loop's time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0

        async def leap(seconds: float) -> None:
            self.now += seconds

        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)
        monkeypatch.setattr(asyncio, "sleep", leap)


async def test_ca_that_asks_for_much_time_is_asked_at_the_end_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after it: its callers have gone by then."""
    leap = Leap(monkeypatch)

    async def look() -> tuple[str, float]:
        return "pending", 600.0

    assert await poll_until(look, lambda seen: seen == "done", 1.0, 600.0) == "pending"
    assert leap.now == 1.0


async def test_reply_that_was_on_its_way_at_the_end_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be older than the end: the CA is asked once more, and may have finished by then."""
    leap, begun = Leap(monkeypatch), list[float]()

    async def slow() -> tuple[str, None]:
        begun.append(leap.now)
        leap.now += 2.0
        return "done" if len(begun) == 2 else "pending", None

    assert await poll_until(slow, lambda seen: seen == "done", 1.0) == "done"
    assert begun[0] < 1.0 <= begun[1]
