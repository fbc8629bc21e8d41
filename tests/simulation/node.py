"""One node: its processes, one after the other, with a clock of its own.

Knows the lifecycle code, and how a process of it begins and ends; must not know faults.
"""

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from mitmproxy_acme.config.config import Config
from mitmproxy_acme.lifecycle.manager import Manager

from .ca import CaClient, CaModel
from .loop import VirtualLoop
from .storage import StorageClient, StorageModel
from .threads import Crashed, Life, SimulatedThreads

# The tasks of a process, in the order in which they began: a set would have another order in each run.
_tasks: contextvars.ContextVar[dict[asyncio.Task[Any], None] | None] = contextvars.ContextVar("tasks", default=None)


def remember_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    """Make a task, and note which process it belongs to: the task factory of the loop."""
    task = asyncio.Task(coroutine, loop=loop, **options)
    if (tasks := _tasks.get()) is not None:
        tasks[task] = None
        task.add_done_callback(lambda done: tasks.pop(done, None))
    return task


class SimulatedNode:
    """``manager`` is that of the process of now; None while there is none."""

    def __init__(
        self,
        number: int,
        config: Config,
        storage: StorageModel,
        cas: Sequence[CaModel],
        random: Random,
        true_time: Callable[[], float],
    ) -> None:
        self.number = number
        self._config, self._storage, self._cas, self._random = config, storage, cas, random
        self._true_time = true_time
        self.clock_error = 0.0  # seconds ahead of the true time
        self.manager: Manager | None = None
        self.crashes_at_next_call = False
        self._life = Life()
        self._process: dict[asyncio.Task[Any], None] = {}

    @property
    def orders(self) -> bool:
        """Whether it may order: it is no data node."""
        return self._config.orders

    def now(self) -> float:
        return self._true_time() + self.clock_error

    def start(self) -> None:
        """Begin a process, with an empty memory."""
        self._life, self._process = Life(), {}
        context = contextvars.copy_context()
        context.run(self._start)

    def _start(self) -> None:
        _tasks.set(self._process)
        life, loop = self._life, asyncio.get_running_loop()
        self.manager = manager = Manager(
            self._config,
            StorageClient(self._storage, self.number, life, lambda: self._may_crash(life)),
            issuers=[CaClient(ca, self.number, life, self.now) for ca in self._cas],  # type: ignore[misc]  # a model of one
            now=self.now,
            draw=self._random.random,
            monotonic=loop.time,
            threads=SimulatedThreads(life, lambda: 0.0005 * self._random.random()),
        )
        runs = [manager.make_renewer().run, manager.make_cluster_sync().run, manager.usage.run]
        if self.orders:
            runs += [manager.make_housekeeper().run, manager.make_revocation_retrier().run]
        for run in runs:
            loop.create_task(run())  # the process has a reference

    def spawn(self, work: Callable[[], Any]) -> "asyncio.Task[Any]":
        """Run something in the process of now; it ends with it."""
        context = contextvars.copy_context()
        context.run(_tasks.set, self._process)
        return asyncio.get_running_loop().create_task(work(), context=context)

    def pause(self, seconds: float) -> None:
        """Stop the process of now for a while, as SIGSTOP does. Its clock goes on."""
        loop, process = asyncio.get_running_loop(), self._process
        assert isinstance(loop, VirtualLoop)
        loop.pause(lambda handle: handle.get_context().get(_tasks) is process, seconds)

    def _may_crash(self, life: Life) -> None:
        if self.crashes_at_next_call and life is self._life:
            self.crash()
            raise Crashed

    def crash(self) -> None:
        """End the process between two instructions: nothing of it runs on, and nothing is cleaned up."""
        self.crashes_at_next_call = False
        self._life.over = True
        self.manager = None
        for task in list(self._process):
            task.cancel()
