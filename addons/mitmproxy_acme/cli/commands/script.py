"""``mitmproxy-acme script``: where the addon is."""

import argparse
import importlib.util
from pathlib import Path

from .. import terminal
from . import arguments

HELP = 'print the path of the addon: mitmdump -s "$(mitmproxy-acme script)"'


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    arguments.add_json(command)


def run(chosen: argparse.Namespace) -> int:
    """Print the path."""
    spec = importlib.util.find_spec("acme_addon")
    # A checkout that nobody installed has the script on no import path, but always in the same place.
    origin = spec.origin if spec is not None else None
    path = origin or str(Path(__file__).resolve().parents[3] / "acme_addon.py")
    if chosen.json:
        terminal.say_document({"script": path})
    else:
        print(path)  # as it is: it is for a shell
    return 0
