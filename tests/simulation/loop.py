"""An event loop whose time moves to the next timer as soon as nothing else is left to do.

Knows asyncio; must not know what runs on it.
"""

import asyncio
import selectors


class Deadlock(Exception):
    """Nothing is left to do, and no timer is set: whatever is awaited will never come."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Starts at time 0. Nothing here waits for the time of the machine."""

    def __init__(self) -> None:
        self._virtual_time = 0.0
        super().__init__(_Selector(self))
        # asyncio's own is a nanosecond, which is less than two times differ by after half a year: nothing was due then.
        self._clock_resolution = 1e-7

    def time(self) -> float:
        return self._virtual_time

    def pass_time(self, seconds: float) -> None:
        self._virtual_time += seconds


class _Selector(selectors.SelectSelector):
    """No file is ever ready; a wait is over at once."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._virtual_loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock
        self._virtual_loop.pass_time(max(timeout, 0.0))
        return []
