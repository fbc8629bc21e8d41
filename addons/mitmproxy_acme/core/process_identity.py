"""Which process of this machine wrote something, and whether it still lives.

An identity names the boot of the machine, the namespaces that give process numbers and start times their meaning, the
process number, and when the process started. Containers of one machine share its boot and have other namespaces; a
number that is used again has another start. What cannot be known for sure counts as alive: another machine, another
container, another operating system than Linux. This module knows ``/proc``; it must not know what is written.
"""

import contextlib
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

_IDENTITY = re.compile(r"([0-9a-f-]{36}):(\d{1,20}):(\d{1,20}):(\d{1,7}):(\d{1,20})\Z")
# Behind the name of the program in /proc/PID/stat (proc(5)), which may itself contain blanks and parentheses.
_STATE, _THREADS, _START = 0, 17, 19


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process. ``boot`` is the boot's UUID; the namespaces are inode numbers; ``start`` is in ticks since boot."""

    boot: str
    pid_namespace: int
    time_namespace: int
    pid: int
    start: int

    def __str__(self) -> str:
        return f"{self.boot}:{self.pid_namespace}:{self.time_namespace}:{self.pid}:{self.start}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what ``str`` returned; None for anything else."""
        match = _IDENTITY.match(text)
        return cls(match[1], *(int(number) for number in match.groups()[1:])) if match else None

    @classmethod
    def of_this_process(cls) -> "ProcessIdentity | None":
        """Return this process's identity; None where it cannot be known."""
        return _identity(os.getpid())

    def has_died(self) -> bool:
        """Say whether it was a process of this machine that no longer lives; False where this cannot be known."""
        own = _identity(os.getpid())
        if own is None or self._surroundings != own._surroundings:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # it lives, and belongs to another user
            pass
        stat = _stat(self.pid)
        return stat is not None and (stat.start != self.start or stat.is_zombie)

    @property
    def _surroundings(self) -> tuple[str, int, int]:
        return self.boot, self.pid_namespace, self.time_namespace


@dataclass(frozen=True, slots=True)
class _Stat:
    start: int
    is_zombie: bool


@lru_cache(2)
def _identity(pid: int) -> ProcessIdentity | None:
    """Return the identity of this process; cached by its number, because it may have been forked."""
    try:
        # With the /proc of another PID namespace, the numbers there would be those of other processes.
        if os.readlink("/proc/self") != str(pid):
            return None
        boot = _read("/proc/sys/kernel/random/boot_id").strip()
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None
    stat = _stat(pid)
    if stat is None:
        return None
    identity = ProcessIdentity(boot, namespace, _time_namespace(), pid, stat.start)
    return identity if ProcessIdentity.parse(str(identity)) == identity else None


def _time_namespace() -> int:
    with contextlib.suppress(OSError):  # before Linux 5.6 there were none
        return os.stat("/proc/self/ns/time").st_ino
    return 0


def _stat(pid: int) -> _Stat | None:
    """Read /proc/PID/stat; None if it cannot be read, as under ``hidepid``."""
    try:
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        # A killed process stays a zombie until its parent asks for it. One whose other threads run is none.
        is_zombie = fields[_STATE] in ("Z", "X") and int(fields[_THREADS]) <= 1
        return _Stat(int(fields[_START]), is_zombie)
    except (OSError, ValueError, IndexError):
        return None


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
