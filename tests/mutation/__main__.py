"""scripts/mutate: which wrong lines do the unit tests let live?

Knows the command line; must not know how a mutant is run.
"""

import argparse
import json
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Sequence

from . import listed, reach
from .judging import Case, Verdict, case_of, judge
from .mutants import Mutant, named
from .operators import mutants_of
from .patching import function_of
from .running import reserve_ports

# Where a wrong line hurts most.
_MODULES = (
    "core/renewal core/backoff core/certificate core/names core/rate_limits lifecycle mitmproxy_acme/store ca/issuer "
    "ca/client ca/account_session ca/delivery ca/authorization ca/polling ca/solver ca/challenges/ mitm/tls/handshakes "
    "mitm/tls/contexts mitm/challenge_lookup mitm/shared_read admin/auth admin/certificate_service admin/webhook "
    "admin/inventory diagnostics/http_self_test acme_storage/file acme_storage/file_disk acme_storage/memory "
    "acme_storage/sql acme_storage/sql_sqlite"
)


def main() -> int:
    """Return 1 if a mutant lives, else 0."""
    parser = argparse.ArgumentParser(prog="scripts/mutate", description="Make lines wrong: do the unit tests notice?")
    parser.add_argument("--modules", default=_MODULES, metavar="NAMES", help="such as 'core/renewal lifecycle'")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="how many mutants to draw (100)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed draws the same mutants (0)")
    parser.add_argument("--listed", action="store_true", help="run those of tests/mutation/listed.toml instead")
    parser.add_argument(
        "--grave", action="store_true", help="run the grave ones of these, with the tests that kill them"
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="of these, the ones with this in their path:line or name"
    )
    parser.add_argument("--seconds", type=float, default=20.0, metavar="N", help="of tests for each mutant (20)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--json", action="store_true", help="print all verdicts as JSON")
    chosen = parser.parse_args()
    reserve_ports()
    begun = time.monotonic()
    cases = grave_cases() if chosen.grave else cases_of(chosen)
    watched = time.monotonic()
    verdicts = list[Verdict]()

    def tell(verdict: Verdict) -> None:
        verdicts.append(verdict)
        if not chosen.json and not verdict.killer:
            print(described(verdict), flush=True)

    judge(cases, chosen.jobs, tell)
    report(verdicts, as_json=chosen.json)
    seconds = time.monotonic() - watched
    print(f"{seconds:.0f} s for the mutants, {watched - begun:.0f} s to watch tests", file=sys.stderr)
    return 0 if all(verdict.killer for verdict in verdicts) else 1


def grave_cases() -> list[Case]:
    """Return the grave ones of the list, each with the tests that it names."""
    return [
        Case(mutant := each.mutant(), dict.fromkeys(each.tests, 1.0), function=function_of(mutant))
        for each in listed.load()
        if each.grave
    ]


def cases_of(chosen: argparse.Namespace) -> list[Case]:
    """Return the mutants that the arguments choose, with the tests that reach them."""
    if chosen.listed:
        mutants = [each.mutant() for each in listed.load() if not each.equivalent]
    else:
        mutants = draw(chosen.modules.split(), chosen.seed, chosen.count)
    known = reach.load(chosen.jobs)
    return [case_of(mutant, known, chosen.seconds) for mutant in mutants if chosen.only in str(mutant)]


def draw(modules: Sequence[str], seed: int, count: int) -> list[Mutant]:
    """Draw lines of these modules, and a mutant of each: a line with many mutants is not drawn more often."""
    paths = sorted({path for module in modules for path in named(module)})
    by_line = defaultdict[tuple[str, int], list[Mutant]](list)
    for path in paths:
        for mutant in mutants_of(path):
            by_line[path, mutant.lines.start].append(mutant)
    drawn = random.Random(seed)
    lines = drawn.sample(sorted(by_line), min(count, len(by_line)))
    return [drawn.choice(by_line[line]) for line in lines]


def described(verdict: Verdict) -> str:
    tests = list(verdict.case.tests)
    some = "".join(f"\n    {test}" for test in tests[:5])
    more = f"\n    and {len(tests) - 5} more" if len(tests) > 5 else ""
    left_out = f", {verdict.case.left_out} others were left out" if verdict.case.left_out else ""
    reach = f"  {len(tests)} tests reach it{left_out}{some}{more}\n"
    return f"lives: {verdict.case.mutant}\n{verdict.case.mutant.diff()}\n{reach}"


def report(verdicts: Sequence[Verdict], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([as_dict(verdict) for verdict in verdicts], indent=1))
    killed = sum(1 for verdict in verdicts if verdict.killer)
    share = 100 * killed / len(verdicts) if verdicts else 100.0
    print(f"{killed} of {len(verdicts)} mutants are killed ({share:.1f} %)", file=sys.stderr if as_json else sys.stdout)


def as_dict(verdict: Verdict) -> dict[str, object]:
    mutant = verdict.case.mutant
    return {
        "at": f"{mutant.path}:{mutant.lines.start}",
        "kind": mutant.kind,
        "old": mutant.old,
        "new": mutant.new,
        "killer": verdict.killer,
        "ran": verdict.ran,
        "tests": list(verdict.case.tests),
    }


if __name__ == "__main__":
    sys.exit(main())
