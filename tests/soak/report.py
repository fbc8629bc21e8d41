"""The report of a run: a table, and for a run that failed all that is needed to look for the reason.

Knows how to print; must not know what is allowed.
"""

import time
from collections.abc import Callable, Iterator

from tests.soak.faults import NODES
from tests.soak.journal import EXPIRED, FOREIGN
from tests.soak.main import Run
from tests.soak.nodes import NODE_NAMES, lines_of
from tests.soak.verdict import Broken, Verdict
from tests.soak.world import World

# Seconds of the logs before something broke, and after it.
_BEFORE, _AFTER = 6.0, 2.0
_MOST_BROKEN, _MOST_EXPLAINED, _MOST_LINES = 30, 3, 40
_TIME = len("[00:00:00")

type Say = Callable[[str], None]


def report(run: Run, world: World, verdict: Verdict, say: Say) -> None:
    """Print the table, and where something is broken what it is, the faults, and what each node said at the time."""
    for line in (*_table(run, verdict), *_sums(run, world, verdict)):
        say(line)
    if not verdict.broken:
        return
    say(f"\n{len(verdict.broken)} without an excuse, seed {run.seed}:")
    for broken in verdict.broken[:_MOST_BROKEN]:
        say(f"  {broken.begun - run.started:.1f} to {broken.ended - run.started:.1f} s: {broken.what}")
    say("\nthe faults:")
    for struck in run.journal.struck:
        say(f"  {struck.begun - run.started:.1f} to {struck.ended - run.started:.1f} s: {struck.fault}")
    for broken in verdict.broken[:_MOST_EXPLAINED]:
        _explain(run, world, broken, say)


def _table(run: Run, verdict: Verdict) -> Iterator[str]:
    journal, most = run.journal, verdict.counted
    failed = [sum(failure.node == node for failure in journal.failures) for node in range(NODES)]
    yield ""
    yield _row("", *NODE_NAMES)
    yield _row("handshakes served", *(journal.served[node] for node in range(NODES)))
    yield _row("not served", *failed)
    for what, digits in (("memory", 0), ("descriptors", 0), ("threads", 0), ("tasks", 0)):
        used = zip(run.before, run.after, strict=True)
        cells = [f"{getattr(before, what):.{digits}f} to {getattr(after, what):.{digits}f}" for before, after in used]
        yield _row(f"{what} (MB)" if what == "memory" else what, *cells)
    yield _row(f"log lines (at most {most.most_lines():.0f})", *run.lines)


def _row(*cells: object) -> str:
    first, *others = cells
    return f"{first!s:26}" + "".join(f"{cell!s:>22}" for cell in others)


def _sums(run: Run, world: World, verdict: Verdict) -> Iterator[str]:
    journal, counted = run.journal, verdict.counted
    outcomes = [failure.outcome for failure in journal.failures]
    whole = sum(not stream.trouble for stream in journal.streams)
    yield (
        f"names {len(world.issued.by_name)}, certificates {counted.certificates}, orders {counted.orders}, "
        f"certificates that were not needed yet {counted.early}"
    )
    yield f"downloads {len(journal.streams)}, whole {whole}"
    yield f"expired {outcomes.count(EXPIRED)}, foreign {outcomes.count(FOREIGN)}"
    for excuse, count in verdict.excused.most_common():
        yield f"excused {count:5}: {excuse}"


def _explain(run: Run, world: World, broken: Broken, say: Say) -> None:
    say(f"\n{broken.what}\nwhat the nodes said from {_BEFORE:.0f} s before until {_AFTER:.0f} s after:")
    first, last = (_clock(moment) for moment in (broken.begun - _BEFORE, broken.ended + _AFTER))
    for number, node in enumerate(world.nodes):
        lines = [line for line in lines_of(node) if first <= line[:_TIME] <= last]
        for line in lines[-_MOST_LINES:]:
            say(f"  node {number + 1} {line[:300]}")


def _clock(moment: float) -> str:
    return time.strftime("[%H:%M:%S", time.localtime(moment))
