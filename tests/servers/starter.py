"""A process that has imported mitmproxy and the addon, and forks a program at each order: a start costs no import.

Knows what mitmdump, mitmweb and mitmproxy-acme import, and how a process becomes another one's child; must not know who
orders, nor any option. A program, started by ``forked.py`` with the folder of those programs and the folders of the
addon's sources. Each line of its stdin is an order as JSON: ``argv`` (its first word is the path of a program written
in Python), ``cwd``, ``environment``, and the paths ``stdin``, ``stdout``, ``stderr``; for each it prints two lines, the
process id and an empty one, in either order: by then the program has opened its files. It ends with its stdin.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

# What the programs import when they start, and what they import at first use.
_IMPORTS = (
    "mitmproxy.tools.main",
    "mitmproxy.tools.dump",
    "mitmproxy.tools.web.master",
    "mitmproxy_acme.mitm.addon",
    "mitmproxy_acme.mitm.launcher",
    "mitmproxy_acme.cli.main",
    "uvloop",
    "acme_storage.file",
)
# The same for stores, from the first order on that names one: half a second, and 35 MB of which each fork copies the
# map (measured), and most of the processes that run tests need none.
_STORES = {
    "redis": "acme_storage.redis_store",
    "consul": "acme_storage.consul",
    "vault": "acme_storage.vault",
    "sqlite": "acme_storage.sql_sqlite",
    "postgresql": "acme_storage.sql_postgresql",
}


def main(programs: str, *sources: str) -> None:
    """Fork at each order; returns in the forked processes only, and exits at the end of stdin."""
    atexit.register(_end_at_once)  # the first that is registered is the last that is called
    sys.path[0] = programs  # as it is in the programs; here it was this folder, which has a redis.py
    sys.path[:0] = sources  # as -s has them while the script is loaded
    _import(_IMPORTS)
    del sys.path[: len(sources)]
    _announce_options_together()
    while line := sys.stdin.buffer.readline():  # one at a time: nothing more is in the buffer that a child gets
        order = json.loads(line)
        words = " ".join(order["argv"])
        _import([module for store, module in _STORES.items() if f"{store}:" in words])
        if _fork_orphan():
            _become(order)
            return
    sys.exit()


def _import(modules: Sequence[str]) -> None:
    """Import what is not there yet, so that it can be shared by forks."""
    if all(module in sys.modules for module in modules):
        return
    gc.disable()  # imports leave hardly any garbage, and looking for it takes a tenth of their time (measured)
    for module in modules:
        importlib.import_module(module)
    _check_fork_is_safe()
    gc.enable()
    gc.freeze()  # so that the collector of a child leaves alone, and so shared, what was there before


def _announce_options_together() -> None:
    """Have mitmproxy tell its addons once of all new options of an addon.

    It tells each of them of each option, and asks each time which of their methods are coroutines: a third of the CPU
    of a start without imports (measured).
    """
    manager: Any = sys.modules["mitmproxy.addonmanager"].__dict__["AddonManager"]
    register = manager.register

    def register_quietly(self: Any, addon: object) -> object:
        options = self.master.options
        known, receivers = options.keys(), options.changed.receivers
        options.changed.receivers = []
        try:
            return register(self, addon)
        finally:
            options.changed.receivers = receivers
            if new := options.keys() - known:
                options.changed.send(updated=new)

    manager.register = register_quietly


def _check_fork_is_safe() -> None:
    """No thread would be in the children, and a lock that it holds would stay held."""
    tasks = os.listdir("/proc/self/task")
    files = {
        int(name): os.readlink(f"/proc/self/fd/{name}")
        for name in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{name}")
    }
    # libffi, where Python uses the system's, keeps its own file open, to map a page of it again and again.
    opened = [path for number, path in files.items() if number > 2 and "/libffi.so" not in path]
    if len(tasks) > 1 or opened:
        sys.exit(f"an import has started a thread or opened a file: {tasks}, {files}")


def _fork_orphan() -> bool:
    """True in a new session, in a process whose parent has ended: it is the nearest subreaper's child by then."""
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        os.write(1, b"\n")
        return False
    if os.fork():
        os._exit(0)
    os.setsid()
    return True


def _become(order: dict[str, Any]) -> None:
    """Become a program as if it had been executed: nothing of the starter stays open.

    Ctrl-C counts for it as in a terminal, also where the tests run in the background, whose children ignore it.
    """
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    answers = os.dup(1)
    try:
        for target, name in enumerate(("stdin", "stdout", "stderr")):
            file = os.open(order[name], os.O_WRONLY | os.O_APPEND | os.O_CREAT if target else os.O_RDONLY, 0o666)
            os.dup2(file, target)
            os.close(file)
    finally:
        os.write(answers, b"%d\n" % os.getpid())
        os.close(answers)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[:] = order["argv"]


def _run(program: str) -> None:
    """Run a program of this environment's, and note its exit code."""
    sys.modules["mitmproxy_acme.mitm.supervisor"].__dict__["subprocess"] = SimpleNamespace(Popen=_Worker)
    try:
        runpy.run_path(program, run_name="__main__")
    except BaseException as end:
        _note(end)
        raise


def _note(end: BaseException) -> None:
    global _exit_code
    code = end.code if isinstance(end, SystemExit) else 1
    _exit_code = code if isinstance(code, int) else int(code is not None)


class _Worker:
    """A worker of ``mitmproxy-acme run``, forked from its parent: what the supervisor asks of subprocess.Popen."""

    def __init__(self, argv: Sequence[str], stdin: int, pass_fds: Sequence[int]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            _work(argv[-1], stdin, pass_fds)

    def poll(self) -> int | None:
        if self.returncode is None:
            self._wait(os.WNOHANG)
        return self.returncode

    def wait(self) -> int | None:
        if self.returncode is None:
            self._wait(0)
        return self.returncode

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _wait(self, options: int) -> None:
        ended, status = os.waitpid(self.pid, options)
        if ended:
            self.returncode = os.waitstatus_to_exitcode(status)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _work(code: str, stdin: int, kept: Sequence[int]) -> None:
    """Do what an executed ``python -c`` would, and end: nothing of the parent's is left, neither files nor signals."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(stdin, 0)
    for name in os.listdir("/proc/self/fd"):
        if (number := int(name)) > 2 and number not in kept:
            with contextlib.suppress(OSError):  # that of the listing is closed already
                os.close(number)
    for number in kept:
        os.set_inheritable(number, True)
    sys.argv[:] = ["-c"]
    sys.stdin = os.fdopen(0, closefd=False)
    try:
        exec(code, {"__name__": "__main__"})
    except BaseException as end:
        if not isinstance(end, SystemExit):
            traceback.print_exc()
        _note(end)
    threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter does before it calls atexit's
    atexit._run_exitfuncs()


def _end_at_once() -> None:
    """End without freeing what was imported: that touches, and so copies, all memory: 0.1 s of CPU (measured)."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(_exit_code)


_exit_code = 0

if __name__ == "__main__":
    main(*sys.argv[1:])
    _run(sys.argv[0])
