"""The program ``mitmproxy-acme``: it parses the command line and runs one command.

This module knows the commands and what their errors mean as exit codes; it must not know what any of them does.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from acme_storage import StorageError

from .. import __version__
from ..core.errors import AcmeError, ConfigError
from . import terminal
from .batch_report import FAILED, INTERRUPTED
from .commands import (
    arguments,
    backup,
    check,
    completion,
    copy,
    deactivate_account,
    export,
    importing,
    issue,
    list,
    renew,
    restore,
    revoke,
    rotate_account_key,
    rotate_storage_key,
    run,
    script,
    serve,
    show,
    storage,
    watch,
)

_USAGE = 2
_EPILOG = """\
exit codes: 0 success; 1 something failed; 2 an argument or option is wrong; 130 interrupted

issue, list, show, watch, renew and revoke use the admin API of a running proxy if acme_admin_listen names one, else the
storage directly; a line on standard error says which.
"""


class Command(Protocol):
    """A module that is a command."""

    HELP: str

    def add_arguments(self, command: argparse.ArgumentParser, /) -> None:
        """Add its arguments, except the options of the proxies."""
        ...

    def run(self, chosen: argparse.Namespace, /) -> int:
        """Run it, and return the exit code."""
        ...


COMMANDS: Mapping[str, Command] = {
    "serve": serve,
    "run": run,
    "script": script,
    "check": check,
    "issue": issue,
    "list": list,
    "show": show,
    "watch": watch,
    "renew": renew,
    "revoke": revoke,
    "export": export,
    "import": importing,
    "copy": copy,
    "backup": backup,
    "restore": restore,
    "storage": storage,
    "rotate-storage-key": rotate_storage_key,
    "rotate-account-key": rotate_account_key,
    "deactivate-account": deactivate_account,
    "completion": completion,
}
_WITHOUT_OPTIONS = ("script", "run", "completion")


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; return 0 for success, 1 for any failure, 2 for a wrong argument or option, 130 for Ctrl-C."""
    logging.getLogger("mitmproxy_acme").addHandler(logging.NullHandler())  # the commands print what matters
    terminal.open_streams()
    parser = _parser()
    chosen = run.parse(parser, words)
    chosen.parser = parser  # for the completion script
    try:
        code = COMMANDS[chosen.command].run(chosen)
        sys.stdout.flush()  # now, while a reader that is gone can still be handled
        return code
    except (AcmeError, StorageError) as error:
        _print_error(chosen, str(error))
        return _USAGE if isinstance(error, ConfigError) else FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        terminal.remark("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough, as head has
        return _discard_output()
    except OSError as error:  # from standard output on a full disk; other files have errors of their own
        terminal.remark(f"mitmproxy-acme {chosen.command}: {error.strerror or error}")
        return _discard_output()


def _discard_output() -> int:
    """Drop the output that is not written yet, or Python reports the same error again."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


def _print_error(chosen: argparse.Namespace, error: str) -> None:
    terminal.remark(f"mitmproxy-acme {chosen.command}: {error}")
    if getattr(chosen, "json", False):
        terminal.say_document({"error": error})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mitmproxy-acme",
        description="Manage the certificates of mitmproxy-acme, and run mitmdump with the addon.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mitmproxy-acme {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(
            name, help=command.HELP, description=command.HELP, epilog=_EPILOG.splitlines()[0]
        )
        command.add_arguments(subparser)
        if name not in _WITHOUT_OPTIONS:
            arguments.add_options(subparser)
    return parser
