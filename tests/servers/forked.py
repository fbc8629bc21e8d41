"""mitmdump, mitmweb and mitmproxy-acme without the second of CPU that imports cost: forked from a process that has
done them.

Knows the starter, and how to adopt its children; must not import the addon. For tests that do not test the start
itself: where it is tested, or measured, there are ``mitmdump.py``, ``mitmweb.py`` and ``subprocess.run``.
"""

import atexit
import contextlib
import ctypes
import functools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import trustme

from tests.servers import starter
from tests.servers.base import Process
from tests.servers.mitmdump import SCRIPT, Mitmdump, Run, Serve
from tests.servers.mitmweb import Mitmweb

# What an interpreter, its libraries and mitmproxy's modules read once, when they start or are imported: a child that
# is to have something else there cannot be forked.
_READ_ONCE = ("PYTHON", "LD_", "MALLOC_", "LANG", "LC_", "TZ", "OPENSSL", "SSL", "MITMPROXY_", "PROMETHEUS_")

_SOURCES = [str(SCRIPT.parents[1] / folder) for folder in ("addons", "storage")]

_PR_SET_CHILD_SUBREAPER = 36


class Forked(Mitmdump):
    """Behaves like Mitmdump to the outside, except for the time until it is ready, and for one key.

    mitmproxy's own CA, which the addon does not use, has an EC key that is made once; mitmproxy makes an RSA key at the
    first start and checks it at each start: half of the CPU time of a start (measured).

    If it cannot be forked, on another system than Linux or with an environment that is read before any order could
    arrive, it *is* Mitmdump.
    """

    def launch(self, argv: Sequence[str], environment: Mapping[str, str]) -> Process:
        bring_ca(Path(str(self.options["confdir"])))
        files = (Path(os.devnull), self.log, self.log)
        return fork(argv, environment, self.folder, files) or super().launch(argv, environment)


class ForkedWeb(Mitmweb, Forked):
    """Mitmweb, as Forked is Mitmdump."""


class ForkedRun(Run, Forked):
    """Run, as Forked is Mitmdump; its workers are forked too, each from the process that starts it."""


class ForkedServe(Serve, Forked):
    """Serve, as Forked is Mitmdump."""


def bring_ca(confdir: Path) -> None:
    """Put a CA of mitmproxy's into its folder, unless there is one."""
    file = confdir / "mitmproxy-ca.pem"
    if not file.exists():
        confdir.mkdir(parents=True, exist_ok=True)
        file.touch(0o600)
        file.write_bytes(_ca_of_mitmproxy())


@functools.cache
def _ca_of_mitmproxy() -> bytes:
    """The key and the certificate, as PEM."""
    ca = trustme.CA(organization_name="mitmproxy")
    return ca.private_key_pem.bytes() + ca.cert_pem.bytes()


def run(
    argv: Sequence[str | Path], *, stdin: str = "", environment: Mapping[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Like ``subprocess.run`` that captures text, for a program of this environment that is written in Python.

    ``environment`` overrides that of this process. Its standard files are files, not pipes. Raises
    ``subprocess.TimeoutExpired`` after killing the program.
    """
    words = [str(word) for word in argv]
    everything = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
    with tempfile.TemporaryDirectory(prefix="acme-test-run-") as name:
        given, out, err = files = tuple(Path(name) / part for part in ("stdin", "stdout", "stderr"))
        given.write_text(stdin)
        child = fork(words, everything, Path.cwd(), files)
        if child is None:
            return subprocess.run(words, input=stdin, capture_output=True, text=True, env=everything, timeout=timeout)
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            raise
        return subprocess.CompletedProcess(words, code, out.read_text(), err.read_text())


class Popen(subprocess.Popen[str]):
    """``subprocess.Popen`` with text, for a program of this environment that is written in Python.

    ``at`` is the descriptor of the terminal at which it runs; without one its standard files are pipes. ``environment``
    overrides that of this process.
    """

    def __init__(
        self, argv: Sequence[str | Path], *, environment: Mapping[str, str] | None = None, at: int | None = None
    ) -> None:
        place = subprocess.PIPE if at is None else at
        everything = {**os.environ, **(environment or {})}
        super().__init__(
            [str(word) for word in argv], stdin=place, stdout=place, stderr=place, text=True, env=everything
        )

    def _execute_child(self, args: list[str], *more: Any) -> None:
        """Fork instead, at the one place where a process is made; all else stays Popen's, which this belongs to."""
        environment, ends = more[5], more[9:15]
        standard = [Path(f"/proc/{os.getpid()}/fd/{ends[place]}") for place in (0, 3, 5)]  # the child's ends
        child = fork(args, environment, Path.cwd(), standard)
        if child is None:
            super()._execute_child(args, *more)  # type: ignore[misc]  # typeshed has no private methods
            return
        self.pid, self._child_created = child.pid, True
        self._close_pipe_fds(*ends)  # type: ignore[attr-defined]  # as above


def fork(argv: Sequence[str], environment: Mapping[str, str], cwd: Path, files: Sequence[Path]) -> "Adopted | None":
    """A program that was forked, with these as its standard input, output and error; None where it cannot be."""
    return _starter.fork(argv, environment, cwd, files) if sys.platform == "linux" else None


class Adopted:
    """A child of this process that another one has forked, with what `Process` asks for."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._exit_code: int | None = None

    def poll(self) -> int | None:
        if self._exit_code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._exit_code = os.waitstatus_to_exitcode(status) if ended else None
        return self._exit_code

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None:
            self._wait_for_end(timeout)
        if (exit_code := self.poll()) is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return exit_code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _wait_for_end(self, timeout: float | None) -> None:
        descriptor = os.pidfd_open(self.pid)
        try:
            end = select.poll()
            end.register(descriptor, select.POLLIN)
            end.poll(None if timeout is None else timeout * 1000)
        finally:
            os.close(descriptor)


class Starter:
    """The process that forks, started at the first order. For use by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._baked: dict[str, str] = {}

    def fork(
        self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path, files: Sequence[Path]
    ) -> Adopted | None:
        """A program with these; None when its environment has to be there before the imports are."""
        standard = dict(zip(("stdin", "stdout", "stderr"), map(str, files), strict=True))
        order = {"argv": argv, "cwd": str(cwd), "environment": dict(environment), **standard}
        with self._lock:
            process = self._process = self._process or self._start(environment)
            if _read_once(environment) != self._baked:
                return None
            assert process.stdin
            assert process.stdout
            with _adopting():
                process.stdin.write(json.dumps(order).encode() + b"\n")
                process.stdin.flush()
                # The child's line and the one that says that it is ours by now, whichever comes first.
                said = process.stdout.readline() + process.stdout.readline()
        if not said.strip():
            raise RuntimeError("the starter has ended; what it said is on stderr")
        return Adopted(int(said))

    def close(self) -> None:
        if self._process:
            with contextlib.suppress(BrokenPipeError):
                self._process.communicate()
            self._process = None

    def _start(self, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        atexit.register(self.close)
        self._baked = _read_once(environment)
        # its own session: Ctrl-C in the terminal must not end it before us
        return subprocess.Popen(
            [sys.executable, starter.__file__, str(Path(sys.executable).parent), *_SOURCES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )


def _read_once(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_ONCE)}


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Be the parent of whom a descendant leaves as an orphan: for that moment, else we got those of every server."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


_starter = Starter()
