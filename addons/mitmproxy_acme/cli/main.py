"""``mitmproxy-acme``: what a person types.

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
    check,
    completion,
    deactivate_account,
    export,
    importing,
    issue,
    list,
    renew,
    revoke,
    rotate_account_key,
    rotate_storage_key,
    run,
    script,
    show,
)

_WRONG = 2
_EPILOG = """\
exit codes: 0 all was done; 1 something failed, in part or whole; 2 an argument or option is wrong; 130 interrupted

issue, list, show, renew and revoke work through the admin API of a running proxy where acme_admin_listen says that
there is one, else on the storage of the options itself; they say which on standard error.
"""


class Command(Protocol):
    """A module that is a command."""

    HELP: str

    def add_arguments(self, command: argparse.ArgumentParser, /) -> None:
        """Say what it takes beside the options."""
        ...

    def run(self, chosen: argparse.Namespace, /) -> int:
        """Do it, and return the exit code."""
        ...


COMMANDS: Mapping[str, Command] = {
    "script": script,
    "run": run,
    "check": check,
    "issue": issue,
    "list": list,
    "show": show,
    "renew": renew,
    "revoke": revoke,
    "export": export,
    "import": importing,
    "rotate-storage-key": rotate_storage_key,
    "rotate-account-key": rotate_account_key,
    "deactivate-account": deactivate_account,
    "completion": completion,
}
_WITHOUT_OPTIONS = ("script", "run", "completion")


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; return 0 for success, 1 for a failure in part or whole, 2 for what is wrong, 130 for Ctrl-C."""
    logging.getLogger("mitmproxy_acme").addHandler(logging.NullHandler())  # what matters is printed
    terminal.open_streams()
    parser = _parser()
    chosen = run.parse(parser, words)
    chosen.parser = parser  # for the completion of it
    try:
        code = COMMANDS[chosen.command].run(chosen)
        sys.stdout.flush()  # here, where it is still known what to say of a reader that is gone
        return code
    except (AcmeError, StorageError) as error:
        _tell(chosen, str(error))
        return _WRONG if isinstance(error, ConfigError) else FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        terminal.remark("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # who reads has seen enough, as head does
        return _unheard()
    except OSError as error:  # what else there is to open says so itself: this is standard output, on a full disk
        terminal.remark(f"mitmproxy-acme {chosen.command}: {error.strerror or error}")
        return _unheard()


def _unheard() -> int:
    """Leave what is not written yet, or Python says once more that it cannot be."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


def _tell(chosen: argparse.Namespace, error: str) -> None:
    terminal.remark(f"mitmproxy-acme {chosen.command}: {error}")
    if getattr(chosen, "json", False):
        terminal.say_document({"error": error})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mitmproxy-acme",
        description="Real certificates for mitmproxy: the tool beside the addon.",
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
