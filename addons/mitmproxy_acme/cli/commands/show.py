"""``mitmproxy-acme show``: all there is to say of one certificate."""

import argparse
import asyncio

from ...admin.documents import Document
from .. import terminal
from ..open_backend import open_backend
from . import arguments

HELP = "say all there is to say of a certificate"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Say what the command takes beside the options."""
    arguments.add_name(command)
    arguments.add_json(command)


def run(chosen: argparse.Namespace) -> int:
    """Show it; ``NotFound`` where there is none."""
    document = asyncio.run(_show(chosen))
    if chosen.json:
        terminal.say_document(document)
        return 0
    said = {field.replace("_", " "): _in_words(value) for field, value in document.items() if value is not None}
    width = max(map(len, said))
    for field, text in said.items():
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
            return (
                f"{value['reason']}; to be tried again at {value['retry_at']}, failures in a row: {value['failures']}"
            )
    return str(value)
