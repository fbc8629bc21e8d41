"""Which tests reach which line, asked of each test once and kept in .cache.

Knows ``sys.monitoring`` and the cache; must not know mutants. What a test file's tests reach is asked anew when the
file, or anything that it may import, has changed.
"""

import functools
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from .children import Task, run_all
from .mutants import ROOT, read, sources
from .running import Collected, Timed, with_collected

TESTS = ("tests/mitmproxy_acme", "tests/acme_storage", "tests/simulation")
_CACHE = ROOT / ".cache" / "mutation" / "reach"
_TOOL = 4  # of sys.monitoring's six
_OURS = tuple(f"{ROOT}/{folder}/" for folder in ("addons", "storage"))


class Reach:
    """The tests that pass: the seconds of each, and who reaches a line."""

    def __init__(self, watched: Iterable[Mapping[str, Any]]) -> None:
        self.seconds = dict[str, float]()
        self._lines = dict[str, dict[str, int]]()
        self._by_line: dict[str, dict[int, set[str]]] = {}
        for file in watched:
            for test, found in file.items():
                self._add(test, found["seconds"], found["lines"])

    def _add(self, test: str, seconds: float, lines: Mapping[str, list[int]]) -> None:
        self.seconds[test] = seconds
        self._lines[test] = {path: len(numbers) for path, numbers in lines.items()}
        for path, numbers in lines.items():
            by_line = self._by_line.setdefault(path, defaultdict(set))
            for number in numbers:
                by_line[number].add(test)

    def share(self, path: str, test: str) -> float:
        """Return which part of all lines that a test reaches is in this module."""
        return self._lines[test].get(path, 0) / max(self.breadth(test), 1)

    def breadth(self, test: str) -> int:
        """Return how many lines a test reaches."""
        return sum(self._lines[test].values())

    def of(self, path: str, lines: Iterable[int]) -> set[str]:
        """Return the tests that reach any of these lines."""
        by_line = self._by_line.get(path, {})
        return set[str]().union(*(by_line.get(line, set()) for line in lines))

    def of_module(self, path: str) -> set[str]:
        return self.of(path, self._by_line.get(path, ()))


def test_files() -> list[str]:
    found = (path for folder in TESTS for path in (ROOT / folder).rglob("test_*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def load(jobs: int) -> Reach:
    """Return what is known, after the tests of changed files have been watched."""
    caches = {file: _cached(file) for file in test_files()}  # by their content now, before any is collected
    if unknown := {file: cache for file, cache in caches.items() if not cache.exists()}:
        print(f"watching the tests of {len(unknown)} files", file=sys.stderr, flush=True)
        _watch_all(unknown, jobs)
    return Reach(json.loads(cache.read_bytes()) for cache in caches.values() if cache.exists())


def _watch_all(files: Mapping[str, Path], jobs: int) -> None:
    """In a process of its own, which then has imported what is watched."""

    def watch(folder: Path) -> bool:
        with_collected(list(files), functools.partial(_watch_files, files=files, jobs=jobs))
        return True

    (ended,) = run_all([Task("", watch)], 1)
    if ended.result is None:
        raise RuntimeError(f"the tests cannot be watched:\n{ended.log}")
    print(ended.log, end="", file=sys.stderr)


def _watch_files(collected: Collected, files: Mapping[str, Path], jobs: int) -> None:
    tasks = [Task(file, functools.partial(_watch, collected, file)) for file in files]
    for ended in run_all(tasks, jobs):
        if ended.result is None:
            print(f"{ended.name} is left out, for it does not end well:\n{ended.log[-2000:]}")
            continue
        if missing := [test for test in _tests_of(collected, ended.name) if test not in ended.result]:
            print(f"{ended.name}: {len(missing)} tests are left out, for they do not pass here: {missing[:3]}")
        _CACHE.mkdir(parents=True, exist_ok=True)
        files[ended.name].write_text(json.dumps(ended.result))


def _tests_of(collected: Collected, file: str) -> list[str]:
    return [test for test in collected.items if test.partition("::")[0] == file]


def _watch(collected: Collected, file: str, folder: Path) -> dict[str, Any]:
    watch = _Watch()
    collected.run(dict.fromkeys(_tests_of(collected, file), 20.0), folder, watch)
    return {test: {"seconds": seconds, "lines": watch.lines[test]} for test, seconds in watch.seconds.items()}


class _Watch(Timed):
    """Notes which of our lines each test reaches, in any thread."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = dict[str, dict[str, list[int]]]()
        self._now: dict[str, set[int]] | None = None
        monitoring = sys.monitoring
        monitoring.use_tool_id(_TOOL, "mutation")
        monitoring.register_callback(_TOOL, monitoring.events.LINE, self._line)
        monitoring.set_events(_TOOL, monitoring.events.LINE)

    def _line(self, code: CodeType, line: int) -> object:
        if self._now is not None and code.co_filename.startswith(_OURS):
            self._now.setdefault(code.co_filename[len(f"{ROOT}/") :], set()).add(line)
        return sys.monitoring.DISABLE

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self._now = {}
        sys.monitoring.restart_events()
        yield from super().pytest_runtest_protocol(item)
        self.lines[item.nodeid] = {path: sorted(lines) for path, lines in self._now.items()}
        self._now = None
        return True


def _cached(file: str) -> Path:
    # The stores' tests are slow, and import nothing of the addon.
    shared = _shared("storage/" if file.startswith("tests/acme_storage/") else "")
    return _CACHE / f"{hashlib.sha256((file + shared).encode() + (ROOT / file).read_bytes()).hexdigest()}.json"


@functools.cache
def _shared(root: str) -> str:
    """Return a digest of all modules below ``root``, and of all that tests import besides themselves."""
    whole = hashlib.sha256()
    helpers = (path for folder in ("tests/servers", *TESTS) for path in (ROOT / folder).rglob("*.py"))
    paths = sorted(path.relative_to(ROOT).as_posix() for path in helpers if not path.name.startswith("test_"))
    for path in [*(path for path in sources() if path.startswith(root)), *paths]:
        whole.update(path.encode() + read(path))
    return whole.hexdigest()
