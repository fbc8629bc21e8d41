"""The verdict on made-up runs: each bound on what the nodes use, log and order finds what is over it, and only that."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.soak.faults import NODE_KINDS, NODES, Fault
from tests.soak.issued import Issue
from tests.soak.journal import Stream
from tests.soak.main import Run
from tests.soak.resources import Use
from tests.soak.verdict import Verdict, judge

_NOW = 1_000_000.0
_REST = Use(memory=100.0, descriptors=40, threads=10, tasks=20)

type JudgeRun = Callable[..., Verdict]


@pytest.fixture
def judge_run(tmp_path: Path) -> JudgeRun:
    """Judge a run of an hour that was all right, with 10 certificates and 2 faults, but for what is given."""
    logs = [tmp_path / f"node-{number}" for number in range(NODES)]

    def judge_run(
        *,
        after: Use = _REST,
        lines: int = 100,
        orders: int = 10,
        log: str = "all is well\n",
        issues: Sequence[Issue] = (),
        streams: Sequence[Stream] = (),
        **fields: Any,
    ) -> Verdict:
        for path in logs:
            path.write_text("all is well\n")
        logs[1].write_text(log)
        run = Run("redis", 1, 3_600.0, print)
        run.faults = [Fault(NODE_KINDS[0], 0.0, 1.0, 0)] * 2
        run.before, run.after = [_REST] * NODES, [_REST, after, _REST]
        run.lines = [100, lines, 100]
        run.journal.streams += streams
        for name, value in fields.items():
            setattr(run, name, value)
        issued: Any = SimpleNamespace(by_name={"a.soak.test": list(issues)}, orders=orders, certificates=10)
        nodes = [SimpleNamespace(log=path, noise=re.compile("client connect")) for path in logs]
        world: Any = SimpleNamespace(issued=issued, nodes=nodes)
        return judge(run, world)

    return judge_run


def test_run_without_a_fault_of_ours_is_passed(judge_run: JudgeRun) -> None:
    assert judge_run().broken == []


@pytest.mark.parametrize(
    ("most", "over", "sentence"),
    [
        # 50 MB, and 20 for the hour
        ({"after": Use(170.0, 40, 10, 20)}, {"after": Use(171.0, 40, 10, 20)}, "node 2 grew from 100 to 171 MB"),
        ({"after": Use(100.0, 64, 10, 20)}, {"after": Use(100.0, 65, 10, 20)}, "65 descriptors at rest, and had 40"),
        ({"after": Use(100.0, 40, 22, 20)}, {"after": Use(100.0, 40, 23, 20)}, "23 threads at rest, and had 10"),
        ({"after": Use(100.0, 40, 10, 44)}, {"after": Use(100.0, 40, 10, 45)}, "45 tasks at rest, and had 20"),
        # 60 to start, 5 for each certificate, 80 for each fault
        ({"lines": 270}, {"lines": 271}, "node 2 logged 271 lines, at most 270"),
        # 8 for each fault
        ({"orders": 26}, {"orders": 27}, "17 orders were wasted, at most 16"),
        ({}, {"log": "Traceback (most recent call last):\n"}, "node 2 logged a traceback"),
        ({}, {"not_served": ["node 1, a.soak.test"]}, "not served in the end, when all was well: node 1, a.soak.test"),
    ],
)
def test_bound_is_broken_by_one_too_many(
    judge_run: JudgeRun, most: dict[str, Any], over: dict[str, Any], sentence: str
) -> None:
    assert judge_run(**most).broken == []
    broken = judge_run(**over).broken
    assert len(broken) == 1
    assert sentence in broken[0].what


def test_order_for_a_fresh_certificate_is_wasted_and_needs_an_excuse(judge_run: JudgeRun) -> None:
    """A certificate of 60 s is renewed after 30: what comes within 28 came too early."""
    first = Issue("a.soak.test", _NOW, _NOW + 60)
    late, early = (Issue("a.soak.test", _NOW + age, _NOW + age + 60) for age in (28.0, 27.0))
    assert judge_run(issues=[first, late]).broken == []

    verdict = judge_run(issues=[first, early])

    assert verdict.counted.early == 1
    assert [broken.what for broken in verdict.broken] == [
        "a.soak.test: ordered again though its certificate was 27 s old"
    ]
    assert len(judge_run(issues=[first, early], orders=26).broken) == 2  # it counts among the wasted ones


def test_download_that_breaks_without_a_fault_is_told(judge_run: JudgeRun) -> None:
    whole, broken = (Stream(1, _NOW, _NOW + 40, trouble) for trouble in ("", "connection reset"))
    verdict = judge_run(streams=[whole, broken])
    assert [one.what for one in verdict.broken] == ["node 2: a download broke: connection reset"]
