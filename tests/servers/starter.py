"""A process that has imported mitmproxy and the addon, and forks a mitmdump at each order: a start costs no import.

Knows what mitmdump imports, and how a process becomes another one's child; must not know who orders, nor any option.
A program, started by ``forked.py`` with the path of the mitmdump that it is to be and the folders of the addon's
sources. Each line of its stdin is an order as JSON: ``argv``, ``cwd``, ``environment``, ``log``; for each it prints two
lines, the process id and an empty one, in either order. It ends with its stdin.
"""

import gc
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

# What mitmdump imports when it is started with the addon, and what both import at first use.
_IMPORTS = (
    "mitmproxy.tools.main",
    "mitmproxy.tools.dump",
    "mitmproxy_acme.mitm.addon",
    "acme_storage.file",
)


def main(mitmdump: str, *sources: str) -> None:
    """Fork at each order; returns in the forked processes only, and exits at the end of stdin."""
    sys.path[0] = str(Path(mitmdump).parent)  # as it is in mitmdump; here it was this folder, which has a redis.py
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
    """Take the place of a program that was executed: nothing of the starter's is left open."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)
    sys.argv[:] = order["argv"]


if __name__ == "__main__":
    main(*sys.argv[1:])
    from mitmproxy.tools.main import mitmdump

    sys.exit(mitmdump())  # the program of a console script
