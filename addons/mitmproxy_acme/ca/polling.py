"""Watching: when to look again at what the CA is still working on.

This module knows the rhythm of looks; it must not know what is looked at.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

# RFC 8555 says SHOULD to Retry-After, and CAs send whole seconds where most orders are done in a fraction: four
# quick looks (0.3 s in all) come first. Then the wait goes on doubling, and is longer where the CA asks for more. Never
# shorter: a CA that says 0, or a time in the past, would be asked without a pause (45 looks in three minutes are most).
_QUICK_LOOKS = (0.02, 0.04, 0.08, 0.16)
_SLOWEST_LOOK = 5.0
# acme2certifier says 600 s of orders that are done in seconds: to follow it would be to give each of them up.
_LONGEST_WAIT = 15.0

type Polled[T] = tuple[T, float | None]
"""What was seen, and the Retry-After that came with it, in seconds."""


async def watch[T](
    look: Callable[[], Awaitable[Polled[T]]], done: Callable[[T], bool], end: float, wait: float | None = None
) -> T:
    """Look until ``done``: soon, then seldom, and not before the CA asks for it.

    ``wait`` is the Retry-After of the reply that came before.

    At ``end``, a time of the running loop, it looks once more, and returns what it sees, done or not.
    """
    now = asyncio.get_running_loop().time
    for pause, quick in _pauses():
        pause = pause if quick or wait is None else max(pause, min(wait, _LONGEST_WAIT))
        await asyncio.sleep(max(min(pause, end - now()), 0.0))
        last = now() >= end
        seen, wait = await look()
        if last or done(seen):
            return seen
    raise AssertionError("unreachable: the pauses never end")


def _pauses() -> Iterator[tuple[float, bool]]:
    for pause in _QUICK_LOOKS:
        yield pause, True
    while True:
        pause = min(2 * pause, _SLOWEST_LOOK)
        yield pause, False
