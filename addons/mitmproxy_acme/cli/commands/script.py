"""``mitmproxy-acme script``: prints the path of the addon."""

import argparse
import importlib.util
from pathlib import Path

from .. import terminal
from . import arguments

HELP = 'print the path of the addon: mitmdump -s "$(mitmproxy-acme script)"'


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments."""
    arguments.add_json(command)


def run(chosen: argparse.Namespace) -> int:
    """Print the path."""
    spec = importlib.util.find_spec("acme_addon")
    # In a checkout that is not installed, the script is not on the import path, but always in the same folder.
    origin = spec.origin if spec is not None else None
    path = origin or str(Path(__file__).resolve().parents[3] / "acme_addon.py")
    if chosen.json:
        terminal.say_document({"script": path})
    else:
        print(path)  # unchanged, for the shell
    return 0
