"""A DNS provider that creates and deletes TXT records for us, through dns-lexicon; all of it blocks.

This module knows lexicon's public API; it must not know what is proved, or wait until its records are visible. The
provider's credentials are in the environment, as lexicon defines them: ``LEXICON_CLOUDFLARE_AUTH_TOKEN``, ….
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dns.resolver

from ..core.errors import ConfigError, IssuanceError

_TTL = 60  # LEXICON_TTL overrides it: some providers want more


class DnsProvider:
    """One of lexicon's providers. Safe from any thread; one change at a time, because many APIs write whole sets."""

    def __init__(self, name: str, resolver: dns.resolver.Resolver | None) -> None:
        """``resolver`` finds the zone of a name, None for the system's resolver. Raises ``ConfigError``."""
        try:
            import lexicon.client
            import lexicon.config
        except ImportError:
            raise ConfigError(
                f"acme_dns_provider: {name} needs dns-lexicon, which is not installed; "
                'run pip install "mitmproxy-acme[dns]"'
            ) from None
        self._lexicon: Any = lexicon
        self._name = name
        self._resolver = resolver
        self._lock = threading.Lock()

    def create(self, record: str, value: str) -> None:
        """Add a value to those of a name; a value that exists already is no error. Raises ``IssuanceError``."""
        with self._changing("create", record) as operations:
            operations.create_record("TXT", record, value)

    def delete(self, record: str, value: str) -> None:
        """Delete that value of a name, and keep the others. Raises ``IssuanceError``."""
        with self._changing("delete", record) as operations:
            operations.delete_record(rtype="TXT", name=record, content=value)

    @contextmanager
    def _changing(self, what: str, record: str) -> Iterator[Any]:
        with self._lock:
            try:
                with self._client(record) as operations:
                    yield operations
            except Exception as error:  # providers may raise anything
                # Never its text, which may quote a URL with credentials.
                status = getattr(getattr(error, "response", None), "status_code", None)
                reason = f"HTTP {status}" if status else type(error).__name__
                raise IssuanceError(f"{self._name} failed to {what} the TXT record {record}: {reason}") from None

    def _client(self, record: str) -> Any:
        if self._resolver is not None:  # lexicon asks dnspython's default resolver for the zone
            dns.resolver.default_resolver = self._resolver
        settings = {"provider_name": self._name, "domain": record, "resolve_zone_name": "yes", "ttl": _TTL}
        config = self._lexicon.config.ConfigResolver().with_env().with_dict(settings)
        return self._lexicon.client.Client(config)
