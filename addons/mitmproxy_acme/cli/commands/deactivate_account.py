"""``mitmproxy-acme deactivate-account``: deactivates the account at the CA for ever."""

import argparse
import asyncio

from ...ca.account_session import AccountSession
from ...core.errors import ConfigError
from .. import terminal
from ..environment import at_account
from . import arguments

HELP = "deactivate the account at the CA for ever (RFC 8555 section 7.3.6); its certificates stay valid"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments, except the options of the proxies."""
    command.add_argument("--yes", action="store_true", help="do not ask for confirmation; required without a terminal")
    arguments.add_ca(command)
    arguments.add_json(command)


def run(chosen: argparse.Namespace) -> int:
    """Deactivate it after confirmation; return 0 if it is deactivated, else 1."""
    if not chosen.yes and not terminal.is_asked_here():
        raise ConfigError("deactivating an account cannot be undone; add --yes to confirm without a terminal")
    config = arguments.config_of(chosen)
    question = f"Deactivate the account at {chosen.ca or config.issuers[0].ca}? The next order creates another."
    if not chosen.yes and not terminal.confirm(question):
        terminal.remark("nothing was changed")
        return 1
    asyncio.run(at_account(config, arguments.confdir_of(chosen), chosen.ca, AccountSession.deactivate))
    if chosen.json:
        terminal.say_document({"account": "deactivated"})
    else:
        terminal.say("the account is deactivated; restart the proxies to create another")
    return 0
