"""Preflight: find what would keep certificates from coming before a client does.

Each module checks one thing, and changes nothing except a probe in the storage, which it deletes again. This one knows
their order; every check yields its findings as it makes them.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..ca import key_generation, known_cas
from ..config import options
from ..config.admin_settings import AdminSocket
from ..config.config import Config
from ..config.misspelt_options import find_misspelt
from ..core.dns_server import DnsServer
from ..core.errors import ConfigError
from ..core.names import ServerName
from . import (
    ca_check,
    dns_record_check,
    listen_check,
    name_check,
    nameservers,
    option_conflicts,
    storage_check,
    upstream_check,
)
from .finding import Finding, fail, warn
from .resolver import Resolver


@dataclass(frozen=True, slots=True)
class CheckTargets:
    """Where to check: ``dns`` is a DNS server, None for the system's; the ports are those that the internet reaches.

    ``names``, if any, are checked instead of those that the options list. ``tries_ports=False`` connects to no port,
    before the proxy has started.
    """

    dns: DnsServer | None = None
    http_port: int = 80
    https_port: int = 443
    dns_port: int = 53
    names: tuple[ServerName, ...] = ()
    tries_ports: bool = True


def inspect(settings: Mapping[str, Any], confdir: Path, targets: CheckTargets = CheckTargets()) -> Generator[Finding]:
    """Yield findings as they are made; blocks for seconds if a CA, or a name's address, is slow."""
    yield from map(warn, find_misspelt(settings))
    ours = {name: value for name, value in settings.items() if name in options.NAMES}
    try:
        config = Config.from_options(ours)
        if config.account_key:
            key_generation.load_account_key(config.account_key)
        resolved = known_cas.resolve_all(config.issuers)
        if config.orders:
            known_cas.require_issuable(config, resolved)
    except ConfigError as error:
        yield fail(str(error))
        return
    yield from option_conflicts.inspect(config, settings)
    if isinstance(config.admin, AdminSocket):
        yield from listen_check.inspect_socket(config.admin)
    yield from upstream_check.inspect(config, settings)
    with closing(storage_check.Stored(config, confdir)) as found:
        yield from _outside(config, found, targets)


def _outside(config: Config, found: storage_check.Stored, targets: CheckTargets) -> Iterator[Finding]:
    """Check the storage, then what is outside this machine, which depends on the stored accounts."""
    yield from found.inspect()
    cas = [ca_check.Ca(config, entry) for entry in config.issuers] if config.orders else []
    for one in cas:
        yield from one.inspect()
    yield from ca_check.outages(cas)
    resolver = Resolver(targets.dns)
    ports = (targets.http_port, targets.https_port) if targets.tries_ports else None
    yield from name_check.inspect(config, resolver, found, cas, ports, targets.names)
    if targets.tries_ports:
        yield from nameservers.inspect(config, resolver, targets.dns_port, up=found.proxies > 0)
    first = cas[0] if cas else None
    account = found.accounts.get(first.directory, "") if first else ""
    yield from dns_record_check.inspect(config, targets.dns, account, first.identities if first else ())
