"""``mitmproxy-acme serve``: one line to a running edge with real certificates.

This module knows the command's arguments and its steps: options, terms of service, preflight, start. What the arguments
mean in options is in ``serve_settings``; ``mitm.launcher`` starts the proxy, as for ``run``.
"""

import argparse
import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...config import options
from ...config.config import Config
from ...core.errors import ConfigError
from ...core.host_port import parse_host_port
from ...core.names import ServerName
from ...diagnostics.listen_check import ListenPort, is_available
from ...mitm.launch import Launch, ServedSite
from .. import terminal
from ..config_file import config_file
from ..mitmproxy_options import given_settings, read_settings
from ..serve_preflight import StoredState, ports_are_available, report
from ..serve_settings import DNS_PORT, HTTP_PORT, HTTPS_PORT, STATUS_PAGE, Site, serve_settings, specs
from ..terms_of_service import require_agreement
from . import arguments
from . import run as run_command

HELP = "serve names with real certificates, in front of your server"

_USAGE = """\
mitmproxy-acme serve NAME ... --to UPSTREAM [options]
       mitmproxy-acme serve NAME=UPSTREAM ... [options]"""
_FAILED = 1


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments, except the options of the proxies."""
    command.usage = _USAGE
    command.add_argument(
        "sites",
        nargs="+",
        metavar="NAME[=UPSTREAM]",
        help="a name, held from the start; or a pattern of acme_domains (*.example.com), on demand; or an IP address",
    )
    command.add_argument(
        "--to",
        default="",
        metavar="UPSTREAM",
        help="your server: 127.0.0.1:8000, :8000, or the URL of one (http:// or https://)",
    )
    command.add_argument(
        "--change-host-header", action="store_true", help="send the upstream its own host in place of the client's"
    )
    _add_port_arguments(command)
    _add_certificate_arguments(command)
    command.add_argument(
        "--status", default="", metavar="ADDRESS:PORT", help=f"the status page, or off (default: {STATUS_PAGE})"
    )
    run_command.add_tool(command)
    command.add_argument(
        "--print-config", action="store_true", help="print the config.yaml that says the same, and start nothing"
    )


def _add_port_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--https-port", type=arguments.port, default=HTTPS_PORT, metavar="PORT", help=f"TCP and UDP ({HTTPS_PORT})"
    )
    command.add_argument(
        "--http-port", type=_port_or_off, default=HTTP_PORT, metavar="PORT", help=f"or off ({HTTP_PORT})"
    )
    command.add_argument(
        "--dns-port",
        type=_port_or_off,
        default=DNS_PORT,
        metavar="PORT",
        help=f"where CAs ask, with a DNS challenge and no provider, or off ({DNS_PORT})",
    )
    command.add_argument(
        "--bind", type=_address, default="", metavar="ADDRESS", help="listen on this address only (default: all)"
    )


def _add_certificate_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--email", default="", metavar="ADDRESS", help="for the account at the CA")
    command.add_argument("--agree-tos", action="store_true", help="accept the CA's terms of service without a question")
    command.add_argument("--staging", action="store_true", help="the CA's staging directory: wide limits, not trusted")
    command.add_argument(
        "--ca", action="append", default=[], metavar="CA", help="as in acme_ca (default: letsencrypt); may be repeated"
    )
    command.add_argument("--storage", default="", metavar="URL", help="as in acme_storage (default: file:)")
    command.add_argument(
        "--challenge", action="append", default=[], metavar="TYPE", help="as in acme_challenges; may be repeated"
    )
    command.add_argument(
        "--dns-provider", default="", metavar="NAME", help="as in acme_dns_provider; validates by dns-01"
    )


def _address(text: str) -> str:
    if not text:
        return ""
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IP address of this machine") from None


def _port_or_off(text: str) -> int | None:
    return None if text == "off" else arguments.port(text)


def run(chosen: argparse.Namespace) -> int:
    """Serve until a signal ends it, then return 0; 1 if a port is not available, else the exit code of the tool."""
    confdir = arguments.confdir_of(chosen)
    given = given_settings(chosen.settings)
    _require_other(given)
    run_command.require_one_process(chosen.tool, chosen.workers)
    configured = read_settings(confdir, chosen.settings)
    meant = serve_settings(chosen, configured)
    added = {name: value for name, value in meant.defaults.items() if name not in configured} | meant.chosen
    settings = configured | added
    config = Config.from_options(_ours(settings) | {"acme_tos_accepted": True})
    if chosen.print_config:
        terminal.say_text(config_file(settings))
        return 0
    if not ports_are_available(_ports(chosen)):
        return _FAILED
    if "acme_admin_listen" in added and not chosen.status and not is_available(_port_of(STATUS_PAGE)):
        terminal.remark(f"warn  no status page, because {STATUS_PAGE} is in use; --status takes another address")
        added["acme_admin_listen"] = ""
    stored = StoredState.read(config, confdir)
    if not stored.complete:  # before the question, and so as if it were answered
        report(settings | added | {"acme_tos_accepted": True}, confdir)
    if not settings.get("acme_tos_accepted"):
        require_agreement(stored.new_cas)
        added["acme_tos_accepted"] = True
    return run_command.start(_launch(chosen, meant.sites, added, config, confdir), chosen.workers)


def _ours(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name in options.NAMES}


def _require_other(given: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` for an option that the names, upstreams and ports decide."""
    for name in ("mode", "acme_domains", "acme_certificates", "acme_upstreams"):
        if name in given:
            raise ConfigError(
                f"--set {name}: serve sets it from its own arguments; to set it yourself, write config.yaml "
                "(--print-config is a start) and use mitmproxy-acme run"
            )


def _ports(chosen: argparse.Namespace) -> list[ListenPort]:
    ports = [ListenPort(chosen.bind, chosen.https_port, "--https-port", udp=udp) for udp in (False, True)]
    if chosen.http_port is not None:
        ports.insert(0, ListenPort(chosen.bind, chosen.http_port, "--http-port"))
    return ports


def _port_of(address: str) -> ListenPort:
    host, port = parse_host_port(address)
    return ListenPort(host, port, "--status")


def _launch(
    chosen: argparse.Namespace, sites: Sequence[Site], added: Mapping[str, Any], config: Config, confdir: Path
) -> Launch:
    shown = [
        ServedSite(site.url(chosen.https_port), site.upstream, site.name, managed=_is_managed(config, site))
        for site in sites
    ]
    # The files are read from the confdir that is set first; all else overrides them.
    first = ["--set", f"confdir={confdir}"]
    return Launch(first, chosen.tool, [*specs(added), *_without_confdir(chosen.settings)], shown, "serve")


def _is_managed(config: Config, site: Site) -> bool:
    return not site.is_pattern or (site.is_wildcard and config.is_managed(ServerName(site.name)))


def _without_confdir(settings: Sequence[str]) -> list[str]:
    return [text for text in settings if not text.startswith("confdir=")]
