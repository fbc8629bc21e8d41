"""``mitmproxy-acme show``: the details of one certificate."""

import argparse
import asyncio

from ...admin.documents import Document
from .. import terminal
from ..open_backend import open_backend
from . import arguments

HELP = "show the details of a certificate"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments, except the options of the proxies."""
    arguments.add_name(command)
    arguments.add_json(command)


def run(chosen: argparse.Namespace) -> int:
    """Show it. Raises ``NotFound``."""
    document = asyncio.run(_show(chosen))
    if chosen.json:
        terminal.say_document(document)
        return 0
    lines = {field.replace("_", " "): _in_words(value) for field, value in document.items() if value is not None}
    width = max(map(len, lines))
    for field, text in lines.items():
        terminal.say(f"{field.ljust(width)}  {text}")
    return 0


async def _show(chosen: argparse.Namespace) -> Document:
    name = arguments.name_of(chosen.name)
    async with open_backend(arguments.config_of(chosen), arguments.confdir_of(chosen)) as certificates:
        return await certificates.get(name)


def _in_words(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(value)
        case dict():  # the last failure
            return f"{value['reason']}; next attempt at {value['retry_at']}, failures in a row: {value['failures']}"
    return str(value)
