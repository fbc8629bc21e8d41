"""What ``serve`` means in options: the names and upstreams of its command line, and what a public edge needs.

This module knows the notation of the command line, and the options that say the same; it must not know what is
configured already, or start anything.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..ca.known_cas import ALIASES
from ..core.errors import ConfigError
from ..core.names import parse_identifier, url_host
from ..core.proof import TXT_TYPES

HTTPS_PORT, HTTP_PORT, DNS_PORT = 443, 80, 53
STATUS_PAGE = "127.0.0.1:8008"

_SITE, _TO = "NAME", "--to"
_DNS = "dns-01"
_PATTERNS = ("*.", "**.", "re:")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Site:
    """A name or a pattern, and the URL of its upstream."""

    name: str
    upstream: str

    @property
    def is_pattern(self) -> bool:
        return self.name.startswith(_PATTERNS)

    @property
    def is_wildcard(self) -> bool:
        return self.name.startswith("*.")

    def url(self, port: int) -> str:
        """Return the URL that clients use."""
        host = self.name if self.is_pattern else url_host(self.name)
        return f"https://{host}/" if port == HTTPS_PORT else f"https://{host}:{port}/"


def parse_sites(words: Sequence[str], to: str) -> tuple[Site, ...]:
    """Read ``NAME`` and ``NAME=UPSTREAM``; ``to`` is the upstream of the names without one. Raises ``ConfigError``."""
    default = parse_upstream(to, _TO) if to else ""
    sites = tuple(_parse_site(word, default) for word in words)
    names = [site.name for site in sites]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ConfigError(f"{_SITE}: {twice} is given twice; give each name once")
    if to and all("=" in word for word in words):
        raise ConfigError(f"{_TO}: each name has an upstream of its own; leave {_TO} out, or one of those upstreams")
    return sites


def _parse_site(word: str, default: str) -> Site:
    # A pattern may contain equals signs; the URL of an upstream does not.
    name, has_upstream, upstream = word.rpartition("=")
    if not has_upstream:
        name, upstream = word, ""
        if not default:
            raise ConfigError(
                f"{_SITE}: {word} has no upstream; add {_TO} 127.0.0.1:8000 for all names, or write "
                f"{word}=127.0.0.1:8000"
            )
    return Site(_parse_name(name), parse_upstream(upstream, word) if has_upstream else default)


def _parse_name(text: str) -> str:
    # What follows ** or re: is checked with acme_domains.
    if text.startswith(("**.", "re:")):
        return text
    if re.fullmatch(r"[^:\[\]]+:\d+", text):
        raise ConfigError(f"{_SITE}: {text!r} has a port; write the name alone, and the port as --https-port")
    return parse_identifier(text, _SITE)


def parse_upstream(text: str, argument: str) -> str:
    """Return the URL of an upstream: ``127.0.0.1:8000``, ``:8000`` and ``8000`` mean HTTP on this machine.

    ``argument`` is named in the error. Raises ``ConfigError`` for an empty text; the option checks the rest.
    """
    text = text.strip()
    if not text:
        raise ConfigError(f"{argument}: the upstream is missing; write an address such as 127.0.0.1:8000")
    if text.isdecimal():
        text = f":{text}"
    if text.startswith(":"):
        text = f"127.0.0.1{text}"
    return text.removesuffix("/") if _SCHEME.match(text) else f"http://{text.removesuffix('/')}"


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Options by name. ``chosen`` are said on the command line, and override config.yaml; ``defaults`` do not."""

    sites: tuple[Site, ...]
    chosen: dict[str, Any]
    defaults: dict[str, Any]


