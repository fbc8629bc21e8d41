"""``mitmproxy-acme run``: starts mitmdump with the addon, in one process or in several that share its ports.

This module knows the command's arguments. ``mitm.launcher`` starts mitmdump; it is imported only when needed, because
mitmproxy takes a second to import. ``mitm.supervisor`` runs several processes.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ...mitm import supervisor

HELP = "start mitmdump with the addon, tuned for it; all other arguments are those of mitmdump"

_WORK = "from mitmproxy_acme.cli.commands.run import work; work(task)"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Say what the command takes beside mitmdump's own arguments."""
    command.allow_abbrev = False  # --work may be meant for mitmdump
    command.usage = "mitmproxy-acme run [--workers N] [mitmdump arguments ...]"
    command.epilog = "All other arguments, and all after --, are passed to mitmdump; see mitmdump --help."
    command.add_argument(
        "--workers",
        type=_count,
        default=1,
        metavar="N",
        help="processes that share the TCP ports (default: 1); they need a storage that processes can share",
    )


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line; for ``run``, put unknown arguments into ``arguments`` as they are.

    For every other command they are errors, as in ``parse_args``.
    """
    chosen, others = parser.parse_known_args(arguments)
    if chosen.command == "run":
        chosen.arguments = others[1:] if others[:1] == ["--"] else others
    elif others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    return chosen


def run(chosen: argparse.Namespace) -> int:
    """Run until a signal ends it, then return 0; if mitmdump cannot start, return its exit code."""
    if chosen.workers == 1:
        from ...mitm import launcher

        return launcher.start(chosen.arguments)
    return supervisor.Supervisor(chosen.workers, _WORK, {"arguments": chosen.arguments}).run()


def work(task: Mapping[str, Any]) -> None:
    """Be one of the workers, in a process of its own, with the task that ``Supervisor`` sent."""
    slot = supervisor.take_slot(task)
    from ...mitm import launcher

    sys.exit(launcher.start(task["arguments"], slot))
