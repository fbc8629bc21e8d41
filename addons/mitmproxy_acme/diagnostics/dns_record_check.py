"""Records: what has to stand in DNS for challenges that the proxy answers there itself, and whether it does.

This module knows findings; ``operating.dns_records`` knows the records.
"""

import time
from collections.abc import Iterator, Sequence

import dns.exception

from ..ca import dns_lookup
from ..config.config import Config
from . import dns_records
from .finding import Finding, fail, passed, warn
from .resolver import Server

_MOST = 40


def inspect(config: Config, server: Server | None, account: str, identities: Sequence[str]) -> Iterator[Finding]:
    """Look at each record through ``server``, else ``acme_dns_resolvers``, else the machine's resolvers."""
    records = dns_records.to_publish(config, account_uri=account, issuers=identities)
    if not records:
        return
    addresses = (f"{server.address}:{server.port}",) if server is not None else config.dns_resolvers
    try:
        resolver = dns_lookup.resolver_at(addresses)
    except dns.exception.DNSException:
        yield warn("this machine has no resolver, so records in DNS are not looked at; give one by --dns")
        return
    for seen in dns_records.look(records[:_MOST], resolver, time.time()):
        yield fail(seen.trouble) if seen.trouble else passed(f"{seen.record}")
    if len(records) > _MOST:
        yield warn(f"{len(records) - _MOST} more records in DNS were not looked at")
