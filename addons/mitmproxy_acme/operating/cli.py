"""``mitmproxy-acme``: what a person types.

This module knows arguments, output and exit codes; what is found out is found out elsewhere.
"""

import argparse
import importlib.util
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import acme_storage

from .. import __version__
from ..errors import ConfigError
from ..keeping.rotation import Outcome as Rotated
from ..keeping.rotation import rotate
from ..keeping.sealing import Sealing
from . import importing, run
from .opening import open_shared, read_config
from .preflight import Outcome, inspect
from .settings import read_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0 for success, 1 for what failed in part or whole, 2 for arguments that are wrong."""
    logging.getLogger("mitmproxy_acme").addHandler(logging.NullHandler())  # what matters is printed
    parser = _parser()
    chosen = run.parse(parser, arguments)
    command = {
        "script": _script,
        "run": run.run,
        "check": _check,
        "import": importing.run,
        "rotate-storage-key": _rotate_storage_key,
    }[chosen.command]
    try:
        return command(chosen)
    except ConfigError as error:
        print(f"mitmproxy-acme {chosen.command}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mitmproxy-acme", description="Real certificates for mitmproxy: the tool beside the addon."
    )
    parser.add_argument("--version", action="version", version=f"mitmproxy-acme {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("script", help='print the path of the addon: mitmdump -s "$(mitmproxy-acme script)"')
    run.add_arguments(commands.add_parser("run", help=run.HELP))
    check = commands.add_parser(
        "check", help="look for what would keep certificates from coming, and say what to do about it"
    )
    importer = commands.add_parser("import", help=importing.HELP)
    importing.add_arguments(importer)
    rotation = commands.add_parser(
        "rotate-storage-key", help="seal every stored private key by the first key of acme_storage_key"
    )
    for command in (check, importer, rotation):
        command.add_argument(
            "--set", dest="settings", action="append", default=[], metavar="OPTION=VALUE", help="as for mitmdump"
        )
        command.add_argument(
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
    failed = False
    for finding in inspect(read_settings(confdir, chosen.settings), confdir):
        print(f"{finding.outcome.value:4}  {finding.what}")
        failed = failed or finding.outcome is Outcome.FAIL
    return 1 if failed else 0


def _rotate_storage_key(chosen: argparse.Namespace) -> int:
    confdir = Path(chosen.confdir).expanduser()
    storage, sealing = _storage_to_rotate(confdir, chosen.settings)
    counts: Counter[Rotated] = Counter()
    failed = False
    with closing(storage):
        try:
            for step in rotate(storage, sealing):
                counts[step.outcome] += 1
                if step.outcome is Rotated.UNREADABLE:
                    print(f"not readable: {step.key}: {step.why}")
        except acme_storage.StorageError as error:
            print(f"acme_storage: {error}", file=sys.stderr)
            failed = True
    said = (Rotated.RESEALED, Rotated.CURRENT, Rotated.UNREADABLE)
    print(", ".join(f"{outcome.value} {counts[outcome]}" for outcome in said))
    return 1 if failed or counts[Rotated.UNREADABLE] else 0


def _storage_to_rotate(confdir: Path, given: Sequence[str]) -> tuple[acme_storage.Storage, Sealing]:
    """Read what rotation needs. Raises ``ConfigError``."""
    config = read_config(confdir, given)
    if not config.storage_keys:
        raise ConfigError("acme_storage_key is not set; give the new key first, then those that sealed until now")
    return open_shared(config, confdir), Sealing(config.storage_keys)
