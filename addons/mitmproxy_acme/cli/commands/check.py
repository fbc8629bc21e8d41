"""``mitmproxy-acme check``: finds what would prevent certificates from being issued, before a client meets it."""

import argparse
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from ...core.dns_server import DnsServer
from ...core.names import parse_identifier
from ...diagnostics.finding import Finding, Severity, warn
from ...diagnostics.preflight import CheckTargets, inspect
from .. import terminal
from ..mitmproxy_options import overruled, read_settings
from . import arguments

HELP = "find what would prevent certificates from being issued, and say what to do about it"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments, except the options of the proxies."""
    command.add_argument(
        "names", nargs="*", metavar="NAME", help="check these names (default: the names in the options)"
    )
    command.add_argument(
        "--dns", metavar="ADDRESS:PORT", help="use this DNS server (default: the resolver of this machine)"
    )
    command.add_argument(
        "--http-port",
        type=arguments.port,
        default=80,
        metavar="PORT",
        help="the port on which the CA validates http-01 (default: 80)",
    )
    command.add_argument(
        "--https-port", type=arguments.port, default=443, metavar="PORT", help="the port of the clients (default: 443)"
    )
    command.add_argument(
        "--dns-port",
        type=arguments.port,
        default=53,
        metavar="PORT",
        help="the port on which CAs ask acme_dns_nameservers (default: 53)",
    )
    arguments.add_json(command)


def run(chosen: argparse.Namespace) -> int:
    """Check; return 0 if nothing failed, else 1."""
    confdir = arguments.confdir_of(chosen)
    dns = DnsServer.parse(chosen.dns, "--dns") if chosen.dns else None
    targets = CheckTargets(
        dns,
        chosen.http_port,
        chosen.https_port,
        chosen.dns_port,
        tuple(parse_identifier(text, "NAME") for text in chosen.names),
    )
    found = []
    settings = read_settings(confdir, chosen.settings)
    for finding in chain(_overruled(confdir, chosen.settings), inspect(settings, confdir, targets)):
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
