"""Runs several processes with the same work: starts them, restarts them when they die, ends them together.

This module knows processes and signals; it must not know what the work is. Unix only: elsewhere ``run`` says so and
returns.

A worker reads its task as a line on its standard input. The parent keeps that pipe open as long as it lives, so the end
of the pipe tells the worker that its parent is gone, even if it was killed. (PR_SET_PDEATHSIG exists on Linux only, and
fires when the thread that started the child ends.) Through another pipe the worker reports that it is ready.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

# What a worker runs before its work: it imports modules from the same folders as the parent, and none from its working
# directory (-P).
_BOOT = "import json, sys; task = json.loads(sys.stdin.readline()); sys.path[:] = task['path']; "

_END_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LONG_LIVED = 60.0  # a worker that was up for so many seconds starts again after the shortest wait
_END_TIMEOUT = 15.0  # seconds that a worker may take to end; service managers wait longer


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """A worker's number, from 1 on, and its pipe to the parent.

    ``starts_alone`` says that no other worker has been started yet.
    """

    number: int
    starts_alone: bool
    ready_pipe: int

    def report_ready(self) -> None:
        """Tell the parent that the work has begun."""
        with contextlib.suppress(BrokenPipeError):  # the parent is gone, and the watching thread knows
            os.write(self.ready_pipe, b"up")


def take_slot(task: Mapping[str, Any]) -> WorkerSlot:
    """Become a worker that ends with its parent; call it first, on the main thread of its process."""
    if sys.platform == "win32":
        raise NotImplementedError  # here and below for mypy: Supervisor.run starts no worker there
    slot = WorkerSlot(task["number"], task["starts_alone"], task["ready_pipe"])
    os.set_inheritable(slot.ready_pipe, False)
    parent_pipe = os.dup(0)
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)
    os.close(devnull)
    threading.Thread(target=_end_with, args=(parent_pipe,), name="parent watch", daemon=True).start()
    # Ctrl-C reaches parent and workers alike: until the work handles it, the parent's SIGTERM is enough.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _END_SIGNALS)
    return slot


def _end_with(parent_pipe: int) -> NoReturn:
    os.read(parent_pipe, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_END_TIMEOUT)
    os._exit(1)


def wait_after(failures: int) -> float:
    """Return the seconds before a worker that died so many times in a row starts again."""
    return float(min(2 ** (failures - 1), 30))


@dataclass(slots=True)
class _Worker:
    """A running process and our ends of its two pipes; ``up_since`` is when it reported that it is ready."""

    number: int
    process: subprocess.Popen[bytes]
    task_pipe: int
    ready_pipe: int
    up_since: float | None = None


class Supervisor:
    """Keeps ``size`` workers running the Python statement ``work``, which gets ``task`` as the dictionary ``task``.

    The first worker starts alone, so that an error that keeps the work from starting is logged once.
    """

    def __init__(
        self, size: int, work: str, task: Mapping[str, Any], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``clock`` gives seconds that never go back."""
        self._size, self._work, self._task, self._clock = size, work, task, clock
        self._running: dict[int, _Worker] = {}
        self._due: dict[int, float] = {}  # when the workers that died start again
        self._failures: Counter[int] = Counter()
        self._complete = False  # every worker has been up
        self._status: int | None = None  # the exit code, once all must end
        self._deadline = 0.0

    def run(self) -> int:
        """Return when all have ended: 0 after SIGINT or SIGTERM, which are passed on as SIGTERM.

        A worker that dies after it was up is started again, after a wait that doubles. One that dies before it was up
        ends all, with its exit code, unless all were up before and another still is. Call it on the main thread.
        Returns 2, with a sentence, where the system has no Unix signals.
        """
        if sys.platform == "win32":
            _print("Windows cannot run several workers on one port; leave out --workers, and one process serves all")
            return 2
        with _woken_by_signals() as wake:
            try:
                self._start(1)
                while self._status is None or self._running:
                    self._wait(wake)
                    self._handle_deaths()
            finally:
                self._kill_all()
        return self._status

    def _start(self, number: int) -> None:
        """Start a process with the signals that end it blocked: it unblocks them when it can handle them."""
        if sys.platform == "win32":
            raise NotImplementedError
        task_reader, task_pipe = os.pipe()
        ready_pipe, ready_writer = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, _END_SIGNALS)
        try:
            argv = [sys.executable, "-P", "-c", _BOOT + self._work]
            process = subprocess.Popen(argv, stdin=task_reader, pass_fds=(ready_writer,))  # noqa: S603  # our own interpreter
            self._running[number] = _Worker(number, process, task_pipe, ready_pipe)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _END_SIGNALS)
            os.close(task_reader)
            os.close(ready_writer)
        slot = {"number": number, "starts_alone": number == 1 and not self._complete, "ready_pipe": ready_writer}
        task = {**self._task, **slot, "path": sys.path}
        with contextlib.suppress(BrokenPipeError):  # it died at once, which _handle_deaths will see
            os.write(task_pipe, json.dumps(task).encode() + b"\n")

    def _wait(self, wake: int) -> None:
        """Return after a signal (a child's end sends one too), when a worker is ready, or when something is due."""
        times = [*self._due.values()] if self._status is None else [self._deadline]
        timeout = max(min(times) - self._clock(), 0.0) if times else None
        starting = {worker.ready_pipe: worker for worker in self._running.values() if worker.up_since is None}
        ready, _, _ = select.select([wake, *starting], [], [], timeout)
        if wake in ready and {*_END_SIGNALS} & {*os.read(wake, 1_000)}:
            self._end(0)
        for pipe in starting.keys() & set(ready):
            if os.read(pipe, 10):
                self._note_ready(starting[pipe])

    def _note_ready(self, worker: _Worker) -> None:
        worker.up_since = self._clock()
        _print(f"worker {worker.number} is up, process {worker.process.pid}")
        if self._complete or self._status is not None:
            return
        for number in range(1, self._size + 1):
            if number not in self._running and number not in self._due:
                self._start(number)
        self._complete = self._count_up() == self._size

    def _handle_deaths(self) -> None:
        for worker in [*self._running.values()]:
            if worker.process.poll() is not None:
                self._remove_dead(worker)
        if self._status is not None:
            if self._clock() >= self._deadline:
                self._kill_all()
            return
        for number in [number for number, due in self._due.items() if due <= self._clock()]:
            del self._due[number]
            self._start(number)

    def _remove_dead(self, worker: _Worker) -> None:
        """Forget a dead worker, and start it again later, or end all."""
        self._remove(worker)
        if self._status is not None:
            return
        number, code = worker.number, worker.process.returncode
        if worker.up_since is None and not (self._complete and self._count_up()):
            if code < 0:
                _print(f"worker {number} {_cause(code)} while it started")
            self._end(code if code >= 0 else 128 - code)
            return
        if worker.up_since is not None and self._clock() - worker.up_since > _LONG_LIVED:
            self._failures[number] = 0
        self._failures[number] += 1
        wait = wait_after(self._failures[number])
        self._due[number] = self._clock() + wait
        _print(f"worker {number} {_cause(code)}; it starts again in {wait:.0f} s")

    def _count_up(self) -> int:
        return sum(worker.up_since is not None for worker in self._running.values())

    def _end(self, status: int) -> None:
        """Tell all to end, once."""
        if self._status is not None:
            return
        self._status = status
        self._deadline = self._clock() + _END_TIMEOUT
        for worker in self._running.values():
            worker.process.terminate()

    def _kill_all(self) -> None:
        for worker in [*self._running.values()]:
            _print(f"worker {worker.number} does not end and is killed")
            worker.process.kill()
            worker.process.wait()
            self._remove(worker)

    def _remove(self, worker: _Worker) -> None:
        del self._running[worker.number]
        os.close(worker.task_pipe)
        os.close(worker.ready_pipe)


def _cause(returncode: int) -> str:
    return f"was killed by {signal.Signals(-returncode).name}" if returncode < 0 else f"ended with code {returncode}"


def _print(line: str) -> None:
    print(f"mitmproxy-acme: {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _woken_by_signals() -> Iterator[int]:
    """Yield a file descriptor from which the numbers of received signals can be read."""
    if sys.platform == "win32":
        raise NotImplementedError
    wake, wake_writer = os.pipe()
    os.set_blocking(wake_writer, False)
    before = {number: signal.signal(number, lambda *_: None) for number in (*_END_SIGNALS, signal.SIGCHLD)}
    fd = signal.set_wakeup_fd(wake_writer)
    try:
        yield wake
    finally:
        signal.set_wakeup_fd(fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wake)
        os.close(wake_writer)
