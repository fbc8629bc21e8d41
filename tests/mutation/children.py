"""Forks a process for each task, several at a time, and reads what they wrote.

Knows processes and their folders; must not know tests. The process that forks has no threads.
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LONGEST = 3600.0
_MEMORY = 6 << 30
_PAUSE = 0.005


@dataclass(frozen=True)
class Task[T]:
    """``run`` gets an empty folder, and returns what can be written as JSON."""

    name: T
    run: Callable[[Path], Any]


@dataclass(frozen=True)
class Ended[T]:
    """``result`` is None if the process ended in another way than by returning it; ``log`` is what it printed."""

    name: T
    result: Any
    log: str
    was_killed: bool


@dataclass(frozen=True)
class _Running[T]:
    name: T
    folder: Path
    begun: float


def run_all[T](tasks: Iterable[Task[T]], jobs: int) -> Iterator[Ended[T]]:
    """Run each task in a process of its own, ``jobs`` at a time; yield them in the order in which they end."""
    running, waiting = dict[int, _Running[T]](), iter(tasks)
    with tempfile.TemporaryDirectory(prefix="mutation-") as top:
        try:
            while True:
                while len(running) < jobs and (task := next(waiting, None)) is not None:
                    folder = Path(tempfile.mkdtemp(dir=top))
                    running[_fork(task.run, folder)] = _Running(task.name, folder, time.monotonic())
                if not running:
                    return
                for process in list(running):
                    if (status := _status(process, running[process].begun)) is not None:
                        yield _read(running.pop(process), status)
                time.sleep(_PAUSE)
        finally:
            for process in running:
                _kill(process)


def run_one(task: Callable[[Path], Any]) -> Any:
    """Run it in a process of its own; raises RuntimeError if it returns nothing."""
    (ended,) = run_all([Task("", task)], 1)
    if ended.result is None:
        raise RuntimeError(f"a process failed:\n{ended.log}")
    return ended.result


def _fork(run: Callable[[Path], Any], folder: Path) -> int:
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for stream in (1, 2):
            os.dup2(log, stream)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        (folder / "result").write_text(json.dumps(run(folder)))
    except BaseException as error:  # the process ends here, whatever it was
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        sys.stdout.flush()
        os._exit(0)
    raise AssertionError


def _status(process: int, begun: float) -> int | None:
    """Return the wait status of a process that has ended or was running for too long."""
    found, status = os.waitpid(process, os.WNOHANG)
    if not found and time.monotonic() - begun > _LONGEST:
        _kill(process)
        found, status = os.waitpid(process, 0)
    if not found:
        return None
    _kill(process)  # what it has started and left behind
    return status


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _read[T](running: _Running[T], status: int) -> Ended[T]:
    result, log = None, ""
    with contextlib.suppress(FileNotFoundError, ValueError):
        log = (running.folder / "log").read_text(errors="replace")
        result = json.loads((running.folder / "result").read_bytes())
    shutil.rmtree(running.folder, ignore_errors=True)
    return Ended(running.name, result, log, os.WIFSIGNALED(status))
