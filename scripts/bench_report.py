"""What scripts/bench found, as a table for a terminal, for the documentation, and as JSON.

Knows rows and machines; must not know how anything was measured.
"""

import dataclasses
import gzip
import os
import platform
import sqlite3
import ssl
import statistics
import subprocess
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import mitmproxy.version
from OpenSSL import SSL

from tests.servers.binaries import Missing, find

_HEADINGS = ("work", "this addon", "peer", "ratio", "goal", "met")


@dataclass(frozen=True)
class Row:
    """One line of the table. `method` says how; `samples` are what the figures were made of."""

    key: str
    work: str
    ours: str
    peer: str
    ratio: float | None
    goal: str
    met: bool | None  # None: nothing is promised
    method: str
    samples: dict[str, object] = field(default_factory=dict)

    def cells(self) -> tuple[str, ...]:
        ratio = "" if self.ratio is None else f"{self.ratio:.2g}"
        met = "" if self.met is None else "yes" if self.met else "NO"
        return self.work, self.ours, self.peer, ratio, self.goal, met


@dataclass(frozen=True)
class Machine:
    """Where and when it was measured."""

    began: str
    seconds: float
    cores: int
    processor: str
    load_before: tuple[float, float, float]
    load_after: tuple[float, float, float]
    versions: dict[str, str]

    def lines(self) -> list[str]:
        load = f"load (1, 5, 15 min) {_numbers(self.load_before)} before, {_numbers(self.load_after)} after"
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        where = f"{self.cores} cores, {self.processor}"
        return [f"{self.began}, {self.seconds:.0f} s; {where}; loopback only; {load}.", f"{versions}."]


def machine(began: datetime, load_before: tuple[float, float, float], servers: Sequence[str]) -> Machine:
    """Call it when everything is measured; `servers` took part, of PROXIES or STORES."""
    seconds = (datetime.now(UTC) - began).total_seconds()
    stamp = f"{began:%Y-%m-%d %H:%M} UTC"
    found = versions(servers)
    return Machine(stamp, seconds, os.cpu_count() or 1, _processor(), load_before, os.getloadavg(), found)


PROXIES, STORES = ("Pebble", "Caddy"), ("SQLite", "PostgreSQL", "Redis")


def versions(servers: Sequence[str]) -> dict[str, str]:
    """Of everything that takes part."""
    known: dict[str, Callable[[], str]] = {
        "Pebble": lambda: _debian_version("pebble"),
        "Caddy": lambda: _said_version("caddy", "version", 0),
        "SQLite": lambda: sqlite3.sqlite_version,
        "PostgreSQL": lambda: _said_version("postgres", "--version", 2),
        "Redis": lambda: _said_version("redis-server", "--version", 2).removeprefix("v="),
    }
    return {
        "Python": platform.python_version(),
        "mitmproxy": mitmproxy.version.VERSION,
        "its OpenSSL": SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode().split()[1],
        "the client's OpenSSL": ssl.OPENSSL_VERSION.split()[1],
        **{server: known[server]() for server in servers},
    }


def _said_version(name: str, word: str, place: int) -> str:
    """Of a program that says it when it is asked, as one of several words."""
    try:
        program = find(name)
        environment = {**os.environ, **program.environment}
        said = subprocess.run([program.path, word], env=environment, capture_output=True, text=True, check=True)
        return said.stdout.split()[place]
    except (Missing, OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def _debian_version(name: str) -> str:
    """Of a package that scripts/servers unpacked: `pebble -version` says only "dev"."""
    try:
        changelog = Path(find(name).path).parents[1] / "share" / "doc" / name / "changelog.Debian.gz"
        return gzip.decompress(changelog.read_bytes()).decode().partition("(")[2].partition(")")[0]
    except (Missing, OSError):
        return "unknown"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()


def text(rows: Sequence[Row], where: Machine) -> str:
    """For a terminal."""
    table = [_HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(_HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    lines.insert(1, "  ".join("-" * width for width in widths))
    notes = [textwrap.fill(f"{row.work}: {row.method}", 118, subsequent_indent="    ") for row in rows]
    return "\n".join([*lines, "", "How it was measured:", *notes, "", *where.lines()])


def markdown(rows: Sequence[Row], where: Machine) -> str:
    """For docs/measured.md."""
    table = [_HEADINGS, ("---",) * len(_HEADINGS), *(row.cells() for row in rows)]
    notes = [f"- {row.work}: {row.method}" for row in rows]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in table), "", *notes, "", *where.lines()])


def as_json(rows: Sequence[Row], where: Machine) -> dict[str, object]:
    """For another program."""
    return {"machine": dataclasses.asdict(where), "rows": [dataclasses.asdict(row) for row in rows]}


def spread(samples: Sequence[float], unit: str = "ms", digits: int = 0) -> str:
    """Median, and between what."""
    middle, least, most = statistics.median(samples), min(samples), max(samples)
    return f"{middle:.{digits}f} {unit} ({least:.{digits}f} to {most:.{digits}f})"


def percentile(samples: Sequence[float], percent: float) -> float:
    """The nearest sample that `percent` of them do not exceed."""
    ordered = sorted(samples)
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.1f}" for value in values)
