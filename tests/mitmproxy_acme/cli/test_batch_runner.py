"""A batch: all are done, or the rest is not tried for a reason."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from acme_storage import StorageUnavailable
from mitmproxy_acme.admin.certificate_service import Outcome
from mitmproxy_acme.cli.backend import Result
from mitmproxy_acme.cli.batch_runner import Batch
from mitmproxy_acme.core.errors import NotFound, RequestFailed
from mitmproxy_acme.core.names import ServerName

NAMES = [ServerName(f"n{number}.test") for number in range(20)]

type Act = Callable[[ServerName], Awaitable[Result]]


async def run(act: Act, parallel: int = 1) -> tuple[Batch, list[Result]]:
    told: list[Result] = []
    batch = Batch(act, told.append)
    await batch.run(NAMES, parallel, lambda: None)
    return batch, told


def outcomes(told: list[Result]) -> list[Outcome]:
    return [result.outcome for result in told]


async def test_all_are_done_some_at_once() -> None:
    """Never more than the limit run at once, and each has one result."""
    running = most = 0

    async def act(name: ServerName) -> Result:
        nonlocal running, most
        running, most = running + 1, max(most, running + 1)
        await asyncio.sleep(0)
        running -= 1
        return Result(name, Outcome.OBTAINED)

    batch, told = await run(act, parallel=3)
    assert sorted(result.host for result in told) == sorted(NAMES)
    assert (most, batch.stopped, batch.interrupted) == (3, "", False)


@pytest.mark.parametrize("error", [RequestFailed("the proxy is gone"), StorageUnavailable("storage: down")])
async def test_ends_where_the_way_itself_fails(error: Exception) -> None:
    """Neither storage nor a proxy that is gone is asked for each of the others."""

    async def act(name: ServerName) -> Result:
        raise error

    batch, told = await run(act)
    assert outcomes(told) == [Outcome.FAILED] + [Outcome.NOT_TRIED] * 19
    assert (batch.stopped, told[0].reason, told[1].reason) == (str(error),) * 3


async def test_ends_where_the_whole_ca_fails() -> None:
    """A result that says so is the last; one that fails by itself is not."""

    async def act(name: ServerName) -> Result:
        if name == NAMES[1]:
            raise NotFound("there is none")
        return Result(name, Outcome.FAILED, reason="no", stop="the CA is down" if name == NAMES[3] else "")

    batch, told = await run(act)
    assert outcomes(told) == [Outcome.FAILED] * 4 + [Outcome.NOT_TRIED] * 16
    assert batch.stopped == "the CA is down"


@pytest.mark.parametrize(("every", "tried"), [(1, 5), (2, 20)])
async def test_ends_where_the_ca_limits_all(every: int, tried: int) -> None:
    """Five in a row are enough; one name here and there that is limited is its own affair."""

    async def act(name: ServerName) -> Result:
        limited = NAMES.index(name) % every == 0
        return Result(name, Outcome.FAILED if limited else Outcome.OBTAINED, limited=limited, reason="rateLimited")

    batch, told = await run(act)
    assert outcomes(told).count(Outcome.NOT_TRIED) == 20 - tried
    assert bool(batch.stopped) is (tried < 20)


async def test_interrupted_twice_leaves_what_runs() -> None:
    """The first Ctrl-C waits for what runs, the second does not."""
    begun = asyncio.Event()

    async def act(name: ServerName) -> Result:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    heard, told = asyncio.Event(), list[Result]()
    batch = Batch(act, told.append)
    running = asyncio.create_task(batch.run(NAMES, 2, heard.set))
    await begun.wait()
    os.kill(os.getpid(), signal.SIGINT)
    await heard.wait()
    assert (batch.interrupted, running.done()) == (True, False)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert told == []