def serve_settings(arguments: argparse.Namespace, configured: Mapping[str, Any]) -> ServeSettings:
    """Return what the arguments of ``serve`` mean beside what is configured already. Raises ``ConfigError``."""
    sites = parse_sites(arguments.sites, arguments.to)
    challenges = _challenges(arguments)
    in_dns = not TXT_TYPES.isdisjoint(challenges or configured.get("acme_challenges", []))
    has_provider = bool(arguments.dns_provider or configured.get("acme_dns_provider"))
    answers_dns = in_dns and not has_provider and arguments.dns_port is not None
    return ServeSettings(
        sites,
        {
            "mode": _modes(arguments, sites, answers_dns=answers_dns),
            **_names(sites, in_dns=in_dns),
            "acme_upstreams": [_entry(site, changes_host=arguments.change_host_header) for site in sites],
            **_given(arguments, configured, challenges),
        },
        {
            "block_global": False,
            "onboarding": False,
            "acme_admin_listen": STATUS_PAGE,
            **({"acme_challenges": ["tls-alpn-01"]} if arguments.http_port is None else {}),
        },
    )


def _entry(site: Site, *, changes_host: bool) -> str:
    """Write the entry of ``acme_upstreams``, with the host of the URL as the Host header if that is wanted."""
    host = f";host={_SCHEME.sub('', site.upstream)}" if changes_host else ""
    return f"{site.name}={site.upstream}{host}"


def _modes(arguments: argparse.Namespace, sites: Sequence[Site], *, answers_dns: bool) -> list[str]:
    """Return mitmproxy's modes. acme_upstreams has a rule for each name, so that of the mode is never used.

    ``reverse:https`` is the mode that listens on UDP too, for HTTP/3.
    """
    host = re.sub(r"^https?://", "", sites[0].upstream)
    bind = f"{arguments.bind}:" if arguments.bind else ""
    modes = [f"reverse:https://{host}@{bind}{arguments.https_port}"]
    if arguments.http_port is not None:
        modes.append(f"reverse:http://{host}@{bind}{arguments.http_port}")
    if answers_dns:  # CAs ask this proxy for the TXT records
        modes.append(f"dns@{bind}{arguments.dns_port}")
    return modes


def _names(sites: Sequence[Site], *, in_dns: bool) -> dict[str, Any]:
    """Hold names from the start, and obtain those of patterns on demand.

    With a DNS challenge ``*.`` is one wildcard certificate, held from the start.
    """
    held = [site.name for site in sites if not site.is_pattern or (site.is_wildcard and in_dns)]
    return {"acme_certificates": held, "acme_domains": [site.name for site in sites if site.name not in held]}


def _challenges(arguments: argparse.Namespace) -> list[str]:
    """A DNS provider is there for a DNS challenge, whether that is said or not."""
    given: list[str] = arguments.challenge
    return given or ([_DNS] if arguments.dns_provider else [])


def _given(arguments: argparse.Namespace, configured: Mapping[str, Any], challenges: Sequence[str]) -> dict[str, Any]:
    """Return the options of the flags that were given."""
    cas: list[str] = arguments.ca
    if arguments.staging:
        cas = [_staging(entry) for entry in cas or configured.get("acme_ca") or ["letsencrypt"]]
    given = {
        "acme_ca": cas,
        "acme_email": arguments.email,
        "acme_tos_accepted": arguments.agree_tos,
        "acme_challenges": list(challenges),
        "acme_dns_provider": arguments.dns_provider,
        "acme_storage": arguments.storage,
        "acme_admin_listen": arguments.status,
    }
    found = {name: value for name, value in given.items() if value}
    return found | ({"acme_admin_listen": ""} if arguments.status == "off" else {})


def _staging(entry: str) -> str:
    """Return the entry of ``acme_ca`` for the staging directory of a CA."""
    ca, *settings = entry.split(";")
    staging = ca if ca.endswith("-staging") else f"{ca}-staging"
    if staging not in ALIASES:
        having = " and ".join(alias for alias in ALIASES if f"{alias}-staging" in ALIASES)
        raise ConfigError(f"--staging: no staging directory of {ca} is known; it is known for {having}")
    return ";".join([staging, *settings])


def specs(settings: Mapping[str, Any]) -> list[str]:
    """Write options as ``--set`` does; an option without a value is emptied."""
    words = []
    for name, value in settings.items():
        texts = [_text(entry) for entry in value] if isinstance(value, list) else [_text(value)]
        words += [f"{name}={text}" for text in texts] or [name]
    return words


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
