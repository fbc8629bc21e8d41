"""``mitmproxy-acme revoke``: a certificate that nobody shall trust any more."""

import argparse
import asyncio

from ...admin.documents import Document
from ...core.errors import ConfigError
from ...core.names import ServerName
from ...core.revocation import COMPROMISED, REASONS
from .. import terminal
from ..open_backend import open_backend
from . import arguments

HELP = "have the CA revoke a certificate, and forget it on every node"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Say what the command takes beside the options."""
    arguments.add_name(command)
    command.add_argument(
        "--reason",
        choices=list(REASONS),
        default="unspecified",
        help="why (RFC 5280); browsers look for keyCompromise, of which another is ordered first, with a new key "
        "(default: unspecified)",
    )
    command.add_argument("--yes", action="store_true", help="do not ask; needed where there is no terminal")
    arguments.add_json(command)


def run(chosen: argparse.Namespace) -> int:
    """Revoke it, once a person has said yes; return 0 where it is revoked, 1 where it is not."""
    name = arguments.name_of(chosen.name)
    if not chosen.yes and not terminal.is_asked_here():
        raise ConfigError("a revocation cannot be undone: say --yes where nobody can be asked")
    return asyncio.run(_revoke(chosen, name))


async def _revoke(chosen: argparse.Namespace, name: ServerName) -> int:
    async with open_backend(arguments.config_of(chosen), arguments.confdir_of(chosen)) as certificates:
        document = await certificates.get(name)
        about = f"the certificate of {document['host']} by {document['issuer_cn']}, until {document['expires_at']}"
        if not chosen.yes and not terminal.confirm(
            f"Revoke {about}, for {chosen.reason}? {_next(document, chosen.reason)}"
        ):
            terminal.remark("nothing is revoked")
            return 1
        more = await certificates.revoke(name, chosen.reason)
    if chosen.json:
        terminal.say_document({"host": document["host"], "reason": chosen.reason, "certificate": document})
    else:
        terminal.say(f"revoked {document['host']}: {chosen.reason}")
    terminal.remark(more or _next(document, chosen.reason))
    return 0


def _next(document: Document, reason: str) -> str:
    if reason == COMPROMISED:
        return "Another with a new key is ordered first."
    if document["managed"]:
        return "It is managed, so a running proxy obtains another at once."
    return "Another is ordered when a client asks for the name."
