"""Several processes that do the same work: started, started again when they die, ended together.

This module knows processes and signals; it must not know what the work is. POSIX only.

A worker is told what to do by a line on its standard input. The parent keeps that pipe open for as long as it lives, so
its end tells the worker that it is alone, also when the parent was killed. (PR_SET_PDEATHSIG is Linux's alone, and
fires when the thread ends that started the child.) By another pipe the worker says that it is up.
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

# What a worker runs before its work: it finds modules where the parent does, and none in the folder it runs in (-P).
_BOOT = "import json, sys; told = json.loads(sys.stdin.readline()); sys.path[:] = told['path']; "

_ENDINGS = (signal.SIGINT, signal.SIGTERM)
_LONG_LIVED = 60.0  # seconds after which a death has nothing to do with the one before
_PATIENCE = 15.0  # seconds that a worker may take to end; a service manager's own patience is longer


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """A worker's place, as it is seen from within: ``number`` from 1 on.

    ``early`` says that no other worker has been started yet. ``say_up`` tells the parent that the work has begun.
    """

    number: int
    early: bool
    say_up: Callable[[], None]


def take_post(told: Mapping[str, Any]) -> WorkerSlot:
    """Become a worker that ends with its parent; call it first, on the main thread of its process."""
    number, early, news = told["number"], told["early"], told["news"]
    os.set_inheritable(news, False)
    parent = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_end_with, args=(parent,), name="parent watch", daemon=True).start()
    # Ctrl-C reaches parent and workers alike: until the work installs its own answer, the parent's SIGTERM is enough.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)
    return WorkerSlot(number, early, lambda: _tell(news))


def _tell(news: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent is gone, and the watch knows
        os.write(news, b"up")


def _end_with(parent: int) -> NoReturn:
    os.read(parent, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE)
    os._exit(1)


def wait_after(failures: int) -> float:
    """Return the seconds until a worker starts again that died so many times in a row."""
    return float(min(2 ** (failures - 1), 30))


@dataclass(slots=True)
class _Worker:
    """A running process and our ends of its two pipes; ``up_since`` is when it said that it is up."""

    number: int
    process: subprocess.Popen[bytes]
    life: int
    news: int
    up_since: float | None = None


class Supervisor:
    """Keeps ``size`` workers running the Python statement ``work``, which sees ``task`` in the dictionary ``told``.

    The first worker starts alone: what keeps the work from starting is found, and said, once.
    """

    def __init__(
        self, size: int, work: str, task: Mapping[str, Any], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``clock`` gives seconds that never go back."""
        self._size, self._work, self._task, self._clock = size, work, task, clock
        self._running: dict[int, _Worker] = {}
        self._due: dict[int, float] = {}  # when to start the workers that wait for it
        self._failures: Counter[int] = Counter()
        self._complete = False  # every worker has been up
        self._status: int | None = None  # set once all of it is to end
        self._deadline = 0.0

    def run(self) -> int:
        """Return when all have ended: 0 after SIGINT or SIGTERM, which are passed on as SIGTERM.

        A worker that dies after it was up is started again, after a wait that doubles. One that dies before it was up
        ends the whole, with its exit code, unless all were up before and another still is. Must be called on the main
        thread.
        """
        with _woken_by_signals() as wake:
            try:
                self._start(1)
                while self._status is None or self._running:
                    self._wait(wake)
                    self._look_after_all()
            finally:
                self._kill_all()
        return self._status

    def _start(self, number: int) -> None:
        """Start a process with the signals that end it blocked: it takes them as soon as it can."""
        orders, life = os.pipe()
        news, theirs = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
        try:
            argv = [sys.executable, "-P", "-c", _BOOT + self._work]
            process = subprocess.Popen(argv, stdin=orders, pass_fds=(theirs,))  # noqa: S603  # our own interpreter
            self._running[number] = _Worker(number, process, life, news)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)
            os.close(orders)
            os.close(theirs)
        early = number == 1 and not self._complete
        told = {**self._task, "path": sys.path, "number": number, "early": early, "news": theirs}
        with contextlib.suppress(BrokenPipeError):  # it died at once, which is seen soon
            os.write(life, json.dumps(told).encode() + b"\n")

    def _wait(self, wake: int) -> None:
        """Return when a signal came, among them that of a child's end, when a worker is up, or something is due."""
        moments = [*self._due.values()] if self._status is None else [self._deadline]
        timeout = max(min(moments) - self._clock(), 0.0) if moments else None
        silent = {worker.news: worker for worker in self._running.values() if worker.up_since is None}
        ready, _, _ = select.select([wake, *silent], [], [], timeout)
        if wake in ready and {*_ENDINGS} & {*os.read(wake, 1_000)}:
            self._end(0)
        for news in silent.keys() & set(ready):
            if os.read(news, 10):
                self._came_up(silent[news])

    def _came_up(self, worker: _Worker) -> None:
        worker.up_since = self._clock()
        _say(f"worker {worker.number} is up, process {worker.process.pid}")
        if self._complete or self._status is not None:
            return
        for number in range(1, self._size + 1):
            if number not in self._running and number not in self._due:
                self._start(number)
        self._complete = self._count_up() == self._size

    def _look_after_all(self) -> None:
        for worker in [*self._running.values()]:
            if worker.process.poll() is not None:
                self._bury(worker)
        if self._status is not None:
            if self._clock() >= self._deadline:
                self._kill_all()
            return
        for number in [number for number, moment in self._due.items() if moment <= self._clock()]:
            del self._due[number]
            self._start(number)

    def _bury(self, worker: _Worker) -> None:
        """Let a dead worker go, and decide what its death means."""
        self._remove(worker)
        if self._status is not None:
            return
        number, code = worker.number, worker.process.returncode
        if worker.up_since is None and not (self._complete and self._count_up()):
            if code < 0:
                _say(f"worker {number} {_cause(code)} while it started")
            self._end(code if code >= 0 else 128 - code)
            return
        if worker.up_since is not None and self._clock() - worker.up_since > _LONG_LIVED:
            self._failures[number] = 0
        self._failures[number] += 1
        wait = wait_after(self._failures[number])
        self._due[number] = self._clock() + wait
        _say(f"worker {number} {_cause(code)}; it starts again in {wait:.0f} s")

    def _count_up(self) -> int:
        return sum(worker.up_since is not None for worker in self._running.values())

    def _end(self, status: int) -> None:
        """Tell all to end, once."""
        if self._status is not None:
            return
        self._status = status
        self._deadline = self._clock() + _PATIENCE
        for worker in self._running.values():
            worker.process.terminate()

    def _kill_all(self) -> None:
        for worker in [*self._running.values()]:
            _say(f"worker {worker.number} does not end and is killed")
            worker.process.kill()
            worker.process.wait()
            self._remove(worker)

    def _remove(self, worker: _Worker) -> None:
        del self._running[worker.number]
        os.close(worker.life)
        os.close(worker.news)


def _cause(returncode: int) -> str:
    return f"was killed by {signal.Signals(-returncode).name}" if returncode < 0 else f"ended with code {returncode}"


def _say(line: str) -> None:
    print(f"mitmproxy-acme run: {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _woken_by_signals() -> Iterator[int]:
    """Give a file descriptor from which the numbers of the signals can be read that came meanwhile."""
    wake, theirs = os.pipe()
    os.set_blocking(theirs, False)
    before = {number: signal.signal(number, lambda *_: None) for number in (*_ENDINGS, signal.SIGCHLD)}
    fd = signal.set_wakeup_fd(theirs)
    try:
        yield wake
    finally:
        signal.set_wakeup_fd(fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wake)
        os.close(theirs)
