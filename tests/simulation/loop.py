"""An event loop whose time moves to the next timer as soon as nothing else is left to do.

Knows asyncio; must not know what runs on it.
"""

import asyncio
import heapq
import selectors
from collections import deque
from collections.abc import Callable


class Deadlock(Exception):
    """Nothing is left to do, and no timer is set: whatever is awaited will never come."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Starts at time 0. Nothing here waits for the time of the machine."""

    # What is to be run, and the heap of what is not due yet: asyncio's own.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        self._virtual_time = 0.0
        super().__init__(_Selector(self))
        self._parked: list[asyncio.Handle] = []
        self._is_of_paused: list[Callable[[asyncio.Handle], bool]] = []
        # asyncio's own is a nanosecond, which is less than two times differ by after half a year: nothing was due then.
        self._clock_resolution = 1e-7

    def time(self) -> float:
        return self._virtual_time

    def pass_time(self, seconds: float) -> None:
        self._virtual_time += seconds

    def pause(self, is_concerned: Callable[[asyncio.Handle], bool], seconds: float) -> None:
        """Run nothing that ``is_concerned`` says yes to for so many seconds; then at once all that is due by then."""
        self._is_of_paused.append(is_concerned)
        self.call_later(seconds, self._resume, is_concerned)

    def resume_all(self) -> None:
        """End all pauses now."""
        for is_concerned in tuple(self._is_of_paused):
            self._resume(is_concerned)

    def _resume(self, is_concerned: Callable[[asyncio.Handle], bool]) -> None:
        if is_concerned not in self._is_of_paused:
            return
        self._is_of_paused.remove(is_concerned)
        parked, self._parked = self._parked, []
        for handle in parked:
            if isinstance(handle, asyncio.TimerHandle):
                heapq.heappush(self._scheduled, handle)
            else:
                self._ready.append(handle)

    def _run_once(self) -> None:
        if self._is_of_paused:
            self._park()
        super()._run_once()  # type: ignore[misc]  # asyncio's own

    def _park(self) -> None:
        """Put what belongs to a paused process aside, in its order; timers too, which would become due."""
        ready, scheduled = list(filter(self._is_paused, self._ready)), sorted(filter(self._is_paused, self._scheduled))
        for handle in ready:
            self._ready.remove(handle)
        for timer in scheduled:
            self._scheduled.remove(timer)
        heapq.heapify(self._scheduled)
        self._parked += [*ready, *scheduled]

    def _is_paused(self, handle: asyncio.Handle) -> bool:
        return any(is_concerned(handle) for is_concerned in self._is_of_paused)


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
