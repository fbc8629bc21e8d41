"""``mitmproxy-acme list``: the stored certificates as a table."""

import argparse
import asyncio
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from ...admin.certificate_rows import State
from ...admin.documents import Document, unix_time
from ...ca.known_cas import ALIASES
from ...core.names import name_of
from ...core.renewal import describe_duration
from .. import terminal
from ..open_backend import open_backend
from . import arguments

HELP = "list the stored certificates"
_HEADS = ("host", "state", "expires in", "renew in", "CA", "names")
_ALIAS_OF = {authority.directory: alias for alias, authority in ALIASES.items()}
_SHOWN = 3


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments, except the options of the proxies."""
    command.add_argument("--search", default="", metavar="TEXT", help="only certificates with this text in a name")
    command.add_argument(
        "--state",
        dest="states",
        action="append",
        default=[],
        choices=[state.value for state in State],
        help="only certificates in this state; repeat it for several states",
    )
    arguments.add_json(command)


def run(chosen: argparse.Namespace) -> int:
    """List them, sorted by host."""
    documents = asyncio.run(_list(chosen))
    if chosen.json:
        terminal.say_document({"data": documents})
        return 0
    if not documents:
        terminal.remark("no certificate is stored" + (" that matches" if chosen.search or chosen.states else ""))
        return 0
    now = time.time()
    for line in terminal.table(_HEADS, [_row(document, now) for document in documents]):
        terminal.say(line)
    return 0


async def _list(chosen: argparse.Namespace) -> list[Document]:
    states = [State(text) for text in chosen.states]
    async with open_backend(arguments.config_of(chosen), arguments.confdir_of(chosen)) as certificates:
        return [document async for document in certificates.select(search=chosen.search.lower(), states=states)]


def _row(document: Document, now: float) -> Sequence[str]:
    host = document["host"]
    others = [name for name in document["names"] if name != name_of(host)]
    more = f", and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    expires, due = _until(document["expires_at"], now), _until(document["renew_at"], now)
    shown = ", ".join(others[:_SHOWN]) + more
    return host, document["state"], expires, due, ca_of(document), shown or document["trouble"] or _idle(document)


def _idle(document: Document) -> str:
    """Say since when no client has asked for an idle certificate; a proxy of an earlier release does not tell."""
    since = document.get("idle_since_at")
    return f"not renewed: no client since {since[:10]}" if since else ""


def _until(timestamp: str | None, now: float) -> str:
    if timestamp is None:
        return "-"
    left = unix_time(timestamp) - now
    return describe_duration(left) if left > 0 else "now"


def ca_of(document: Document) -> str:
    """Return the CA's alias, else the host of its directory."""
    directory = document["ca"] or ""
    try:
        return _ALIAS_OF.get(directory) or urlsplit(directory).hostname or "-"
    except ValueError:  # a record may say anything
        return "-"
