"""Managed certificates: what ``acme_certificates`` lists.

This module knows the entries, and which challenges can validate them; it must not know any CA.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..core.errors import ConfigError
from ..core.key_types import mark_of
from ..core.names import ServerName, Subject, is_address, is_global, is_ipv6, is_wildcard, parse_identifier
from ..core.proof import DNS_TYPES

_NAMES_PER_CERTIFICATE = 100  # Let's Encrypt's limit; its shorter profiles allow 25 (its documentation, 2026)


def parse_managed(entries: Sequence[str], challenges: Sequence[str], key_types: Sequence[str]) -> tuple[Subject, ...]:
    """Read ``acme_certificates``. Return the certificates to obtain: all with the preferred kind of key first.

    Raises ``ConfigError`` for an entry that is no name, that no challenge can validate, or that is listed twice.
    """
    subjects, seen = [], dict[ServerName, str]()
    for entry in entries:
        names = tuple(dict.fromkeys(parse_identifier(name, "acme_certificates") for name in entry.split(",")))
        first_wildcard = next(filter(is_wildcard, names), None)
        if first_wildcard is not None and DNS_TYPES.isdisjoint(challenges):
            raise ConfigError(
                f"acme_certificates: {first_wildcard} is a wildcard, which CAs validate by DNS only, and "
                f"acme_challenges has only {', '.join(challenges)}; add dns-01, or list the names one by one"
            )
        first_address = next(filter(is_address, names), None)
        if first_address is not None and DNS_TYPES.issuperset(challenges):
            raise ConfigError(
                f"acme_certificates: {first_address} is an address, which DNS challenges cannot validate, and "
                f"acme_challenges has only {', '.join(challenges)}; add http-01 or tls-alpn-01"
            )
        if len(names) > _NAMES_PER_CERTIFICATE:
            raise ConfigError(
                f"acme_certificates: the entry of {names[0]} has {len(names)} names, and CAs accept at most "
                f"{_NAMES_PER_CERTIFICATE}; split it into several entries"
            )
        for name in names:
            if name in seen:
                raise ConfigError(f"acme_certificates: {name} is listed twice; keep it in one entry")
            seen[name] = entry
        subjects.append(Subject(names, managed=True))
    return _of_kinds(subjects, key_types)


def _of_kinds(subjects: Sequence[Subject], key_types: Sequence[str]) -> tuple[Subject, ...]:
    """Return them with the first kind of key, then with the second: most clients use the first."""
    first, *others = key_types
    preferred = [replace(subject, key_type=first) for subject in subjects]
    return (*preferred, *(replace(s, key_type=other, mark=mark_of(other)) for other in others for s in subjects))


def public_addresses(subjects: Iterable[Subject]) -> Mapping[bool, ServerName]:
    """Return the first public address of IPv4 (False), and of IPv6 (True)."""
    found: dict[bool, ServerName] = {}
    for name in (name for subject in subjects for name in subject.names if is_address(name) and is_global(name)):
        found.setdefault(is_ipv6(name), name)
    return found
