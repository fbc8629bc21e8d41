"""``acme_upstreams``: where the requests for a host go.

This module knows the option and which of its entries is for a host; it must not know requests or connections.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self
from urllib.parse import SplitResult, urlsplit

from ..core.authority import parse_authority
from ..core.errors import ConfigError
from ..core.host_policy import HostPattern, Kind
from ..core.host_port import parse_port
from ..core.names import ServerName, parse_address, to_a_labels, url_host
from ..core.patterns import Pattern
from .admin_settings import AdminAddress, AdminListen, is_reached_at

_OPTION = "acme_upstreams"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_RIGHT = "a.example.com=http://127.0.0.1:8000"
# Underscores too: containers have such names, and an upstream needs no certificate of a CA.
_HOST = re.compile(r"(?=.{1,253}\Z)(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\Z")


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server behind the proxy. ``host`` is a name, or an address without brackets.

    ``host_header`` replaces the client's ``Host``; empty to keep that.
    """

    tls: bool
    host: str
    port: int
    host_header: str = ""

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{url_host(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class UpstreamRule:
    """One entry: requests for ``hosts`` go to ``upstream``."""

    hosts: HostPattern
    upstream: Upstream

    @classmethod
    def parse(cls, entry: str) -> Self:
        """Read ``HOST=URL`` or ``HOST=URL;host=NAME``.

        Raises ``ConfigError``, which repeats nothing of a URL that may hold a password.
        """
        head, separator, rest = entry.partition("://")
        host, equals, scheme = (head if separator else entry).rpartition("=")  # an expression may contain a =
        host = host.strip()
        if not equals or not host:
            raise ConfigError(f"{_OPTION}: an entry is not HOST=URL; write one such as {_RIGHT}")
        if not separator:
            raise ConfigError(f"{_OPTION}: {host} has no URL behind the =; write one such as {_RIGHT}")
        url, has_setting, setting = rest.partition(";")
        upstream = _parse_url(host, scheme.strip().lower(), url.strip())
        header = _parse_host_header(host, setting) if has_setting else ""
        return cls(_parse_hosts(host), replace(upstream, host_header=header))


@dataclass(frozen=True, slots=True)
class UpstreamRules:
    """All entries. The most specific one decides about a host.

    That is its own name, then ``*.``, then the longest ``**.``, then the first expression that matches.
    """

    rules: tuple[UpstreamRule, ...] = ()
    _exact: Mapping[str, Upstream] = field(default_factory=dict, repr=False)
    _one_label: Mapping[str, Upstream] = field(default_factory=dict, repr=False)
    _any_depth: Mapping[str, Upstream] = field(default_factory=dict, repr=False)
    _regexps: tuple[tuple[Pattern, Upstream], ...] = field(default=(), repr=False)
    _addresses: frozenset[tuple[tuple[str, int], bool]] = field(default=frozenset(), repr=False)

    @classmethod
    def parse(cls, entries: Sequence[str]) -> Self:
        """Read the option. Raises ``ConfigError`` for a wrong entry, or for two with the same hosts."""
        rules = tuple(UpstreamRule.parse(entry) for entry in entries)
        known = set[HostPattern]()
        for rule in rules:
            if rule.hosts in known:
                raise ConfigError(f"{_OPTION}: {rule.hosts} is listed twice; keep one upstream for it")
            known.add(rule.hosts)
        return cls(
            rules,
            _by_name(rules, Kind.EXACT),
            _by_name(rules, Kind.ONE_LABEL),
            _by_name(rules, Kind.ANY_DEPTH),
            tuple((rule.hosts.regexp, rule.upstream) for rule in rules if rule.hosts.regexp is not None),
            frozenset((rule.upstream.address, rule.upstream.tls) for rule in rules),
        )

    def find(self, host: ServerName) -> Upstream | None:
        """Return the upstream of a host; None if no entry is for it."""
        if (upstream := self._exact.get(host)) is not None:
            return upstream
        parent = host.partition(".")[2]
        if (upstream := self._one_label.get(parent)) is not None:
            return upstream
        while parent and self._any_depth:
            if (upstream := self._any_depth.get(parent)) is not None:
                return upstream
            parent = parent.partition(".")[2]
        return next((upstream for regexp, upstream in self._regexps if regexp.matches(host)), None)

    def find_exact(self, authority: str) -> Upstream | None:
        """Do the same for an authority that is written exactly as a listed name; None says nothing about others."""
        return self._exact.get(authority)

    def has_upstream(self, address: tuple[str, int], *, tls: bool) -> bool:
        """Say whether an entry has an upstream with this host and port, over TLS or not."""
        return (address, tls) in self._addresses

    @property
    def upstreams(self) -> tuple[Upstream, ...]:
        """Each upstream once, in the order of the entries."""
        return tuple(dict.fromkeys(replace(rule.upstream, host_header="") for rule in self.rules))

    def __bool__(self) -> bool:
        return bool(self.rules)


def require_token_behind(rules: UpstreamRules, admin: AdminListen | None, token: str) -> None:
    """Raise ``ConfigError`` if an entry leads strangers to the admin API, and it needs no token."""
    if not isinstance(admin, AdminAddress) or token:
        return
    for rule in rules.rules:
        if is_reached_at(*rule.upstream.address, admin):
            raise ConfigError(
                f"acme_admin_token: {_OPTION} leads clients of {rule.hosts} to acme_admin_listen={admin}, so a token "
                "is needed; make one with openssl rand -hex 32, or give the entry another URL"
            )


def _by_name(rules: Sequence[UpstreamRule], kind: Kind) -> dict[str, Upstream]:
    return {rule.hosts.name: rule.upstream for rule in rules if rule.hosts.kind is kind}


def _parse_hosts(text: str) -> HostPattern:
    """Read a pattern as in ``acme_domains``, or an address."""
    address = parse_address(text)
    return HostPattern(Kind.EXACT, address) if address is not None else HostPattern.parse(text, _OPTION)


def _parse_host_header(host: str, setting: str) -> str:
    """Read ``host=NAME``, with a port if it needs one."""
    name, _, value = setting.strip().partition("=")
    if name != "host" or parse_authority(value) is None:
        raise ConfigError(
            f"{_OPTION}: what is behind the URL of {host} is not the Host header to send; write ;host=app.example.com"
        )
    return value


def _parse_url(host: str, scheme: str, rest: str) -> Upstream:
    if scheme not in _DEFAULT_PORTS:
        raise ConfigError(f"{_OPTION}: the URL of {host} begins with {scheme!r}; write http:// or https://")
    try:
        url = urlsplit(f"{scheme}://{rest}")
        _require_only_host_and_port(host, url)
        port_text = url.netloc.rpartition("]")[2].partition(":")[2]
        port = parse_port(port_text) if port_text else _DEFAULT_PORTS[scheme]
        return Upstream(scheme == "https", _parse_upstream_host(url.hostname or ""), port)
    except ValueError:
        raise ConfigError(
            f"{_OPTION}: the URL of {host} has no valid host and port; write one such as "
            "http://127.0.0.1:8000, http://[::1]:8000 or https://app.internal"
        ) from None


def _require_only_host_and_port(host: str, url: SplitResult) -> None:
    if "@" in url.netloc:
        raise ConfigError(
            f"{_OPTION}: the URL of {host} has a user name or password, which no upstream would get; leave it out"
        )
    if url.path not in ("", "/") or url.query or url.fragment:
        raise ConfigError(
            f"{_OPTION}: the URL of {host} has a path, and an upstream gets the paths that clients ask for; leave it "
            "out, and use map_remote to change paths"
        )


def _parse_upstream_host(text: str) -> str:
    """Return a host in lower case with A-labels, or an address in its canonical text. Raises ``ValueError``."""
    if ":" in text or text.replace(".", "").isdigit():
        address = ipaddress.ip_address(text)
        if getattr(address, "scope_id", None) is not None:
            raise ValueError(text)
        return str(address)
    host = text.lower() if text.isascii() else to_a_labels(text)
    if not _HOST.match(host):
        raise ValueError(text)
    return host
