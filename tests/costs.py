"""What a piece of work costs this process: a stranger's input must stay cheap, whatever it is.

CPU time of the calling thread, and not the clock: other work on the machine does not move it much. Bounds in tests are
ten times what the work costs, and a tenth of what it cost before it was bounded.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable


def cpu_seconds(work: Callable[[], object], *, times: int = 5) -> float:
    """Return the CPU seconds of one call in this thread, the least of ``times``: a cold start is left out."""
    return min(_once(work) for _ in range(times))


async def loop_seconds(work: Callable[[], Awaitable[object]], *, times: int = 5) -> float:
    """Return the CPU seconds for which one call keeps the running loop, the least of ``times`` calls.

    What the call has done in other threads does not count.
    """
    least = float("inf")
    for _ in range(times):
        await asyncio.sleep(0)
        begun = time.thread_time()
        await work()
        least = min(least, time.thread_time() - begun)
    return least


def _once(work: Callable[[], object]) -> float:
    begun = time.thread_time()
    work()
    return time.thread_time() - begun
