"""The three nodes: mitmdump with the addon, ``mitmproxy-acme run --workers 2``, and ``mitmproxy-acme run``.

Knows their options, processes and logs; must not know what goes wrong with them.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from tests.servers.base import free_port
from tests.servers.mitmdump import Mitmdump, Option, Run
from tests.soak.faults import RUN_WITH_WORKERS, WRONG_CLOCK

_TASK_COUNT = Path(__file__).with_name("task_count.py")
_CLOCK = Path(__file__).with_name("clock")
NODE_NAMES = ("1: mitmdump", "2: run --workers 2", "3: run")


# Seconds: three processes may start at once, on cores that are busy.
_READY_TIMEOUT = 90


class Plain(Mitmdump):
    """mitmdump with the addon."""

    ready_timeout = _READY_TIMEOUT


class Workers(Run):
    """``mitmproxy-acme run --workers 2``."""

    ready_timeout = _READY_TIMEOUT
    workers = 2


class WithClock(Run):
    """``mitmproxy-acme run`` whose clock can be set while it runs."""

    ready_timeout = _READY_TIMEOUT

    def __init__(self, upstream: str, options: Mapping[str, Option], *, http_port: int) -> None:
        super().__init__(upstream, options, http_port=http_port)
        self._clock = self.folder / "clock"
        self.set_clock(0)
        path = os.pathsep.join(filter(None, (str(_CLOCK), os.environ.get("PYTHONPATH"))))
        self.environment |= {"PYTHONPATH": path, "ACME_SOAK_CLOCK": str(self._clock)}

    def set_clock(self, seconds: int) -> None:
        """Set it so far ahead of the true time."""
        self._clock.write_text(str(seconds))


def make_nodes(upstream: str, options: Mapping[str, Option], environment: Mapping[str, str]) -> list[Mitmdump]:
    """Return the nodes, which are not started yet; each counts its tasks in its folder."""
    nodes: list[Mitmdump] = []
    for kind in (Plain, Workers, WithClock):
        node: Mitmdump = kind(upstream, options, http_port=free_port())
        node.environment |= {**environment, "ACME_SOAK_TASKS": str(node.folder)}
        node.extra_arguments = ["-s", str(_TASK_COUNT)]
        nodes.append(node)
    assert isinstance(nodes[RUN_WITH_WORKERS], Workers)
    assert isinstance(nodes[WRONG_CLOCK], WithClock)
    return nodes


def lines_of(node: Mitmdump) -> list[str]:
    """Return what a node has logged since it was made, without a line for each connection."""
    text = node.log.read_text(errors="replace")
    return [line for line in text.splitlines() if line and not node.noise.search(line)]
