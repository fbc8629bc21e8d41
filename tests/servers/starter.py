"""A process that has imported mitmproxy and the addon, and forks a program at each order: a start costs no import.

Knows what mitmdump, mitmweb and mitmproxy-acme import, and how a process becomes another one's child; must not know who
orders, nor any option. A program, started by ``forked.py`` with the folder of those programs and the folders of the
addon's sources. Each line of its stdin is an order as JSON: ``argv`` (its first word is the path of a program written
in Python), ``cwd``, ``environment``, and the paths ``stdin``, ``stdout``, ``stderr``; for each it prints two lines, the
process id and an empty one, in either order. It ends with its stdin.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import sys
from typing import Any

# What the programs import when they start, and what they import at first use.
_IMPORTS = (
    "mitmproxy.tools.main",
    "mitmproxy.tools.dump",
    "mitmproxy.tools.web.master",
    "mitmproxy_acme.mitm.addon",
    "mitmproxy_acme.cli.main",
    "acme_storage.file",
    "acme_storage.redis_store",
    "acme_storage.consul",
    "acme_storage.vault",
    "acme_storage.sql_sqlite",
    "acme_storage.sql_postgresql",
)


def main(programs: str, *sources: str) -> None:
    """Fork at each order; returns in the forked processes only, and exits at the end of stdin."""
    atexit.register(_end_at_once)  # the first that is registered is the last that is called
    sys.path[0] = programs  # as it is in the programs; here it was this folder, which has a redis.py
    sys.path[:0] = sources  # as -s has them while the script is loaded
    for module in _IMPORTS:
        importlib.import_module(module)
    del sys.path[: len(sources)]
    _check_fork_is_safe()
    gc.collect()
    gc.freeze()  # so that the collector of a child leaves alone, and so shared, what was there before
    while order := sys.stdin.buffer.readline():  # one at a time: nothing more is in the buffer that a child gets
        if _fork_orphan():
            _become(json.loads(order))
            return
    sys.exit()


def _check_fork_is_safe() -> None:
    """No thread would be in the children, and a lock that it holds would stay held."""
    tasks = os.listdir("/proc/self/task")
    files = {int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}
    if len(tasks) > 1 or max(files) > 2:
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
    os.write(1, b"%d\n" % os.getpid())
    return True


def _become(order: dict[str, Any]) -> None:
    """Become a program as if it had been executed: nothing of the starter stays open."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    for target, name in enumerate(("stdin", "stdout", "stderr")):
        file = os.open(order[name], os.O_WRONLY | os.O_APPEND | os.O_CREAT if target else os.O_RDONLY, 0o666)
        os.dup2(file, target)
        os.close(file)
    sys.argv[:] = order["argv"]


def _run(program: str) -> None:
    """Run a program of this environment's, and note its exit code."""
    global _exit_code
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        _exit_code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    except BaseException:
        _exit_code = 1
        raise


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
