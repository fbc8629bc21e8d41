"""The verdict on a run: everything that breaks a rule or a bound, a sentence each.

Knows the rules and the bounds; must not know how anything was measured, or how it is shown.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from tests.soak.bounds import MORE, Counted
from tests.soak.faults import NODES
from tests.soak.issued import Issue
from tests.soak.journal import Failure
from tests.soak.main import Run
from tests.soak.nodes import lines_of
from tests.soak.resources import Use
from tests.soak.rules import Rules
from tests.soak.world import RENEWED_AFTER, World

# Whole seconds, in which certificates begin, and the time that an order takes.
_ROUNDING = 2.0


@dataclass(frozen=True)
class Broken:
    """Something that has no excuse: when it began and ended (Unix seconds), and what it was."""

    begun: float
    ended: float
    what: str


@dataclass
class Verdict:
    """What was excused, by what; what was not; and the numbers of the table."""

    counted: Counted
    excused: Counter[str] = field(default_factory=Counter)
    broken: list[Broken] = field(default_factory=list)


def judge(run: Run, world: World) -> Verdict:
    """Look at all that happened."""
    rules = Rules(run.journal, world.issued)
    early = [
        (name, before, after)
        for name, issues in world.issued.by_name.items()
        for before, after in pairwise(issues)
        if after.not_before - before.not_before < before.lifetime * RENEWED_AFTER - _ROUNDING
    ]
    issued = world.issued
    counted = Counted(run.seconds, len(run.faults), issued.orders, issued.certificates, len(early))
    verdict = Verdict(counted)
    for failure in run.journal.failures:
        if excuse := rules.excuse(failure):
            verdict.excused[excuse] += 1
        else:
            verdict.broken.append(Broken(failure.begun, failure.ended, _describe(failure)))
    verdict.broken += _broken_streams(run, rules)
    verdict.broken += [_needless(*one) for one in early if not rules.excuse_early(one[1], one[2])]
    verdict.broken += [Broken(run.ended, run.ended, what) for what in _over_bounds(run, world, counted)]
    verdict.broken.sort(key=lambda broken: broken.begun)
    return verdict


def _describe(failure: Failure) -> str:
    held = failure.held
    before = f"served {failure.begun - held.at:.1f} s before" if held is not None else "never served before"
    return f"node {failure.node + 1}, {failure.name}: {failure.outcome}: {failure.detail}; {before}"


def _broken_streams(run: Run, rules: Rules) -> Iterator[Broken]:
    for stream in run.journal.streams:
        if stream.trouble and not rules.excuse_stream(stream):
            yield Broken(stream.begun, stream.ended, f"node {stream.node + 1}: a download broke: {stream.trouble}")


def _needless(name: str, before: Issue, after: Issue) -> Broken:
    age = after.not_before - before.not_before
    return Broken(
        before.not_before, after.not_before, f"{name}: ordered again though its certificate was {age:.0f} s old"
    )


def _over_bounds(run: Run, world: World, counted: Counted) -> Iterator[str]:
    yield from (f"not served in the end, when all was well: {what}" for what in run.not_served)
    if (wasted := counted.orders - counted.certificates + counted.early) > counted.most_wasted():
        yield f"{wasted} orders were wasted, at most {counted.most_wasted()}"
    for number in range(NODES):
        if run.lines[number] > counted.most_lines():
            yield f"node {number + 1} logged {run.lines[number]} lines, at most {counted.most_lines():.0f}"
        if "Traceback" in "\n".join(lines_of(world.nodes[number])):
            yield f"node {number + 1} logged a traceback"
        for what in _grown(run.before[number], run.after[number], counted):
            yield f"node {number + 1} {what}"


def _grown(before: Use, after: Use, counted: Counted) -> Iterator[str]:
    if after.memory - before.memory > counted.most_memory():
        yield f"grew from {before.memory:.0f} to {after.memory:.0f} MB"
    for what in ("descriptors", "threads", "tasks"):
        had, has = getattr(before, what), getattr(after, what)
        if has - had > getattr(MORE, what):
            yield f"has {has} {what} at rest, and had {had}"
