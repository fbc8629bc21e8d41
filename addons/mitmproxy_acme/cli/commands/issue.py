"""``mitmproxy-acme issue``: obtains certificates for names, one or thousands, unless they are stored."""

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

HELP = "obtain certificates for names, unless they are stored"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments, except the options of the proxies."""
    command.add_argument(
        "names",
        nargs="*",
        metavar="NAMES",
        help="one certificate per argument; separate the names of an entry of acme_certificates by commas",
    )
    command.add_argument(
        "-f",
        "--file",
        metavar="FILE",
        help="one certificate per line, its names separated by commas or spaces; # begins a comment; "
        "- is standard input",
    )
    arguments.add_parallel(command)
    arguments.add_json(command, "one JSON object per line for each certificate")


def run(chosen: argparse.Namespace) -> int:
    """Obtain them; return 0 if all are stored, 1 if any is not, 130 after Ctrl-C."""
    if bool(chosen.names) == bool(chosen.file):
        raise ConfigError("give the names as arguments, or in a file with -f")
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
    """Return the names of each line that is not empty. Raises ``ConfigError``."""
    try:  # some editors begin a file with a byte order mark
        text = (sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(f"{file} cannot be read: {reason}") from None
    lines = (line.partition("#")[0].replace(",", " ").split() for line in text.splitlines())
    return [names for names in lines if names]


def wanted(texts: Iterable[list[str]], config: Config) -> tuple[list[ServerName], list[Result]]:
    """Return one name for each certificate without repetition, and the results for names that are wrong."""
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
    """Return the name under which a certificate with these names is stored. Raises ``ConfigError``."""
    subject = config.subject(names[0])
    if len(names) > 1 and (subject is None or not set(names) <= set(subject.names)):
        raise ConfigError("no entry of acme_certificates lists these names together; add one, or give each name alone")
    return subject.id if subject is not None else names[0]
