"""``mitmproxy-acme run``: starts mitmdump with the addon, in one process or in several that share its ports; or it
starts mitmweb, or mitmproxy's console.

This module knows the command's arguments. ``mitm.launcher`` starts the tool; it is imported only when needed, because
mitmproxy takes a second to import. ``mitm.supervisor`` runs several processes.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.errors import ConfigError
from ...mitm import supervisor
from ...mitm.launch import Launch, Tool

HELP = "start mitmdump, mitmweb or mitmproxy with the addon, tuned for it; other arguments are those of that tool"

_WORK = "from mitmproxy_acme.cli.commands.run import work; work(task)"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Say what the command takes beside mitmdump's own arguments."""
    command.allow_abbrev = False  # --work may be meant for mitmdump
    command.usage = "mitmproxy-acme run [--workers N | --web | --console] [mitmdump arguments ...]"
    command.epilog = "All other arguments, and all after --, are passed to mitmdump; see mitmdump --help."
    add_tool(command)


def add_tool(command: argparse.ArgumentParser) -> None:
    """Add what chooses the tool, and the number of processes."""
    command.add_argument(
        "--workers",
        type=_count,
        default=1,
        metavar="N",
        help="processes that share the TCP ports (default: 1); they need a storage that processes can share",
    )
    tool = command.add_mutually_exclusive_group()
    tool.add_argument(
        "--web", dest="tool", action="store_const", const=Tool.WEB, help="start mitmweb, to see traffic in a browser"
    )
    tool.add_argument(
        "--console", dest="tool", action="store_const", const=Tool.CONSOLE, help="start mitmproxy's console"
    )
    command.set_defaults(tool=Tool.DUMP)


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
    """Run until a signal ends it, then return 0; if the tool cannot start, return its exit code."""
    require_one_process(chosen.tool, chosen.workers)
    return start(Launch(chosen.arguments, chosen.tool), chosen.workers)


def require_one_process(tool: Tool, workers: int) -> None:
    """Raise ``ConfigError`` for a tool that people look at, with several workers."""
    if workers > 1 and tool is not Tool.DUMP:
        flag = "--web" if tool is Tool.WEB else "--console"
        raise ConfigError(f"{flag}: {tool} shows the traffic of its own process only; leave out {flag} or --workers")


def start(launch: Launch, workers: int) -> int:
    """Start the tool in so many processes; return when it has ended."""
    if workers == 1:
        from ...mitm import launcher

        return launcher.start(launch)
    return supervisor.Supervisor(workers, _WORK, {"launch": launch.to_json()}).run()


def work(task: Mapping[str, Any]) -> None:
    """Be one of the workers, in a process of its own, with the task that ``Supervisor`` sent."""
    slot = supervisor.take_slot(task)
    from ...mitm import launcher

    sys.exit(launcher.start(Launch.from_json(task["launch"]), slot))
