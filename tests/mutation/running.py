"""Runs tests in forked processes of one pytest that has collected them: nothing is imported or collected again.

Knows pytest; must not know mutants. A test that hangs ends its process by a signal.
"""

import gc
import importlib
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .mutants import ROOT

_SLOWER = 10
_LEAST_SECONDS = 6.0


def reserve_ports() -> None:
    """Take a share of the test ports for this process and all its children, when one is free."""
    for _ in range(300):
        try:
            importlib.import_module("tests.servers.base")
        except RuntimeError:
            time.sleep(1)
        else:
            return
    raise RuntimeError("other tests on this machine have all ports")


class Collected:
    """The tests of some files; ``items`` by node id."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self.items = {item.nodeid: item for item in session.items}

    def run(self, tests: Mapping[str, float], folder: Path, plugin: object | None = None) -> dict[str, Any]:
        """Run tests, given with their usual seconds, until one fails; return the failed one and how many ran.

        In a forked process, which is spoiled by it. A test that takes ten times its usual seconds ends the process.
        """
        judge = _Judge()
        config = self._session.config
        config.option.basetemp = str(folder / "tmp")
        config._tmp_path_factory._given_basetemp = folder / "tmp"  # type: ignore[attr-defined]  # pytest's own plugin
        for each in (judge, plugin):
            if each is not None:
                config.pluginmanager.register(each)
        chosen = [item for test in tests for item in self._called(test)]
        for item, following in zip(chosen, [*chosen[1:], None], strict=True):
            judge.ran += 1
            with _limited(_LEAST_SECONDS + _SLOWER * tests.get(item.nodeid, 0.0)):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if judge.failed and plugin is None:
                break
        return {"failed": judge.failed, "ran": judge.ran}

    def _called(self, test: str) -> list[pytest.Item]:
        """Return the test of this id; or, of an id without parameters, the test with any."""
        if test in self.items:
            return [self.items[test]]
        return [item for id, item in self.items.items() if id.startswith(f"{test}[")]


class _Judge:
    """Knows the first test that failed."""

    def __init__(self) -> None:
        self.failed = ""
        self.ran = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid
            print(report.longreprtext[-2000:])


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """End this process after so many seconds, and sooner if it computes all the while."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_PROF, seconds / 2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)


def with_collected(files: Sequence[str], use: Callable[[Collected], None]) -> None:
    """Collect these files, and call ``use`` with what was found; raises RuntimeError if one cannot be imported."""
    os.chdir(ROOT)
    plugin = _Loop(use)
    arguments = ["-qq", "-s", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    pytest.main([*files, *arguments], plugins=[plugin])
    if plugin.error is not None:
        raise plugin.error
    if not plugin.was_used:
        raise RuntimeError(f"pytest cannot collect {len(files)} files")


class _Loop:
    def __init__(self, use: Callable[[Collected], None]) -> None:
        self._use = use
        self.was_used = False
        self.error: Exception | None = None

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            return True
        self.was_used = True
        gc.collect()
        gc.freeze()  # so that the collector of a child leaves alone, and so shared, what is there
        try:
            self._use(Collected(session))
        except Exception as error:  # raised again outside of pytest, which would print it and go on
            self.error = error
        return True


class Timed:
    """How long each test takes, and whether it passes."""

    def __init__(self) -> None:
        self.seconds = dict[str, float]()
        self._passed = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self._passed, begun = True, time.monotonic()
        yield
        if self._passed:
            self.seconds[item.nodeid] = round(time.monotonic() - begun, 3)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._passed = self._passed and report.passed
