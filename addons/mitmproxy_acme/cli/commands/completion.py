"""``mitmproxy-acme completion``: a script with which a shell completes commands, options, choices and files."""

import argparse

import shtab

_PATHS = {"FILE": shtab.FILE, "FOLDER": shtab.DIRECTORY}

HELP = "print a completion script for bash or zsh"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments."""
    command.add_argument("shell", choices=("bash", "zsh"), help='bash: eval "$(mitmproxy-acme completion bash)"')


def run(chosen: argparse.Namespace) -> int:
    """Print the script."""
    _complete_paths(chosen.parser)
    print(shtab.complete(chosen.parser, chosen.shell))
    return 0


def _complete_paths(parser: argparse.ArgumentParser) -> None:
    """Mark the arguments that are files or folders, so that the script completes them."""
    for action in parser._actions:  # as shtab itself does
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_paths(command)
        elif action.metavar in _PATHS:
            action.complete = _PATHS[action.metavar]  # type: ignore[attr-defined]  # the attribute that shtab reads
