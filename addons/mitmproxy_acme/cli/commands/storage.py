"""``mitmproxy-acme storage``: what is stored by kind and size, what is wrong with it, and the repair of that."""

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

from acme_storage import Storage

from ...config.config import Config
from ...core.errors import ConfigError
from ...store.encryption import RecordCipher
from ...store.inspection import Examined, Inspection, Trouble
from ...store.nodes import Nodes
from ...store.repair import Repair, can_mend
from .. import terminal
from ..environment import open_shared
from . import arguments

HELP = "show what is stored by kind and size, and check it"
_HEADS = ("kind", "state", "records", "size")
_SHOWN = 10  # records of each trouble


@dataclass
class Summary:
    """What an inspection found: counts, and the first records of each trouble."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    sizes: Counter[tuple[str, str]] = field(default_factory=Counter)
    troubles: Counter[Trouble] = field(default_factory=Counter)
    examples: defaultdict[Trouble, list[Examined]] = field(default_factory=lambda: defaultdict(list))
    mendable: int = 0

    def count(self, found: Examined) -> None:
        kind = "unknown" if found.trouble is Trouble.FOREIGN else found.kind
        self.counts[kind, found.state] += 1
        self.sizes[kind, found.state] += found.size
        if found.trouble is None:
            return
        self.troubles[found.trouble] += 1
        self.mendable += can_mend(found)
        if len(self.examples[found.trouble]) < _SHOWN:
            self.examples[found.trouble].append(found)


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments, except the options of the proxies."""
    command.add_argument(
        "--repair",
        action="store_true",
        help="schedule what is unlisted, and remove orphaned and broken records that no proxy can use, after "
        "confirmation",
    )
    command.add_argument("--yes", action="store_true", help="do not ask for confirmation; required without a terminal")
    arguments.add_json(command)


def run(chosen: argparse.Namespace) -> int:
    """Show, check and repair; return 0 if nothing is wrong in the end, else 1. Foreign keys are not wrong."""
    if chosen.repair and not chosen.yes and not terminal.is_asked_here():
        raise ConfigError("--repair changes the storage; add --yes to confirm without a terminal")
    config = arguments.config_of(chosen)
    with closing(open_shared(config, arguments.confdir_of(chosen))) as storage:
        inspection = Inspection(storage, RecordCipher.of(config), time.time())
        summary = _summarize(inspection.run(), "reading")
        proxies = len(Nodes(storage).list_up())
        if not chosen.json:
            _show(summary, proxies)
        mended = _repair(chosen, config, storage, inspection, summary)
    if chosen.json:
        terminal.say_document(_document(summary, proxies, mended))
    wrong = summary.troubles.total() - summary.troubles[Trouble.FOREIGN] - (mended.total() if mended else 0)
    return 1 if wrong > 0 else 0


def _summarize(records: Iterator[Examined], what: str) -> Summary:
    summary = Summary()
    with terminal.Progress(None, "record") as progress:
        for found in records:
            summary.count(found)
            progress.step(what)
    return summary


def _show(summary: Summary, proxies: int) -> None:
    rows = [
        (kind, state or "-", str(count), _size(summary.sizes[kind, state]))
        for (kind, state), count in sorted(summary.counts.items())
    ]
    rows.append(("total", "", str(summary.counts.total()), _size(summary.sizes.total())))
    for line in terminal.table(_HEADS, rows):
        terminal.say(line)
    for trouble, examples in sorted(summary.examples.items()):
        for found in examples:
            terminal.say(f"{trouble.value}: {found.key}: {found.why}")
        if (more := summary.troubles[trouble] - len(examples)) > 0:
            terminal.say(f"{trouble.value}: and {more} more")
    if not summary.troubles:
        terminal.say("nothing is wrong")
    terminal.remark(f"{proxies} {'proxy uses' if proxies == 1 else 'proxies use'} the storage now")


def _repair(
    chosen: argparse.Namespace, config: Config, storage: Storage, inspection: Inspection, summary: Summary
) -> Counter[str] | None:
    """Repair after confirmation, and say each record; return how many by what was done, None if nothing was asked."""
    if not chosen.repair:
        if summary.mendable and not chosen.json:
            terminal.remark(f"{summary.mendable} of these can be repaired: mitmproxy-acme storage --repair")
        return None
    mended: Counter[str] = Counter()
    if not summary.mendable:
        terminal.remark("there is nothing to repair")
        return mended
    if not chosen.yes and not terminal.confirm(f"Repair {summary.mendable} records? Proxies may go on meanwhile."):
        terminal.remark("nothing was changed")
        return mended
    repair = Repair(storage, config.renew_before, config.manages, time.time())
    say = terminal.remark if chosen.json else terminal.say
    for found in inspection.run():
        if done := repair.mend(found):
            mended[done] += 1
            say(f"{done}: {found.key}: {found.why}")
    return mended


def _document(summary: Summary, proxies: int, mended: Counter[str] | None) -> dict[str, object]:
    kinds = [
        {"kind": kind, "state": state or None, "records": count, "bytes": summary.sizes[kind, state]}
        for (kind, state), count in sorted(summary.counts.items())
    ]
    troubles = [
        {
            "trouble": trouble.value,
            "records": summary.troubles[trouble],
            "examples": [{"key": found.key, "why": found.why} for found in examples],
        }
        for trouble, examples in sorted(summary.examples.items())
    ]
    repaired = dict(sorted(mended.items())) if mended is not None else None
    return {"kinds": kinds, "troubles": troubles, "repaired": repaired, "proxies": proxies}


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1_024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1_024
    return f"{size:.1f} GiB"
