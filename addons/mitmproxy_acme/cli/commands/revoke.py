"""``mitmproxy-acme revoke``: has the CA revoke a certificate."""

import argparse
import asyncio

from ...admin.documents import Document
from ...core.errors import ConfigError
from ...core.names import ServerName
from ...core.revocation import COMPROMISED, REASONS
from .. import terminal
from ..open_backend import open_backend
from . import arguments

HELP = "have the CA revoke a certificate, and delete it on every node"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments, except the options of the proxies."""
    arguments.add_name(command)
    command.add_argument(
        "--reason",
        choices=list(REASONS),
        default="unspecified",
        help="the reason of RFC 5280 (default: unspecified); for keyCompromise, which browsers check, a certificate "
        "with a new key is ordered first",
    )
    command.add_argument("--yes", action="store_true", help="do not ask for confirmation; required without a terminal")
    arguments.add_json(command)


def run(chosen: argparse.Namespace) -> int:
    """Revoke it after confirmation; return 0 if it is revoked, else 1."""
    name = arguments.name_of(chosen.name)
    if not chosen.yes and not terminal.is_asked_here():
        raise ConfigError("a revocation cannot be undone; add --yes to confirm without a terminal")
    return asyncio.run(_revoke(chosen, name))


async def _revoke(chosen: argparse.Namespace, name: ServerName) -> int:
    async with open_backend(arguments.config_of(chosen), arguments.confdir_of(chosen)) as certificates:
        document = await certificates.get(name)
        if not chosen.yes and not terminal.confirm(_question(document, chosen.reason)):
            terminal.remark("nothing was changed")
            return 1
        more = await certificates.revoke(name, chosen.reason)
    if chosen.json:
        terminal.say_document({"host": document["host"], "reason": chosen.reason, "certificate": document})
    else:
        terminal.say(f"revoked {document['host']}: {chosen.reason}")
    terminal.remark(more or _next(document, chosen.reason))
    return 0


def _question(document: Document, reason: str) -> str:
    certificate = f"the certificate of {document['host']}, issued by {document['issuer_cn']}"
    return f"Revoke {certificate}, valid until {document['expires_at']}? Reason: {reason}. {_next(document, reason)}"


def _next(document: Document, reason: str) -> str:
    if reason == COMPROMISED:
        return "A certificate with a new key is ordered first."
    if document["managed"]:
        return "It is managed: a running proxy obtains another at once."
    return "Another is ordered when a client asks for the name."
