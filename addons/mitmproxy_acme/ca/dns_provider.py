"""A DNS provider that creates and deletes TXT records for us, through dns-lexicon; all of it blocks.

This module knows lexicon's public API; it must not know what is proved, or wait for what it created to be seen. The
provider's credentials are in the environment, as lexicon's users know them: ``LEXICON_CLOUDFLARE_AUTH_TOKEN``, ….
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dns.resolver

from ..core.errors import ConfigError, IssuanceError

_TTL = 60  # LEXICON_TTL goes before it: some providers want more


class DnsProvider:
    """One of lexicon's providers. For any thread; one change at a time, for many of their APIs write whole sets."""

    def __init__(self, name: str, resolver: dns.resolver.Resolver | None) -> None:
        """``resolver`` finds which zone a name is in, the system's where it is None. Raises ``ConfigError``."""
        try:
            import lexicon.client
            import lexicon.config
        except ImportError:
            raise ConfigError(
                f"acme_dns_provider: {name} is reached through dns-lexicon, which is not installed; "
                'run pip install "mitmproxy-acme[dns]"'
            ) from None
        self._lexicon: Any = lexicon
        self._name = name
        self._resolver = resolver
        self._turn = threading.Lock()

    def create(self, record: str, value: str) -> None:
        """Add a value to those of a name; one that is there already is no error. Raises ``IssuanceError``."""
        with self._changing("create", record) as operations:
            operations.create_record("TXT", record, value)

    def delete(self, record: str, value: str) -> None:
        """Take that value away, and leave the others. Raises ``IssuanceError``."""
        with self._changing("delete", record) as operations:
            operations.delete_record(rtype="TXT", name=record, content=value)

    @contextmanager
    def _changing(self, what: str, record: str) -> Iterator[Any]:
        with self._turn:
            try:
                with self._client(record) as operations:
                    yield operations
            except Exception as error:  # each provider raises what it likes
                # Never its text: that may quote an URL with credentials in it.
                status = getattr(getattr(error, "response", None), "status_code", None)
                reason = f"HTTP {status}" if status else type(error).__name__
                raise IssuanceError(f"{self._name} did not {what} the TXT record {record}: {reason}") from None

    def _client(self, record: str) -> Any:
        if self._resolver is not None:  # lexicon asks dnspython's own one for the zone
            dns.resolver.default_resolver = self._resolver
        settings = {"provider_name": self._name, "domain": record, "resolve_zone_name": "yes", "ttl": _TTL}
        config = self._lexicon.config.ConfigResolver().with_env().with_dict(settings)
        return self._lexicon.client.Client(config)
