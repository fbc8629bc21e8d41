"""Issuers: the CAs of ``acme_ca``, each as the options describe it.

This module knows options and known CAs; it must not know an order.
"""

from ..config.ca_settings import CaSettings
from ..config.config import Config
from ..core.proof import ACCOUNT_TYPES
from ..core.thread_pools import ThreadPools
from . import known_cas
from .issuer import ORDER_TIMEOUT, Issuer, IssuerStore


def issuers_of(
    config: Config, store: IssuerStore, threads: ThreadPools, *, timeout: float = ORDER_TIMEOUT
) -> tuple[Issuer, ...]:
    """Return the CAs of ``acme_ca``, the preferred one first; no other CA backs up the last one.

    ``timeout`` is how many seconds an order may take.

    Raises ``ConfigError`` for a CA or an account key that cannot be used, for a CA that is listed twice, and for a
    managed certificate that none of them issues. Does no I/O.
    """
    found = known_cas.resolve_all(config.issuers)
    if config.orders:
        known_cas.require_issuable(config, found)
    return tuple(
        Issuer(
            config,
            entry,
            ca_info,
            store,
            threads,
            backed=entry is not config.issuers[-1],
            staging=_staging_of(config, entry, store, threads),
            timeout=timeout,
        )
        for entry, ca_info in zip(config.issuers, found, strict=True)
    )


def _staging_of(config: Config, entry: CaSettings, store: IssuerStore, threads: ThreadPools) -> Issuer | None:
    """Return where orders to a CA are rehearsed; None if a proof would be valid for our account at that CA only."""
    found = known_cas.staging_of(entry)
    if found is None or not ACCOUNT_TYPES.isdisjoint(config.challenges):
        return None
    return Issuer(config, *found, store, threads, backed=True)
