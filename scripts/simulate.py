"""Run seeds of the simulator on all processors, and shrink those that fail.

Started by scripts/simulate. Knows how to run and report; must not know what is simulated (``tests/simulation``).
"""

import argparse
import contextlib
import itertools
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from scripts import fleet
from tests.simulation.calendar_run import Course, live_through
from tests.simulation.industry_calendar import CALENDAR, DAY, HOUR
from tests.simulation.mutants import MUTANTS
from tests.simulation.scenario import Scenario, shrink
from tests.simulation.world import Outcome, run

_SEEDS = "0-999"
_MOST_FAILURES = 10


@dataclass(frozen=True)
class Result:
    """One seed: why it failed, empty if it did not, and its outcome."""

    seed: int
    violation: str
    counts: dict[str, int]


def main() -> int:
    """Return 0 if no seed failed."""
    parser = argparse.ArgumentParser(prog="scripts/simulate", description="Run the lifecycle code on virtual time.")
    parser.add_argument("--seeds", default=_SEEDS, metavar="FIRST-LAST", help=f"which seeds to run ({_SEEDS})")
    parser.add_argument(
        "--seed",
        type=int,
        action="append",
        metavar="N",
        help="run one seed, and shrink it if it fails; may be repeated",
    )
    parser.add_argument("--verbose", action="store_true", help="with --seed: show what the nodes log")
    parser.add_argument("--minutes", type=float, metavar="N", help="run seeds from the first one on, for so long")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--mutants", action="store_true", help="break the code on purpose: is each fault found?")
    parser.add_argument("--calendar", action="store_true", help="live through each change of the industry's rules")
    parser.add_argument("--fleet", action="store_true", help="compute a million names, and write the page about them")
    chosen = parser.parse_args()
    if chosen.fleet:
        return fleet.write()
    if chosen.calendar:
        return run_calendar(chosen.processes)
    if chosen.mutants:
        return run_mutants()
    if chosen.seed:
        return max([run_one(seed, verbose=chosen.verbose) for seed in chosen.seed])
    first, _, last = chosen.seeds.partition("-")
    seeds = itertools.count(int(first)) if chosen.minutes else iter(range(int(first), int(last or first) + 1))
    return run_many(seeds, chosen.processes, chosen.minutes)


def run_one(seed: int, *, verbose: bool) -> int:
    """Run a seed, and with as few faults as still fail in the same way."""
    scenario = Scenario.of(seed)
    with shown_log() if verbose else contextlib.nullcontext():
        outcome = run(scenario)
    describe(scenario, outcome)
    if outcome.violation is None:
        return 0
    kind = kind_of(outcome)
    smallest = shrink(scenario, lambda fewer: kind_of(run(fewer)) == kind)
    if len(smallest.faults) < len(scenario.faults):
        print("\nIt needs no more than these faults:")
        describe(smallest, run(smallest))
    return 1


