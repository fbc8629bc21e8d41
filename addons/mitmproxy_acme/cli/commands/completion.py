"""``mitmproxy-acme completion``: what a shell needs to complete commands, options, choices and files."""

import argparse

import shtab

_PATHS = {"FILE": shtab.FILE, "FOLDER": shtab.DIRECTORY}

HELP = "print a completion script for a shell"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    command.add_argument("shell", choices=("bash", "zsh"), help='bash: eval "$(mitmproxy-acme completion bash)"')


def run(chosen: argparse.Namespace) -> int:
    """Print the script."""
    _complete_paths(chosen.parser)
    print(shtab.complete(chosen.parser, chosen.shell))
    return 0


def _complete_paths(parser: argparse.ArgumentParser) -> None:
    """Have files and folders completed where they are wanted, which a shell leaves to the script."""
    for action in parser._actions:  # as shtab goes through them
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_paths(command)
        elif action.metavar in _PATHS:
            action.complete = _PATHS[action.metavar]  # type: ignore[attr-defined]  # shtab's way to be told
