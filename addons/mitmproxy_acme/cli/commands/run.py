"""``mitmproxy-acme run``: mitmdump with the addon already loaded, in one process or in several that share its ports.

This module knows the command's arguments; ``mitmdump`` knows what is started, and is imported only then, for
mitmproxy takes a second to import; ``workers`` knows how several processes are kept.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ...mitm import supervisor

HELP = "start mitmdump with the addon, tuned; all arguments but --workers are mitmdump's"

_WORK = "from mitmproxy_acme.cli.commands.run import work; work(task)"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Say what the command takes beside mitmdump's own arguments."""
    command.allow_abbrev = False  # --work might be meant for mitmdump
    command.usage = "mitmproxy-acme run [--workers N] [mitmdump arguments ...]"
    command.epilog = "All other arguments, and all after --, go to mitmdump: mitmdump --help lists them."
    command.add_argument(
        "--workers",
        type=_count,
        default=1,
        metavar="N",
        help="processes that share the TCP ports of the modes; they need a storage that processes can share",
    )


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line of which ``run`` may be the command: what is not ours is put into ``arguments``, as it is.

    For every other command it is an error, as it would be for ``parse_args``.
    """
    chosen, others = parser.parse_known_args(arguments)
    if chosen.command == "run":
        chosen.arguments = others[1:] if others[:1] == ["--"] else others
    elif others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    return chosen


def run(chosen: argparse.Namespace) -> int:
    """Run until a signal ends it; return 0 then. What keeps mitmdump from starting gives its exit code."""
    if chosen.workers == 1:
        from ...mitm import launcher

        return launcher.start(chosen.arguments)
    return supervisor.Supervisor(chosen.workers, _WORK, {"arguments": chosen.arguments}).run()


def work(task: Mapping[str, Any]) -> None:
    """Be one of the workers, in a process of its own, with the task that ``Supervisor`` sent."""
    slot = supervisor.take_slot(task)
    from ...mitm import launcher

    sys.exit(launcher.start(task["arguments"], slot))