@contextlib.contextmanager
def shown_log() -> Iterator[None]:
    """Print what the nodes log, with the virtual time."""
    logger, handler = logging.getLogger("mitmproxy_acme"), logging.StreamHandler(sys.stdout)
    handler.setFormatter(_VirtualTime("  %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


class _VirtualTime(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{time.monotonic():9.3f} s{super().format(record)}"


def kind_of(outcome: Outcome) -> str:
    """Return which invariant does not hold."""
    return str(outcome.violation or "").partition(":")[0]


def _switch(on: bool) -> str:
    return "on" if on else "off"


def describe(scenario: Scenario, outcome: Outcome) -> None:
    print(
        f"seed {scenario.seed}: nodes {', '.join(scenario.roles)}; {scenario.managed} managed names, "
        f"{scenario.on_demand} on demand, certificates of {scenario.lifetime:.0f} s, ARI {_switch(scenario.ari)}, "
        f"{scenario.cas} CAs, staging {_switch(scenario.staging)}"
    )
    for fault in scenario.faults:
        print(f"  {fault}")
    verdict = f"after {outcome.at:.0f} s: {outcome.violation}" if outcome.violation else "all invariants hold"
    print(f"{verdict} ({', '.join(f'{name} {count}' for name, count in outcome.counts.items())})")
    print(f"trace {outcome.trace}")


def run_mutants() -> int:
    """Run each mutant with the scenario that finds it; return 0 if all are found.

    The code itself must pass there until the moment at which the last one of that scenario is found.
    """
    broken, last = dict[str, Outcome](), defaultdict[Scenario, float](float)
    for name, (mutant, scenario) in MUTANTS.items():
        with mutant():
            broken[name] = run(scenario)
        last[scenario] = max(last[scenario], broken[name].at)
    whole = {scenario: run(scenario, until) for scenario, until in last.items()}
    missed = 0
    for name, (_, scenario) in MUTANTS.items():
        found, alone = broken[name].violation, whole[scenario].violation
        verdict = f"NOT THE MUTANT'S: {alone}" if alone else found or "NOT FOUND"
        missed += found is None or alone is not None
        print(f"{name}: {verdict}", flush=True)
    print(f"{len(MUTANTS) - missed} of {len(MUTANTS)} faults are found")
    return 1 if missed else 0


def run_calendar(processes: int) -> int:
    """Live through each change in every way, with windows asked for every six hours; return 0 if nothing expired."""
    courses = [
        Course(change, ari, outage, names=3, ask_again=6 * HOUR, renew_before=renew_before)
        for change, ari, outage in itertools.product(CALENDAR, (False, True), (False, True))
        for renew_before in ("auto", "30d")
        if renew_before == "auto" or not (ari or outage)
    ]
    failed = 0
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for verdict, is_green in pool.imap(live_course, courses):
            print(verdict, flush=True)
            failed += not is_green
    return 1 if failed else 0


def live_course(course: Course) -> tuple[str, bool]:
    """Live through one course without its log; return what to print, and whether all was well."""
    logger = logging.getLogger("mitmproxy_acme")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    lived = live_through(course)
    numbers, (least, most) = sorted(map(len, lived.issued.values())), lived.expected()
    is_green = lived.violation is None and least <= numbers[0] and numbers[-1] <= most
    how = f"ARI {'on' if course.ari else 'off'}, renew_before {course.renew_before}"
    if lived.down is not None:
        how += f", CA down for {(lived.down[1] - lived.down[0]) / DAY:.1f} days"
    orders = f"{lived.orders} orders for {course.names} names, expected {course.names * least} to {course.names * most}"
    return f"{course.change}, {how}: {lived.violation or 'nothing expired'}; {orders}", is_green


def result_of(seed: int) -> Result:
    outcome = run(Scenario.of(seed))
    return Result(seed, str(outcome.violation or ""), outcome.counts)


def run_many(seeds: Iterator[int], processes: int, minutes: float | None) -> int:
    """Run seeds until they end, the time is over, or too many have failed."""
    begun, failed, total = time.monotonic(), list[Result](), Counter[str]()
    end = begun + minutes * 60 if minutes else float("inf")
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        count = 0
        for result in pool.imap_unordered(result_of, until(seeds, end), chunksize=4):
            count += 1
            total.update(result.counts)
            if result.violation:
                failed.append(result)
                print(f"seed {result.seed}: {result.violation}", flush=True)
            if len(failed) >= _MOST_FAILURES:
                pool.terminate()
                break
    seconds = time.monotonic() - begun
    print(f"{count} seeds in {seconds:.0f} s, {count / seconds * 3600:.0f} an hour; {len(failed)} failed")
    print(", ".join(f"{number} {name}" for name, number in total.items()))
    return 1 if failed else 0


def until(seeds: Iterator[int], end: float) -> Iterator[int]:
    """Yield seeds while there is time; the pool takes them all at once, so a few at a time."""
    for seed in seeds:
        if time.monotonic() >= end:
            return
        yield seed


if __name__ == "__main__":
    sys.exit(main())
