"""Thread pools for blocking work: small, so that the event loop never waits and no kind of work starves another.

This module knows threads, and nothing about what runs in them. Only frozen values cross between threads.
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
# The operator's URL may answer slowly: orders that need not ask it do not wait for it.
_ASK_THREADS = 4
# People's questions (lists of thousands, a scrape) have a thread of their own, and only wait for each other.
_BACKGROUND_THREADS = 1
# A webhook may be silent: only its messages wait for it, and the last messages at shutdown have the second thread.
_WEBHOOK_THREADS = 2


class ThreadPools:
    """The pools of one addon; each method runs a blocking call, and returns or raises what the call does."""

    def __init__(self) -> None:
        self._issuer = _Pool(_CA_THREADS, "acme-issuer")
        self._storage = _Pool(_STORAGE_THREADS, "acme-storage")
        self._ask = _Pool(_ASK_THREADS, "acme-ask")
        self._background = _Pool(_BACKGROUND_THREADS, "acme-background")
        self._webhook = _Pool(_WEBHOOK_THREADS, "acme-webhook")

    async def issuer[**P, T](self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that talks to the CA, or makes keys."""
        return await self._issuer.submit(partial(call, *args, **kwargs))

    async def storage[**P, T](self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that reads or writes storage."""
        return await self._storage.submit(partial(call, *args, **kwargs))

    async def ask[**P, T](self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that asks the operator's URL (``acme_ask``)."""
        return await self._ask.submit(partial(call, *args, **kwargs))

    async def background[**P, T](self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a long call that uses the CPU, such as one for a person's question."""
        return await self._background.submit(partial(call, *args, **kwargs))

    async def webhook[**P, T](self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that sends a message to another server, which may be slow."""
        return await self._webhook.submit(partial(call, *args, **kwargs))

    def close(self) -> None:
        """Accept no more calls; accepted ones end by themselves."""
        for pool in (self._issuer, self._storage, self._ask, self._background, self._webhook):
            pool.close()


async def run_in_thread[T](call: Callable[[], T]) -> T:
    """Run a blocking call in a thread of its own, which does not keep the process from exiting."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    threading.Thread(target=_settle, args=(future, call), name="acme-call", daemon=True).start()
    return await future


class _Pool:
    """Daemon threads that take calls from one queue; they start with the first call.

    Not a ThreadPoolExecutor: at exit the interpreter waits for its threads, and Ctrl-C took 30 s when a CA was silent.
    Calls may be cut off at any moment, as in a crash: storage stays consistent.
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
            del settle  # and with it the result, which may be a private key, before waiting for the next call


def _settle[T](future: asyncio.Future[T], call: Callable[[], T]) -> None:
    """Run a call in this thread, and settle the future in its event loop's thread.

    ``concurrent.futures`` is not used: each of its futures has a lock, and is copied to one of the loop. That was a
    third of the cost of a call, and an order makes a dozen (measured).
    """
    if future.cancelled():
        return
    try:
        settle = partial(_set_result, future, call())
    except BaseException as error:  # the thread goes on, and the caller gets the error
        settle = partial(_set_exception, future, error)
    with contextlib.suppress(RuntimeError):  # the loop is closed: no caller waits any more
        future.get_loop().call_soon_threadsafe(settle)


def _set_result[T](future: asyncio.Future[T], result: T) -> None:
    if not future.done():  # cancelled meanwhile
        future.set_result(result)


def _set_exception[T](future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
