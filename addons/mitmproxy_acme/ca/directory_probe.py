"""A probe of a CA before anything is ordered there: its directory, and whether our clock agrees.

This module knows the directory (RFC 8555 section 7.1.1); it must not create anything at the CA.
"""

from collections.abc import Callable
from dataclasses import dataclass

from acme import messages

from ..config.ca_settings import CaSettings
from ..core.text import one_line
from . import known_cas, problems
from .client import Client
from .key_generation import new_account_key

_MOST_IDENTITIES = 100


@dataclass(frozen=True, slots=True)
class Directory:
    """What a CA says about itself. ``clock_ahead`` is how many seconds our clock is ahead of the CA's, if known."""

    url: str
    terms_of_service: str
    profiles: tuple[str, ...]
    needs_eab: bool
    caa_identities: tuple[str, ...]
    clock_ahead: float | None


def fetch(entry: CaSettings, now: Callable[[], float]) -> Directory:
    """Fetch the directory; blocks. Raises ``IssuerUnavailable`` and ``ConfigError``."""
    url = known_cas.resolve(entry).directory
    client = Client.connect(entry.ca, url, new_account_key(), entry.ca_bundle)
    with problems.translated(entry.ca):
        meta: messages.Directory.Meta = client.directory.meta
        return Directory(
            url=url,
            terms_of_service=one_line(str(meta.terms_of_service or "")),
            profiles=client.profiles,
            needs_eab=bool(meta.external_account_required),
            caa_identities=tuple(one_line(str(name)) for name in tuple(meta.caa_identities or ())[:_MOST_IDENTITIES]),
            clock_ahead=client.net.clock.ahead(now()),
        )
