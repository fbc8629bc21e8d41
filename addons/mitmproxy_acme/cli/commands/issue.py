"""``mitmproxy-acme issue``: certificates for names, one or thousands; what is stored already is left as it is."""

import argparse
import asyncio
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...admin.certificate_service import Outcome
from ...config.config import Config
from ...core.errors import ConfigError
from ...core.names import ServerName, parse_id
from ..backend import Result
from ..batch_report import ReportOptions, run_batch
from ..open_backend import open_backend
from . import arguments

HELP = "have certificates for names, of a file or as arguments; what is stored already is left as it is"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Say what the command takes beside the options."""
    command.add_argument(
        "names",
        nargs="*",
        metavar="NAMES",
        help="one certificate each; names that share one, as acme_certificates lists it, between commas",
    )
    command.add_argument(
        "-f",
        "--file",
        metavar="FILE",
        help="one certificate a line, its names between commas or blanks, # begins a comment; - is standard input",
    )
    arguments.add_parallel(command)
    arguments.add_json(command, "one JSON object a line for each certificate")


def run(chosen: argparse.Namespace) -> int:
    """Have them; return 0 where all are there, 1 where any is not, 130 where a person interrupted it."""
    if bool(chosen.names) == bool(chosen.file):
        raise ConfigError("name the certificates as arguments, or in a file with -f")
    config = arguments.config_of(chosen)
    texts = read_lines(chosen.file) if chosen.file else [text.split(",") for text in chosen.names]
    names, refused = wanted(texts, config)
    return asyncio.run(_issue(chosen, config, names, refused))


async def _issue(
    chosen: argparse.Namespace, config: Config, names: Sequence[ServerName], refused: Sequence[Result]
) -> int:
    options = ReportOptions(json=chosen.json, advise=True, parallel=chosen.parallel)
    async with open_backend(config, arguments.confdir_of(chosen)) as certificates:
        counted = (Outcome.OBTAINED, Outcome.STORED)
        return await run_batch(certificates.issue, names, options, counted, refused)


def read_lines(file: str) -> list[list[str]]:
    """Return the names of each line that has any. Raises ``ConfigError``."""
    try:  # some editors begin a file with a byte order mark, which is of no name
        text = (sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(f"{file} cannot be read: {reason}") from None
    lines = (line.partition("#")[0].replace(",", " ").split() for line in text.splitlines())
    return [names for names in lines if names]


def wanted(texts: Iterable[list[str]], config: Config) -> tuple[list[ServerName], list[Result]]:
    """Return a name for each certificate, each once, and what can be none as results."""
    names: dict[ServerName, None] = {}
    refused = []
    for text in texts:
        try:
            name = _certificate_of([parse_id(part, "NAMES") for part in text], config)
        except ConfigError as error:
            refused.append(Result(",".join(text), Outcome.FAILED, reason=str(error)))
        else:
            names[name] = None
    return list(names), refused


def _certificate_of(names: list[ServerName], config: Config) -> ServerName:
    """Return the name that one certificate is known by. Raises ``ConfigError``."""
    subject = config.subject(names[0])
    if len(names) > 1 and (subject is None or not set(names) <= set(subject.names)):
        raise ConfigError(
            "no entry of acme_certificates lists these names together, and only there can names share one"
        )
    return subject.id if subject is not None else names[0]
