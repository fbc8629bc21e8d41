"""``mitmproxy-acme``: what a person types.

This module knows arguments, output and exit codes; what is found out is found out elsewhere.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import __version__
from ..errors import ConfigError
from .preflight import Outcome, inspect
from .settings import read_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0 for success, 1 for a check that failed, 2 for arguments that are wrong."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    command = {"script": _script, "check": _check}[chosen.command]
    return command(chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mitmproxy-acme", description="Real certificates for mitmproxy: the tool beside the addon."
    )
    parser.add_argument("--version", action="version", version=f"mitmproxy-acme {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("script", help='print the path of the addon: mitmdump -s "$(mitmproxy-acme script)"')
    check = commands.add_parser(
        "check", help="look for what would keep certificates from coming, and say what to do about it"
    )
    check.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="OPTION=VALUE", help="as for mitmdump"
    )
    check.add_argument(
        "--confdir", default="~/.mitmproxy", metavar="FOLDER", help="mitmproxy's folder, whose config.yaml is read"
    )
    return parser


def _script(_: argparse.Namespace) -> int:
    spec = importlib.util.find_spec("acme_addon")
    # A checkout that nobody installed has the script on no import path, but always in the same place.
    origin = spec.origin if spec is not None else None
    print(origin or Path(__file__).resolve().parents[2] / "acme_addon.py")
    return 0


def _check(chosen: argparse.Namespace) -> int:
    confdir = Path(chosen.confdir).expanduser()
    try:
        settings = read_settings(confdir, chosen.settings)
    except ConfigError as error:
        print(f"mitmproxy-acme check: {error}", file=sys.stderr)
        return 2
    failed = False
    for finding in inspect(settings, confdir):
        print(f"{finding.outcome.value:4}  {finding.what}")
        failed = failed or finding.outcome is Outcome.FAIL
    return 1 if failed else 0
