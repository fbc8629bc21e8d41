"""Check the DNS records that challenges in DNS need, as answered by the proxy itself.

This module knows findings; ``dns_records`` knows the records.
"""

import time
from collections.abc import Iterator, Sequence

import dns.exception

from ..ca import dns_lookup
from ..config.config import Config
from ..core.dns_server import DnsServer
from . import dns_records
from .finding import Finding, fail, passed, warn

_MOST = 40


def inspect(config: Config, server: DnsServer | None, account: str, identities: Sequence[str]) -> Iterator[Finding]:
    """Look up each record at ``server``, else at ``acme_dns_resolvers``, else at the system's resolvers."""
    records = dns_records.to_publish(config, account_uri=account, issuers=identities)
    if not records:
        return
    try:
        resolver = dns_lookup.resolver_at([server] if server is not None else config.dns_resolvers)
    except dns.exception.DNSException:
        yield warn("this machine has no DNS resolver, so DNS records are not checked; name one with --dns")
        return
    for result in dns_records.check(records[:_MOST], resolver, time.time()):
        yield fail(result.trouble) if result.trouble else passed(f"{result.record}")
    if len(records) > _MOST:
        yield warn(f"{len(records) - _MOST} more DNS records were not checked")
