"""``mitmproxy-acme check``: what would keep certificates from coming, before a client finds it."""

import argparse
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from ...core.names import parse_identifier
from ...diagnostics.finding import Finding, Severity, warn
from ...diagnostics.preflight import CheckTargets, inspect
from ...diagnostics.resolver import parse_server
from .. import terminal
from ..mitmproxy_options import overruled, read_settings
from . import arguments

HELP = "look for what would keep certificates from coming, and say what to do about it"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Say what the command takes beside the options."""
    command.add_argument(
        "names", nargs="*", metavar="NAME", help="look at these names (default: those that the options list)"
    )
    command.add_argument(
        "--dns", metavar="ADDRESS:PORT", help="ask this DNS server (default: as this machine resolves names)"
    )
    command.add_argument(
        "--http-port",
        type=arguments.port,
        default=80,
        metavar="PORT",
        help="where the CA asks for challenges (default: 80)",
    )
    command.add_argument(
        "--https-port", type=arguments.port, default=443, metavar="PORT", help="where clients connect (default: 443)"
    )
    command.add_argument(
        "--dns-port",
        type=arguments.port,
        default=53,
        metavar="PORT",
        help="where CAs ask acme_dns_nameservers (default: 53)",
    )
    arguments.add_json(command)


def run(chosen: argparse.Namespace) -> int:
    """Look; return 0 where nothing failed, 1 where something did."""
    confdir = arguments.confdir_of(chosen)
    dns = parse_server(chosen.dns) if chosen.dns else None
    look = CheckTargets(
        dns,
        chosen.http_port,
        chosen.https_port,
        chosen.dns_port,
        tuple(parse_identifier(text, "NAME") for text in chosen.names),
    )
    found = []
    settings = read_settings(confdir, chosen.settings)
    for finding in chain(_overruled(confdir, chosen.settings), inspect(settings, confdir, look)):
        found.append(finding)
        if not chosen.json:
            terminal.say(f"{finding.outcome.value:4}  {finding.what}")
    if chosen.json:
        findings = [{"outcome": finding.outcome.value, "what": finding.what} for finding in found]
        terminal.say_document({"findings": findings})
    return 1 if any(finding.outcome is Severity.FAIL for finding in found) else 0


def _overruled(confdir: Path, given: Sequence[str]) -> Iterator[Finding]:
    for name in overruled(confdir, given):
        yield warn(
            f"{name}: --set and config.yaml differ; this command goes by --set, and mitmproxy by config.yaml: "
            "leave it out of one of them"
        )
