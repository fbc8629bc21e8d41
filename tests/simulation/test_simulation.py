"""The simulator itself: its runs repeat, its seeds hold, and it finds what is broken on purpose.

In a process of its own where texts have fixed hashes: a run is the same on every machine.
"""

import itertools
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.faults import Fault, FaultKind
from tests.simulation.handmade import TWO_ORDERS
from tests.simulation.scenario import Scenario, shrink
from tests.simulation.storage import StorageClient
from tests.simulation.world import run

ROOT = Path(__file__).resolve().parents[2]
# Among the first seeds, and those that found something.
SEEDS = "5-12"
FOUND = (165, 341, 388, 2494, 31529, 31821, 50150, 62087, 72097, 80209, 81325)


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.simulate", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_same_seed_is_the_same_run() -> None:
    """Every call to the storage, at the same moment, in the same order."""
    first, again, other = (run(Scenario.of(seed)) for seed in (11, 11, 4))

    assert first.trace == again.trace != other.trace
    assert first.counts == again.counts


def test_seeds_hold() -> None:
    """And the last line says how many were run."""
    done = simulate("--seeds", SEEDS, "--processes", "1")

    assert done.returncode == 0, done.stdout
    assert "8 seeds in" in done.stdout
    assert "0 failed" in done.stdout


@pytest.fixture(scope="module")
def told() -> dict[int, str]:
    """What is said of each of these seeds; one process runs them all, because its start takes a second."""
    done = simulate(*(word for seed in FOUND for word in ("--seed", str(seed))))
    assert done.returncode in (0, 1), done.stderr
    parts = re.split(r"^seed (\d+): ", done.stdout, flags=re.MULTILINE)[1:]
    return {int(seed): text for seed, text in itertools.batched(parts, 2)}


@pytest.mark.parametrize("seed", FOUND)
def test_seed_that_found_something_holds_now(told: dict[int, str], seed: int) -> None:
    assert "all invariants hold" in told[seed], told[seed]


def test_each_fault_of_the_code_is_found() -> None:
    """Whatever is broken on purpose, and only that: the same run holds with the code as it is."""
    done = simulate("--mutants")

    assert done.returncode == 0, done.stdout


def test_paused_node_does_nothing_and_then_all_that_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads and timers too, while the other node works on."""
    pause = Fault(FaultKind.PAUSE, at=100.0, seconds=40.0, node=0, name=0, amount=0.0)
    calls, call = list[tuple[int, float]](), StorageClient._call

    def note(client: StorageClient, *arguments: Any, **options: Any) -> Any:
        calls.append((client._node, time.monotonic()))
        return call(client, *arguments, **options)

    monkeypatch.setattr(StorageClient, "_call", note)
    outcome = run(replace(TWO_ORDERS, until=200.0, faults=(pause,)))

    assert outcome.violation is None
    paused = [node for node, at in calls if 100.0 < at < 139.9]
    assert paused.count(0) == 0
    assert paused.count(1) > 20
    assert min(at for node, at in calls if node == 0 and at > 100.0) == pytest.approx(140.0, abs=0.01)


def test_failing_run_is_shrunk_to_the_faults_that_it_needs() -> None:
    """Of many faults those stay without which the run would not fail."""
    scenario = Scenario.of(6)
    assert len(scenario.faults) == 8
    needed = {scenario.faults[2], scenario.faults[5]}

    smallest = shrink(scenario, lambda fewer: needed <= set(fewer.faults))

    assert set(smallest.faults) == needed


def test_calm_run_needs_few_orders() -> None:
    """Without faults each name is ordered once, and again when half of its life is over."""
    scenario = replace(Scenario.of(9), faults=(), until=1_000.0, on_demand=0, lifetime=1_200.0)

    outcome = run(scenario)

    assert outcome.violation is None
    assert outcome.counts["orders"] == 2 * scenario.managed


def test_crash_ends_a_process_and_another_begins() -> None:
    """A node that crashes in its first order orders again when it is back: twice, not more."""
    crash = Fault(FaultKind.CRASH, at=0.05, seconds=20.0, node=0, name=0, amount=0.0)
    scenario = replace(Scenario.of(1), roles=("standalone",), managed=1, on_demand=0, faults=(crash,), until=200.0)

    outcome = run(scenario)

    assert outcome.violation is None
    assert outcome.counts["certificates"] in (1, 2)
