"""Run the soak on one store, or on each in turn.

Started by scripts/soak. Knows arguments and exit codes; must not know what a soak is (``tests/soak``).
"""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.servers.binaries import Missing
from tests.soak.main import Run
from tests.soak.places import KINDS
from tests.soak.report import report
from tests.soak.verdict import Verdict, judge
from tests.soak.world import World

_SECONDS = 60.0
_STORE = "redis"
_LEAST_SECONDS = 30.0


def main() -> int:
    """Return 0 if no run broke a rule."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description="Real nodes under load and faults.")
    parser.add_argument("--store", choices=(*KINDS, "all"), default=_STORE, help=f"on which store ({_STORE})")
    parser.add_argument("--seconds", type=float, default=_SECONDS, metavar="N", help="how long, on each store (60)")
    parser.add_argument("--seed", type=int, metavar="S", help="what the faults are drawn from (random)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the logs of the nodes there")
    chosen = parser.parse_args()
    if chosen.seconds < _LEAST_SECONDS:
        parser.error(f"--seconds: at least {_LEAST_SECONDS:.0f}, for faults and the time after them")
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(1_000_000)
    stores = KINDS if chosen.store == "all" else (chosen.store,)
    failed = [store for store in stores if not run_on(store, chosen.seconds, seed, chosen.keep)]
    if failed:
        print(f"\nfailed: {', '.join(failed)}; again: scripts/soak --store {failed[0]} --seed {seed}")
    return int(bool(failed))


def run_on(store: str, seconds: float, seed: int, keep: Path | None) -> bool:
    """Say whether a run broke no rule; a store that is missing is left out, and in CI it counts as broken."""
    print(f"== {store}, {seconds:.0f} s, seed {seed}", flush=True)
    run, begun = Run(store, seed, seconds, say), time.monotonic()

    def finish(run: Run, world: World) -> Verdict:
        verdict = judge(run, world)
        report(run, world, verdict, say)
        if keep is not None:
            keep_logs(world, keep, f"{store}-{seed}")
        return verdict

    try:
        with tempfile.TemporaryDirectory(prefix="acme-soak-") as folder:
            verdict = run.go(Path(folder), finish)
    except (Missing, pytest.skip.Exception, pytest.fail.Exception) as error:  # as the fixtures of tests say it
        say(f"left out: {error}")
        return os.environ.get("CI") != "true"
    say(f"{'FAILED' if verdict.broken else 'passed'} after {time.monotonic() - begun:.0f} s in all")
    return not verdict.broken


def keep_logs(world: World, folder: Path, name: str) -> None:
    """Copy the logs of the nodes and of the CA."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, node in enumerate(world.nodes, 1):
        (folder / f"{name}-node{number}.log").write_bytes(node.log.read_bytes())
    (folder / f"{name}-ca.log").write_bytes(world.ca.log.read_bytes())


def say(line: str) -> None:
    """Print at once: a run may be watched."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
