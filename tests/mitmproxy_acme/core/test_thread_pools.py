"""The pools that blocking work runs in."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mitmproxy_acme.core.thread_pools import ThreadPools, run_in_thread

ADDONS = Path(__file__).resolve().parents[3] / "addons"


async def test_call_runs_in_a_thread_of_its_kind() -> None:
    """Results and errors come back; neither kind of work runs on the loop or in the other's threads."""
    threads = ThreadPools()
    names = [await pool(lambda: threading.current_thread().name) for pool in (threads.issuer, threads.storage)]
    assert [name.rpartition("-")[0] for name in names] == ["acme-issuer", "acme-storage"]
    with pytest.raises(ZeroDivisionError):
        await threads.issuer(lambda: 1 / 0)
    assert await threads.storage(int, "ff", base=16) == 255
    threads.close()
    with pytest.raises(RuntimeError, match="closed"):
        await threads.storage(int)


async def test_each_kind_of_work_has_threads_of_its_own() -> None:
    """As many as its work needs, and none before its first call; all end when the pools are closed."""
    pools = ThreadPools()
    kinds = {"issuer": 4, "storage": 4, "ask": 4, "background": 1, "webhook": 2}
    for kind, size in kinds.items():
        own = getattr(pools, f"_{kind}")._threads
        assert [thread.is_alive() for thread in own] == [False] * size
        name = await getattr(pools, kind)(lambda: threading.current_thread().name)
        assert name.rpartition("-")[0] == f"acme-{kind}"
        assert all(thread.is_alive() and thread.daemon for thread in own)
    pools.close()
    for kind in kinds:
        for thread in getattr(pools, f"_{kind}")._threads:
            thread.join(10)
            assert not thread.is_alive()


async def test_call_that_nobody_waits_for_is_not_made() -> None:
    """If it was cancelled before its turn; one that runs is finished, and its result dropped."""
    pools, made = ThreadPools(), list[str]()
    begun, go = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        go.wait(10)
        made.append("held")

    held = asyncio.ensure_future(pools.background(hold))
    waiting = asyncio.ensure_future(pools.background(made.append, "waited"))
    await asyncio.to_thread(begun.wait, 10)
    held.cancel()
    waiting.cancel()
    await asyncio.sleep(0)
    go.set()
    assert await pools.background(len, made) == 1
    assert made == ["held"]
    pools.close()


class Odd(BaseException):
    """No error of ours."""


@pytest.mark.parametrize("error", [ValueError("no"), Odd()])
async def test_thread_goes_on_after_any_error(error: BaseException) -> None:
    """The caller gets it."""

    def fail() -> None:
        raise error

    pools = ThreadPools()
    caught = (await asyncio.gather(pools.background(fail), return_exceptions=True))[0]
    assert type(caught) is type(error)
    assert await pools.background(int, 7) == 7
    pools.close()


async def test_call_in_a_thread_of_its_own() -> None:
    name = await run_in_thread(lambda: (threading.current_thread().name, threading.current_thread().daemon))
    assert name == ("acme-call", True)
    with pytest.raises(ZeroDivisionError):
        await run_in_thread(lambda: 1 / 0)


def test_exit_does_not_wait_for_a_silent_ca() -> None:
    """The interpreter ends while a call hangs: Ctrl-C is not held up by a CA that does not answer."""
    program = (
        "import asyncio, time\n"
        "from mitmproxy_acme.core.thread_pools import ThreadPools\n"
        "async def main():\n"
        "    asyncio.ensure_future(ThreadPools().issuer(time.sleep, 60))\n"
        "    await asyncio.sleep(0)\n"
        "asyncio.run(main())\n"
    )
    environment = {"PYTHONPATH": f"{ADDONS}:{ADDONS.parent / 'storage'}"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=30)
