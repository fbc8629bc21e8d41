"""Where blocking work runs: small pools, so that the event loop never waits and no kind starves another.

This module knows threads and nothing of what runs in them. Only frozen values cross.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from functools import partial

# More threads only contend for the interpreter: at 16 the loop's p99 lag was 31 ms, at 4 it was 11 ms (measured).
_CA_THREADS = 4
_STORAGE_THREADS = 4
# The operator's URL may be slow to say what may be ordered: what may be does not wait for it.
_ASKING_THREADS = 4
# A person's questions (lists of thousands, a scrape) have one of their own, behind which only they queue.
_OPERATING_THREADS = 1
# A webhook may be silent: only what is sent there waits for it, and what is sent at the end has the second.
_TELLING_THREADS = 2


class ThreadPools:
    """The pools of one addon; each of its methods runs a blocking call, and returns or raises what that does."""

    def __init__(self) -> None:
        self._issuer = _Pool(_CA_THREADS, "acme-issuer")
        self._storage = _Pool(_STORAGE_THREADS, "acme-storage")
        self._asking = _Pool(_ASKING_THREADS, "acme-asking")
        self._operating = _Pool(_OPERATING_THREADS, "acme-operating")
        self._telling = _Pool(_TELLING_THREADS, "acme-telling")

    async def issuer[**P, T](self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what talks to the CA, or makes keys."""
        return await self._issuer.submit(partial(call, *args, **kwargs))

    async def storage[**P, T](self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what reads or writes storage."""
        return await self._storage.submit(partial(call, *args, **kwargs))

    async def ask[**P, T](self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what asks the operator's URL."""
        return await self._asking.submit(partial(call, *args, **kwargs))

    async def background[**P, T](self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what a person asked for and takes long, though it waits for nobody."""
        return await self._operating.submit(partial(call, *args, **kwargs))

    async def webhook[**P, T](self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what tells somebody outside, who may be slow to listen."""
        return await self._telling.submit(partial(call, *args, **kwargs))

    def close(self) -> None:
        """Take nothing more; what was taken ends by itself."""
        for pool in (self._issuer, self._storage, self._asking, self._operating, self._telling):
            pool.close()


async def run_in_thread[T](call: Callable[[], T]) -> T:
    """Run a blocking call in a thread of its own, which does not keep the process from ending."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    threading.Thread(target=_settle, args=(future, call), name="acme-call", daemon=True).start()
    return await future


class _Pool:
    """Daemon threads that take calls from one queue, started with the first call.

    Not a ThreadPoolExecutor: at its exit the interpreter waits for one's threads, and Ctrl-C took 30 s where a CA had
    fallen silent. What runs here can be cut off at any moment, as a crash would: storage is never left torn.
    """

    def __init__(self, size: int, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(size)
        ]
        self._started = self._closed = False

    def submit[T](self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Return a future of the running loop for what the call returns. Cancelled in time, the call does not run."""
        if self._closed:
            raise RuntimeError("the threads are closed")
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.put(partial(_settle, future, call))
        return future

    def close(self) -> None:
        self._closed = True
        for _ in self._threads:
            self._calls.put(None)

    def _work(self) -> None:
        while (settle := self._calls.get()) is not None:
            settle()
            del settle  # and with it the result, which may be a private key, until the next call comes


def _settle[T](future: asyncio.Future[T], call: Callable[[], T]) -> None:
    """Run a call in this thread, and settle the future in the thread of its loop.

    Not by way of ``concurrent.futures``: its futures have a lock each, and are copied to one of the loop. That was a
    third of what a call costs, and an order makes a dozen (measured).
    """
    if future.cancelled():
        return
    try:
        settle = partial(_set_result, future, call())
    except BaseException as error:  # the thread lives on, and the one that waits gets it
        settle = partial(_set_exception, future, error)
    with contextlib.suppress(RuntimeError):  # the loop is closed: nothing waits any more
        future.get_loop().call_soon_threadsafe(settle)


def _set_result[T](future: asyncio.Future[T], result: T) -> None:
    if not future.done():  # cancelled meanwhile
        future.set_result(result)


def _set_exception[T](future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
