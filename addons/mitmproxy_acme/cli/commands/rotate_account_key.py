"""``mitmproxy-acme rotate-account-key``: a new key for the account at the CA, while proxies use it."""

import argparse
import asyncio

from ...ca.account_session import AccountSession
from .. import terminal
from ..environment import at_account
from . import arguments

HELP = "change the key of the account at the CA (RFC 8555 section 7.3.5)"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments, except the options of the proxies."""
    arguments.add_ca(command)
    arguments.add_json(command)


def run(chosen: argparse.Namespace) -> int:
    """Change the key; return 0 when the CA and the storage have the new one."""
    config, confdir = arguments.config_of(chosen), arguments.confdir_of(chosen)
    asyncio.run(at_account(config, confdir, chosen.ca, AccountSession.change_key))
    if chosen.json:
        terminal.say_document({"account_key": "changed"})
    else:
        terminal.say("the account has a new key; the proxies use it from their next order on")
    return 0
