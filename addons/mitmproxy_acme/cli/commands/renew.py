"""``mitmproxy-acme renew``: orders new certificates for stored ones, by name or for all that are due."""

import argparse
import asyncio
import time

from ...admin.certificate_rows import State
from ...admin.certificate_service import Outcome
from ...admin.documents import unix_time
from ...config.config import Config
from ...core.errors import ConfigError
from ...core.names import ServerName
from ..backend import Backend
from ..batch_report import ReportOptions, run_batch
from ..open_backend import open_backend
from . import arguments

HELP = "renew certificates now, due or not; or all that are due"
_DUE = (State.DUE, State.EXPIRING, State.EXPIRED)


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments, except the options of the proxies."""
    command.add_argument("names", nargs="*", metavar="NAME", help="any name of a certificate")
    command.add_argument(
        "--all-due", action="store_true", help="all that are due, except those that failed too recently"
    )
    arguments.add_parallel(command)
    arguments.add_json(command, "one JSON object per line for each certificate")


def run(chosen: argparse.Namespace) -> int:
    """Renew; return 0 if all were renewed, 1 if any was not, 130 after Ctrl-C."""
    if bool(chosen.names) == chosen.all_due:
        raise ConfigError("give names, or --all-due")
    names = [arguments.name_of(text) for text in chosen.names]
    return asyncio.run(_renew(chosen, arguments.config_of(chosen), names))


async def _renew(chosen: argparse.Namespace, config: Config, names: list[ServerName]) -> int:
    options = ReportOptions(json=chosen.json, advise=True, parallel=chosen.parallel)
    async with open_backend(config, arguments.confdir_of(chosen)) as certificates:
        if chosen.all_due:
            names = await _due(certificates)
        subjects = [subject.id if (subject := config.subject(name)) else name for name in names]
        return await run_batch(certificates.renew, list(dict.fromkeys(subjects)), options, (Outcome.RENEWED,))


async def _due(certificates: Backend) -> list[ServerName]:
    now, due = time.time(), []
    async for document in certificates.select(states=_DUE):
        failure = document["last_failure"]
        if failure is None or unix_time(failure["retry_at"]) <= now:
            due.append(ServerName(document["host"]))
    return due
