"""``mitmproxy-acme completion``: what a shell needs to complete commands, options, reasons and states."""

import argparse

import shtab

HELP = "print a completion script for a shell"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    command.add_argument("shell", choices=("bash", "zsh"), help='bash: eval "$(mitmproxy-acme completion bash)"')


def run(chosen: argparse.Namespace) -> int:
    """Print the script."""
    print(shtab.complete(chosen.parser, chosen.shell))
    return 0
