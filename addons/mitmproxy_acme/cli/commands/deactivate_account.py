"""``mitmproxy-acme deactivate-account``: the account at the CA, given up for ever."""

import argparse
import asyncio

from ...ca.account_session import AccountSession
from ...core.errors import ConfigError
from .. import terminal
from ..environment import at_account
from . import arguments

HELP = "give the account at the CA up for ever (RFC 8555 section 7.3.6); its certificates stay valid"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Say what the command takes beside the options."""
    command.add_argument("--yes", action="store_true", help="do not ask; needed where there is no terminal")
    arguments.add_ca(command)
    arguments.add_json(command)


def run(chosen: argparse.Namespace) -> int:
    """Deactivate it, once a person has said yes; return 0 where it is, 1 where it is not."""
    if not chosen.yes and not terminal.is_asked_here():
        raise ConfigError("an account that is given up does not come back: say --yes where nobody can be asked")
    config = arguments.config_of(chosen)
    question = f"Give up the account at {chosen.ca or config.issuers[0].ca}? The next order makes another."
    if not chosen.yes and not terminal.confirm(question):
        terminal.remark("nothing is given up")
        return 1
    asyncio.run(at_account(config, arguments.confdir_of(chosen), chosen.ca, AccountSession.deactivate))
    if chosen.json:
        terminal.say_document({"account": "deactivated"})
    else:
        terminal.say("the account is deactivated; restart the proxies, and they make another")
    return 0
