"""What the processes of a node use: memory, descriptors, threads, asyncio tasks, and lines of the log.

Knows /proc; must not know what is too much.
"""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from tests.servers.mitmdump import Mitmdump
from tests.soak.nodes import lines_of

_RESIDENT = re.compile(r"VmRSS:\s+(\d+) kB")
_THREADS = re.compile(r"Threads:\s+(\d+)")

# One connection has four.
_FEW_TASKS = 3


@dataclass(frozen=True)
class Use:
    """What one process uses: MB of resident memory, and counts."""

    memory: float = 0.0
    descriptors: int = 0
    threads: int = 0
    tasks: int = 0

    def most(self, other: "Use") -> "Use":
        """Return the greater of each."""
        return Use(
            max(self.memory, other.memory),
            max(self.descriptors, other.descriptors),
            max(self.threads, other.threads),
            max(self.tasks, other.tasks),
        )

    def is_about(self, before: "Use") -> bool:
        """Say whether it has no more tasks than before, but for a few of the node's own."""
        return self.tasks <= before.tasks + _FEW_TASKS

    def __str__(self) -> str:
        return f"{self.memory:.0f} MB, {self.descriptors} descriptors, {self.threads} threads, {self.tasks} tasks"


def use_of(node: Mitmdump) -> Use:
    """Return the most that any process of a node uses now; zeros while it is down."""
    most = Use()
    for pid in _family(node.pid) if node.running else ():
        with contextlib.suppress(OSError):
            most = most.most(_use_of(pid, node.folder))
    return most


def log_lines(node: Mitmdump) -> int:
    """Return how many lines a node has logged, without those for each connection."""
    return len(lines_of(node))


def _use_of(pid: int, folder: Path) -> Use:
    status = Path(f"/proc/{pid}/status").read_text()
    memory, threads = _RESIDENT.search(status), _THREADS.search(status)
    if memory is None or threads is None:  # it has just ended
        return Use()
    count = folder / f"tasks-{pid}"
    tasks = count.read_text() if count.exists() else ""
    return Use(int(memory[1]) / 1024, len(os.listdir(f"/proc/{pid}/fd")), int(threads[1]), int(tasks) if tasks else 0)


def _family(pid: int) -> list[int]:
    family = [pid]
    for parent in family:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                family += map(int, (task / "children").read_text().split())
    return family
