"""How this addon compares: side by side with stock mitmdump and Caddy, in one run, on this machine.

Started by scripts/bench. Knows the command line; must not know how anything is measured.
"""

import argparse
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NoReturn

from scripts import bench_burst, bench_handshakes, bench_orders, bench_report, bench_scale, bench_trouble
from scripts.bench_report import Row
from scripts.bench_words import Measurement, Untrusted, Wishes
from tests.servers.binaries import Missing

# which rows each measurement fills, in the order of the table
MEASUREMENTS: dict[tuple[str, ...], Measurement] = {
    ("unknown", "requests"): bench_orders.unknown_names,
    ("crowd", "managed"): bench_orders.many_names,
    ("cached",): bench_handshakes.cached_handshakes,
    ("failing",): bench_trouble.failing_name,
    ("ca-down",): bench_trouble.ca_down,
    ("lag", "lag-crowd"): bench_trouble.loop_lags,
    ("one-name",): bench_orders.one_cold_name,
    ("burst",): bench_burst.burst,
}
KEYS = [key for keys in MEASUREMENTS for key in keys]


def main() -> int:
    """0 when everything was measured, whatever came of it; 1 when something could not be; 130 after Ctrl-C."""
    options = parse()
    signal.signal(signal.SIGTERM, leave)
    progress = Progress()
    began, load = datetime.now(UTC), os.getloadavg()
    scale = options.subject == "scale"
    rows, complete = measure(stores(options, progress) if scale else everything(options, progress), progress)
    progress.end()
    where = bench_report.machine(began, load, bench_report.STORES if scale else bench_report.PROXIES)
    print(bench_report.markdown(rows, where) if options.markdown else bench_report.text(rows, where))
    if options.json:
        options.json.write_text(json.dumps(bench_report.as_json(rows, where), indent=1))
    return complete


def parse() -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="scripts/bench", description=summary)
    parser.add_argument("--only", action="append", choices=KEYS, metavar="ROW", help=f"any of {', '.join(KEYS)}")
    parser.add_argument("--rounds", type=positive, default=9, metavar="N", help="of cached handshakes (%(default)s)")
    parser.add_argument("--slow", action="store_true", help="let Caddy meet a name that cannot validate too: 6 minutes")
    add_output(parser)
    subjects = parser.add_subparsers(dest="subject", metavar="scale", help="very many certificates, store by store")
    scale = subjects.add_parser("scale", description=bench_scale.measure.__doc__)
    scale.add_argument("--count", type=positive, default=100_000, metavar="N", help="of certificates (%(default)s)")
    scale.add_argument(
        "--stores", type=kinds, default=bench_scale.KINDS, metavar="A,B", help=f"of {','.join(bench_scale.KINDS)}"
    )
    scale.add_argument(
        "--hours", type=positive, default=1_440, metavar="N",
        help="over which they come due (%(default)s); for a CA with renewal windows each is looked at every 6",
    )  # fmt: skip
    scale.add_argument("--starts", type=positive, default=5, metavar="N", help="of the proxy on each (%(default)s)")
    add_output(scale)
    return parser.parse_args()


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--markdown", action="store_true", help="the table as docs/measured.md has it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def kinds(text: str) -> list[str]:
    found = text.split(",")
    if unknown := set(found) - set(bench_scale.KINDS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: known are {', '.join(bench_scale.KINDS)}")
    return found


type Todo = Mapping[str, Callable[[], Sequence[Row]]]


def everything(options: argparse.Namespace, progress: "Progress") -> Todo:
    """Against the peers; by the rows that each measurement fills."""
    wishes = Wishes(options.only or KEYS, options.rounds, options.slow, progress.say)

    def wanted(measurement: Measurement) -> list[Row]:
        return [row for row in measurement(wishes) if row.key in wishes.rows]

    return {
        " and ".join(keys): partial(wanted, measurement)
        for keys, measurement in MEASUREMENTS.items()
        if any(key in wishes.rows for key in keys)
    }


def stores(options: argparse.Namespace, progress: "Progress") -> Todo:
    """Very many certificates, by the kind of store."""
    scale = bench_scale.Scale(options.count, options.hours, options.starts, progress.say)
    return {kind: partial(bench_scale.measure, kind, scale) for kind in options.stores}


def measure(todo: Todo, progress: "Progress") -> tuple[list[Row], int]:
    """The rows that could be measured, and the exit status. A row that fails does not keep the others."""
    rows: list[Row] = []
    status = 0
    for subject, measurement in todo.items():
        try:
            rows += measurement()
        except (Untrusted, Missing, RuntimeError, OSError) as error:
            progress.tell(f"{subject} could not be measured: {error}")
            status = 1
        except KeyboardInterrupt:
            progress.tell("interrupted: all servers are stopped")
            return rows, 130
    return rows, status


def leave(number: int, _: object) -> NoReturn:
    """For a signal: unwind, so that everything is stopped."""
    raise SystemExit(128 + number)


class Progress:
    """One line that says what is being measured: rewritten on a terminal, else a new line for each new subject."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._subject = ""

    def say(self, what: str) -> None:
        line = f"[{time.monotonic() - self._began:4.0f} s] {what}"
        subject = re.sub(r"\d+ of \d+", "", what)
        if sys.stderr.isatty():
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        elif subject != self._subject:
            print(line, file=sys.stderr, flush=True)
        self._subject = subject

    def tell(self, what: str) -> None:
        """A line that stays."""
        self.end()
        print(what, file=sys.stderr, flush=True)

    def end(self) -> None:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
