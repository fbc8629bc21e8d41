"""Polling: when to ask again about something that the CA is still working on.

This module knows the intervals; it must not know what is asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

# RFC 8555 says SHOULD about Retry-After, and CAs send whole seconds although most orders take a fraction of one. So
# four quick polls (0.3 s in all) come first. Then the wait keeps doubling, and is longer if the CA asks for more. It is
# never shorter: a CA that says 0, or a time in the past, would be asked without a pause (at most 45 polls in three
# minutes).
_QUICK_PAUSES = (0.02, 0.04, 0.08, 0.16)
_LONGEST_PAUSE = 5.0
# acme2certifier says 600 s for orders that take seconds: obeying that would mean giving up each order.
_LONGEST_WAIT = 15.0

type Polled[T] = tuple[T, float | None]
"""A reply, and its Retry-After in seconds."""


async def poll_until[T](
    fetch: Callable[[], Awaitable[Polled[T]]], done: Callable[[T], bool], end: float, wait: float | None = None
) -> T:
    """Fetch until ``done``: first in quick succession, then more slowly, and not before the CA's Retry-After.

    ``wait`` is the Retry-After of the previous reply.

    At ``end``, a time of the running loop, it fetches once more, and returns that reply, done or not.
    """
    now = asyncio.get_running_loop().time
    for pause, quick in _pauses():
        pause = pause if quick or wait is None else max(pause, min(wait, _LONGEST_WAIT))
        await asyncio.sleep(max(min(pause, end - now()), 0.0))
        last = now() >= end
        reply, wait = await fetch()
        if last or done(reply):
            return reply
    raise AssertionError("unreachable: the pauses never end")


def _pauses() -> Iterator[tuple[float, bool]]:
    for pause in _QUICK_PAUSES:
        yield pause, True
    while True:
        pause = min(2 * pause, _LONGEST_PAUSE)
        yield pause, False
