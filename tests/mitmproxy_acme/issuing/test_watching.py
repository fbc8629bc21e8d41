"""How an order is watched: soon, then as the CA asks, within what an order may last."""

import asyncio

import pytest

from mitmproxy_acme.issuing.watching import watch


@pytest.mark.parametrize(
    ("retry_after", "waited"),
    [(None, [0.32, 0.64]), (3.0, [3.0, 3.0]), (600.0, [15.0, 15.0])],
    ids=["none", "in reason", "longer than an order may last"],
)
async def test_ca_that_asks_for_time_gets_it(
    monkeypatch: pytest.MonkeyPatch, retry_after: float | None, waited: list[float]
) -> None:
    """Four quick looks come first; then its Retry-After holds, but an order is not given up for its sake."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def look() -> tuple[int, float | None]:
        return len(slept), retry_after

    monkeypatch.setattr(asyncio, "sleep", sleep)
    assert await watch(look, lambda looks: looks == 6, retry_after) == 6
    assert slept == [0.02, 0.04, 0.08, 0.16, *waited]
