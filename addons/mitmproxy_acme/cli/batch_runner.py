"""Batch: many certificates, some at once, until all are done, or no more should be tried.

This module knows how to go on, stop and be interrupted; it must not know what is done with one, or what is printed.
"""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence

from acme_storage import StorageError

from ..admin.certificate_service import Outcome
from ..core.errors import AcmeError, RequestFailed
from ..core.names import ServerName
from .backend import Result

# So many in a row that the CA limits, and the next will be too: its limits are for a domain, or for the account.
_MOST_LIMITED = 5


class Batch:
    """One run over ``names``. Use it from one event loop.

    ``act`` does one and returns its result; what it raises of storage or the admin API ends the run. ``tell`` hears
    each result as it comes.
    """

    def __init__(self, act: Callable[[ServerName], Awaitable[Result]], tell: Callable[[Result], None]) -> None:
        self._act = act
        self._tell = tell
        self._limited = 0
        self.interrupted = False
        self.stopped = ""

    async def run(self, names: Sequence[ServerName], parallel: int, on_interrupt: Callable[[], None]) -> None:
        """Do them, ``parallel`` at once. The first Ctrl-C lets what runs end, the second leaves it.

        ``on_interrupt`` hears of the first. Whatever was not begun is told as not tried, with the reason.
        """
        rest = iter(names)
        with self._interruptible(on_interrupt):
            async with asyncio.TaskGroup() as group:
                for _ in range(min(parallel, len(names))):
                    group.create_task(self._work(rest))
        for name in rest:
            self._tell(Result(name, Outcome.NOT_TRIED, reason=self.stopped or "interrupted"))

    async def _work(self, rest: Iterator[ServerName]) -> None:
        while not (self.stopped or self.interrupted):
            if (name := next(rest, None)) is None:
                return
            try:
                result = await self._act(name)
            except (AcmeError, StorageError) as error:
                stop = str(error) if isinstance(error, RequestFailed | StorageError) else ""
                result = Result(name, Outcome.FAILED, reason=str(error), stop=stop)
            self._judge(result)
            self._tell(result)

    def _judge(self, result: Result) -> None:
        if result.outcome is Outcome.FAILED and result.stop:
            self.stopped = result.stop
        self._limited = self._limited + 1 if result.limited else 0
        if self._limited >= _MOST_LIMITED:
            self.stopped = f"the CA limited {_MOST_LIMITED} in a row: {result.reason}"

    @contextlib.contextmanager
    def _interruptible(self, on_interrupt: Callable[[], None]) -> Iterator[None]:
        loop, running = asyncio.get_running_loop(), asyncio.current_task()

        def interrupt() -> None:
            if self.interrupted and running is not None:
                running.cancel()
            else:
                self.interrupted = True
                on_interrupt()

        with contextlib.suppress(NotImplementedError):  # Windows: the first Ctrl-C ends it there
            loop.add_signal_handler(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(signal.SIGINT)
