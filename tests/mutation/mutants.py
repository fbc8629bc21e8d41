"""A mutant: one wrong text in one source file.

Knows the project's source files; must not know how mutants are made or run.
"""

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SOURCE_ROOTS = ("addons", "storage")


@dataclass(frozen=True)
class Mutant:
    """``old`` at byte ``start`` of ``path``, relative to the checkout, becomes ``new``."""

    path: str
    start: int
    old: str
    new: str
    kind: str

    @property
    def source(self) -> bytes:
        whole = read(self.path)
        return whole[: self.start] + self.new.encode() + whole[self.start + len(self.old.encode()) :]

    @property
    def lines(self) -> range:
        """The lines that differ, from 1."""
        first = read(self.path).count(b"\n", 0, self.start) + 1
        return range(first, first + self.old.count("\n") + 1)

    @property
    def module(self) -> str:
        return module_of(self.path)

    def diff(self) -> str:
        """What differs, a line each, without context."""
        before, after = read(self.path).decode().splitlines(), self.source.decode().splitlines()
        lines = list(difflib.unified_diff(before, after, n=0, lineterm=""))
        return "\n".join(f"    {line}" for line in lines[2:] if not line.startswith("@@"))

    def __str__(self) -> str:
        return f"{self.path}:{self.lines.start} [{self.kind}]"


@cache
def read(path: str) -> bytes:
    return (ROOT / path).read_bytes()


def module_of(path: str) -> str:
    parts = Path(path).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> list[str]:
    """The paths of all modules, relative to the checkout."""
    found = (path for root in _SOURCE_ROOTS for path in (ROOT / root).rglob("*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def named(pattern: str) -> list[str]:
    """Return the modules that a name such as ``core/renewal`` or ``lifecycle`` means. Raises ``LookupError``."""
    part = f"/{pattern.strip('/').removesuffix('.py')}"
    found = [path for path in sources() if f"/{path}".endswith(f"{part}.py") or f"{part}/" in f"/{path}"]
    if not found:
        raise LookupError(f"no module is named {pattern}")
    return found
