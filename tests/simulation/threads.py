"""Threads that are none: blocking code runs in greenlets, and gives up the processor at each call to the storage.

So the calls of all nodes interleave, one at a time, in an order that the seed decides. Knows greenlets and the loop;
must not know what is called.
"""

import asyncio
import contextvars
from collections.abc import Callable
from functools import partial

from greenlet import getcurrent, greenlet

from mitmproxy_acme.core.thread_pools import ThreadPools


class Crashed(BaseException):
    """The process of this node has ended. Not an Exception: nothing in a dead process handles it."""


class Life:
    """Whether a process lives. ``end`` is called once; afterwards no code of it runs on."""

    def __init__(self) -> None:
        self.over = False

    def require(self) -> None:
        if self.over:
            raise Crashed


class SimulatedThreads(ThreadPools):
    """The pools of one process, without bounds on how many calls run at once."""

    def __init__(self, life: Life, draw_delay: Callable[[], float]) -> None:
        self._life = life
        self._draw_delay = draw_delay

    async def issuer[**P, T](self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(partial(call, *args, **kwargs))

    async def storage[**P, T](self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(partial(call, *args, **kwargs))

    async def ask[**P, T](self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(partial(call, *args, **kwargs))

    async def background[**P, T](self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(partial(call, *args, **kwargs))

    async def webhook[**P, T](self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(partial(call, *args, **kwargs))

    def close(self) -> None:
        pass

    async def _run[T](self, call: Callable[[], T]) -> T:
        self._life.require()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            if future.cancelled() or self._life.over:
                return
            try:
                result = call()
            except Crashed:
                return  # the future never comes: no task is left to wait for it
            except BaseException as error:
                _settle(future, future.set_exception, error)
            else:
                _settle(future, future.set_result, result)

        def begin() -> None:
            thread = greenlet(work)
            thread.gr_context = contextvars.copy_context()  # so that the loop knows which process its timers are of
            thread.switch()

        # As a queue does: the call begins later, when its caller may have been cancelled.
        loop.call_later(self._draw_delay(), begin)
        return await future


def _settle[T, W](future: asyncio.Future[T], settle: Callable[[W], None], what: W) -> None:
    if not future.done():
        settle(what)


def pause(seconds: float, life: Life) -> None:
    """Let others run meanwhile; call it from code in ``SimulatedThreads``. Raises ``Crashed``."""
    current = getcurrent()
    if current.parent is None:
        raise RuntimeError("blocking code runs outside the threads")
    asyncio.get_running_loop().call_later(seconds, current.switch)
    current.parent.switch()
    life.require()
