"""Runs one action for many certificates, several at once, until all are done or the others would fail too.

This module knows when to continue and stop; it must not know the action, or what is printed.
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

# After so many rate-limited orders in a row the next is limited too: the limits are per domain or per account.
_MOST_LIMITED = 5


class Batch:
    """One run over ``names``. Use it from one event loop.

    ``act`` handles one name; an error of storage or admin API stops the run. ``on_result`` receives each result.
    """

    def __init__(self, act: Callable[[ServerName], Awaitable[Result]], on_result: Callable[[Result], None]) -> None:
        self._act = act
        self._on_result = on_result
        self._limited = 0
        self.interrupted = False
        self.stopped = ""

    async def run(self, names: Sequence[ServerName], parallel: int, on_interrupt: Callable[[], None]) -> None:
        """Handle all names, ``parallel`` at once. The first Ctrl-C waits for running work, the second does not.

        The first calls ``on_interrupt``. Names that were not begun have the outcome ``NOT_TRIED``, with the reason.
        """
        rest = iter(names)
        with self._interruptible(on_interrupt):
            async with asyncio.TaskGroup() as group:
                for _ in range(min(parallel, len(names))):
                    group.create_task(self._work(rest))
        for name in rest:
            self._on_result(Result(name, Outcome.NOT_TRIED, reason=self.stopped or "interrupted"))

    async def _work(self, rest: Iterator[ServerName]) -> None:
        while not (self.stopped or self.interrupted):
            if (name := next(rest, None)) is None:
                return
            try:
                result = await self._act(name)
            except (AcmeError, StorageError) as error:
                stop = str(error) if isinstance(error, RequestFailed | StorageError) else ""
                result = Result(name, Outcome.FAILED, reason=str(error), stop=stop)
            self._check_stop(result)
            self._on_result(result)

    def _check_stop(self, result: Result) -> None:
        if result.outcome is Outcome.FAILED and result.stop:
            self.stopped = result.stop
        self._limited = self._limited + 1 if result.limited else 0
        if self._limited >= _MOST_LIMITED:
            self.stopped = f"the CA limited {_MOST_LIMITED} orders in a row: {result.reason}"

    @contextlib.contextmanager
    def _interruptible(self, on_interrupt: Callable[[], None]) -> Iterator[None]:
        loop, running = asyncio.get_running_loop(), asyncio.current_task()

        def interrupt() -> None:
            if self.interrupted and running is not None:
                running.cancel()
            else:
                self.interrupted = True
                on_interrupt()

        with contextlib.suppress(NotImplementedError):  # on Windows the first Ctrl-C ends it
            loop.add_signal_handler(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(signal.SIGINT)
