"""Arguments that several commands share, and how they are read.

This module knows argparse; it must not know any command.
"""

import argparse
from pathlib import Path

from ...config.config import Config
from ...core.host_port import parse_port
from ...core.names import ServerName, parse_id
from ...core.operating_system import with_home
from ..environment import read_config


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the arguments that give the options of the proxies."""
    command.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="set an option, as in mitmdump",
    )
    command.add_argument(
        "--confdir",
        default="~/.mitmproxy",
        metavar="FOLDER",
        help="the configuration folder of mitmproxy, with its config.yaml; --set confdir=FOLDER does the same",
    )


def add_ca(command: argparse.ArgumentParser) -> None:
    command.add_argument("--ca", metavar="CA", default="", help="an entry of acme_ca (default: the first)")


def add_name(command: argparse.ArgumentParser) -> None:
    what = "any name of the certificate; NAME+rsa or NAME+ecdsa for the second kind of key"
    command.add_argument("name", metavar="NAME", help=what)


def add_json(command: argparse.ArgumentParser, what: str = "one JSON document") -> None:
    command.add_argument("--json", action="store_true", help=f"print {what} on standard output, and nothing else")


def add_parallel(command: argparse.ArgumentParser) -> None:
    command.add_argument("--parallel", type=_positive, default=4, metavar="N", help="orders at once (default: 4)")


def add_transfer(command: argparse.ArgumentParser) -> None:
    """Add what copying and restoring have in common."""
    command.add_argument("--dry-run", action="store_true", help="show what would be written, and write nothing")
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace newer certificates and other accounts at the destination too; what is lost is printed",
    )
    add_json(command, "one JSON object per line for each record that differs, and a last one with the counts")


def add_passphrase(command: argparse.ArgumentParser) -> None:
    what = "the passphrase of the file: env:NAME or file:/path (default: asked on the terminal)"
    command.add_argument("--key", metavar="REFERENCE", default="", help=what)


def port(text: str) -> int:
    try:
        return parse_port(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    if not (text.isdecimal() and len(text) <= 2 and 0 < int(text) <= 64):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 64")
    return int(text)


def confdir_of(chosen: argparse.Namespace) -> Path:
    """Return mitmproxy's configuration folder; ``--set confdir=…`` comes first, as in mitmdump."""
    folders = [text.partition("=")[2] for text in chosen.settings if text.startswith("confdir=")]
    return Path(with_home(folders[-1] if folders else chosen.confdir))


def config_of(chosen: argparse.Namespace) -> Config:
    """Read the options. Raises ``ConfigError``."""
    return read_config(confdir_of(chosen), chosen.settings)


def name_of(text: str) -> ServerName:
    """Read the name of a certificate. Raises ``ConfigError``."""
    return parse_id(text, "NAME")
