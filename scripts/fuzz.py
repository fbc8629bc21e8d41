"""Run the fuzz targets, each in processes of its own, and say which inputs break a rule.

Started by scripts/fuzz. Knows how to run and report; must not know what is fuzzed (``tests/fuzz/targets``).
"""

import argparse
import importlib.util
import os
import secrets
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.target import Target, check, check_memory

_SECONDS, _JOBS = 60, 2
_FOLDER = Path(".cache/fuzz")
_LEAST = 1  # seconds for a target, once it has started


@dataclass(frozen=True)
class Run:
    """One process: which target for how many seconds, from which seed."""

    target: str
    seconds: int
    seed: int


def main() -> int:
    """Return 0 if no input broke a rule."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Fuzz the parsers that strangers reach.")
    parser.add_argument("--target", action="append", metavar="NAME", help="fuzz only this one, or these (all)")
    parser.add_argument(
        "--seconds", type=int, default=_SECONDS, metavar="N", help=f"shared by the targets ({_SECONDS})"
    )
    parser.add_argument("--jobs", type=int, default=_JOBS, metavar="N", help=f"processes at once ({_JOBS})")
    parser.add_argument("--seed", type=int, metavar="N", help="begin with this one, not with a new one")
    parser.add_argument("--replay", nargs=2, metavar=("NAME", "FILE"), help="run one input")
    parser.add_argument("--list", action="store_true", help="list the targets")
    chosen = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("fuzzing needs atheris, which has packages for Linux on x86-64 only; the corpus is replayed by pytest")
        return 0
    from tests.fuzz.engine import load

    targets = load()
    if unknown := set(chosen.target or ()) - set(targets):
        parser.error(f"there is no target {', '.join(sorted(unknown))}; they are {', '.join(targets)}")
    if chosen.list:
        for target in targets.values():
            print(f"{target.name:20} {(target.run.__doc__ or '').partition('.')[0]}")
        return 0
    if chosen.replay:
        return replay(targets[chosen.replay[0]], Path(chosen.replay[1]))
    seed = chosen.seed if chosen.seed is not None else secrets.randbelow(2**31)
    wanted = {name: targets[name] for name in chosen.target or targets}
    return run(wanted, chosen.seconds, chosen.jobs, seed)


def replay(target: Target, file: Path) -> int:
    """Run one input, and show what it breaks."""
    try:
        check(target, file.read_bytes())
        check_memory(target, file.read_bytes())
    except Exception:
        traceback.print_exc()
        return 1
    print(f"{target.name}: all rules hold")
    return 0


def run(targets: Mapping[str, Target], seconds: int, jobs: int, seed: int) -> int:
    """Fuzz the targets, and return 1 if an input broke a rule. The seconds are shared, each job's as one."""
    each = max(_LEAST, seconds * jobs // max(len(targets), jobs))
    print(f"fuzzing {len(targets)} targets, {each} s each, {jobs} at once, seed {seed}", flush=True)
    begun, failed, waiting = time.monotonic(), list[str](), _runs(list(targets), each, jobs, seed)
    running = dict[int, Run]()
    while (len(running) < jobs and (following := next(waiting, None)) is not None) or running:
        if following is not None and len(running) < jobs:
            running[_start(targets[following.target], following)] = following
            continue
        process, status = os.wait()
        ended = running.pop(process)
        if not _report(ended, status):
            failed.append(ended.target)
    print(f"{time.monotonic() - begun:.0f} s; {len(failed)} failed", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}; the same again: scripts/fuzz --seed {seed} --target {failed[0]}")
    return 1 if failed else 0


def _runs(names: list[str], seconds: int, jobs: int, seed: int) -> Iterator[Run]:
    """Yield one run for each target, or several of one if there are more jobs than targets."""
    for number in range(max(len(names), jobs)):
        yield Run(names[number % len(names)], seconds, (seed + number // len(names)) % 2**31 or 1)


def _log(run: Run) -> Path:
    return _FOLDER / f"{run.target}-{run.seed}.log"


def _start(target: Target, run: Run) -> int:
    """Fork a process that fuzzes, and return its number."""
    from tests.fuzz.engine import fuzz

    _FOLDER.mkdir(parents=True, exist_ok=True)
    if process := os.fork():
        return process
    log = os.open(_log(run), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, sys.stderr.fileno())
    os.dup2(log, sys.stdout.fileno())
    try:
        fuzz(target, run.seconds, run.seed, _FOLDER)
    finally:
        traceback.print_exc()
        os._exit(2)


def _report(run: Run, status: int) -> bool:
    """Print what a process found; return whether it found nothing."""
    text = _log(run).read_text(errors="replace")
    if status:
        print(f"\n{run.target} failed:\n{text[-8_000:]}", flush=True)
        return False
    executed = next((line.split()[-1] for line in text.splitlines() if "number_of_executed_units" in line), "no")
    print(f"{run.target}: {executed} inputs", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
