"""``mitmproxy-acme rotate-account-key``: a new key for the account at the CA, while proxies use it."""

import argparse
import asyncio

from ...ca.account_session import AccountSession
from .. import terminal
from ..environment import at_account
from . import arguments

HELP = "give the account at the CA a new key (RFC 8555 section 7.3.5)"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Say what the command takes beside the options."""
    arguments.add_ca(command)
    arguments.add_json(command)


def run(chosen: argparse.Namespace) -> int:
    """Change it; return 0 where the CA and the storage have the new one."""
    config, confdir = arguments.config_of(chosen), arguments.confdir_of(chosen)
    asyncio.run(at_account(config, confdir, chosen.ca, AccountSession.change_key))
    if chosen.json:
        terminal.say_document({"account_key": "changed"})
    else:
        terminal.say("the account has a new key; the proxies find it with their next order")
    return 0
