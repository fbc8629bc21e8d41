"""The DNS names at which a CA looks for challenges, and the aliases that may lead there.

This module knows names; it must not know DNS messages, or what a challenge proves. All of it is pure.

The CA asks for ``_acme-challenge.NAME``. The operator makes that name lead here in one of two ways: either the name
itself is delegated (NS), or it is an alias (CNAME) of ``NAME.ZONE``, in the zone of ``acme_dns_zone``, which is
delegated once:

    _acme-challenge.www.example.com          CNAME  www.example.com.acme.example.com
    _ujmmo…._acme-challenge.www.example.com  CNAME  _ujmmo….www.example.com.acme.example.com    (dns-account-01)

If that alias would be too long, the first 32 hexadecimal digits of the name's SHA-256 take its place. No host name that
certificates are issued for looks like that.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import ConfigError
from .names import ServerName, parse_host, parse_server_name
from .proof import TXT_TYPES

_LABEL = "_acme-challenge"
_ACCOUNT = re.compile(r"_[a-z2-7]{16}")  # draft-ietf-acme-dns-account-label: base32 of ten bytes
_DIGEST = re.compile(r"[0-9a-f]{32}")
_LONGEST_NAME = 253
_LONGEST_ZONE = _LONGEST_NAME - len(".") - 32


@dataclass(frozen=True, slots=True)
class ChallengeDomain:
    """The DNS name of a host's challenge; ``account`` is the account's label (dns-account-01) or empty."""

    host: ServerName
    account: str = ""

    def __str__(self) -> str:
        return f"{self.account}.{_LABEL}.{self.host}" if self.account else f"{_LABEL}.{self.host}"

    @classmethod
    def for_name(cls, name: str, account: str = "") -> "ChallengeDomain":
        """Return the domain for a name of a certificate, which may be a wildcard (RFC 8555 section 8.4)."""
        return cls(ServerName(name.removeprefix("*.")), account)

    @classmethod
    def parse(cls, name: str) -> "ChallengeDomain | None":
        """Read the name that a CA asks for, in lower case; None if it is no challenge domain."""
        above, mark, host = f".{name}".rpartition(f".{_LABEL}.")
        if not mark or above == ".":  # no such label, or an empty one before it
            return None
        return cls._checked(host, above.removeprefix("."))

    @classmethod
    def parse_above(cls, name: str) -> "ChallengeDomain | None":
        """Return the nearest challenge domain above ``name`` (lower case, not one itself); None if there is none."""
        above, mark, host = f".{name}".rpartition(f".{_LABEL}.")
        account = above.rpartition(".")[2]
        return cls._checked(host, account if _ACCOUNT.fullmatch(account) else "") if mark else None

    @classmethod
    def parse_alias(cls, part: str) -> "ChallengeDomain | None":
        """Read the labels of an alias before the zone, in lower case; None if they are no alias."""
        account, _, host = part.partition(".") if part.startswith("_") else ("", "", part)
        return cls._checked(host, account)

    @classmethod
    def _checked(cls, host: str, account: str) -> "ChallengeDomain | None":
        if parse_server_name(host) != host or (account and not _ACCOUNT.fullmatch(account)):
            return None
        return cls(ServerName(host), account)

    def alias(self, zone: str) -> str:
        """Return the name in ``zone`` that can be the target of a CNAME record at this domain."""
        readable = f"{self.account}.{self.host}.{zone}" if self.account else f"{self.host}.{zone}"
        if len(readable) <= _LONGEST_NAME:
            return readable
        return f"{hashlib.sha256(str(self).encode()).hexdigest()[:32]}.{zone}"


def is_digest(part: str) -> bool:
    """Say whether the labels before the zone can be the alias of a name that is too long."""
    return _DIGEST.fullmatch(part) is not None


def parse_zone(text: str) -> str:
    """Read ``acme_dns_zone``. Raises ``ConfigError``."""
    if not text:
        return ""
    zone = parse_host(text, "acme_dns_zone")
    if len(zone) > _LONGEST_ZONE:
        raise ConfigError(
            f"acme_dns_zone: {zone} has {len(zone)} characters, which leaves no room for names below it; "
            f"delegate a zone of at most {_LONGEST_ZONE} characters"
        )
    return zone


def require_challenge_in_dns(challenges: Sequence[str], *, zone: str, provider: str) -> None:
    """Raise ``ConfigError`` if a DNS option is set without a challenge in DNS, or if both DNS options are set."""
    if zone and provider:
        raise ConfigError(
            "acme_dns_zone and acme_dns_provider: set only one of them; either this proxy is the nameserver of the "
            "challenges, or the provider is"
        )
    for option, value in (("acme_dns_zone", zone), ("acme_dns_provider", provider)):
        if value and TXT_TYPES.isdisjoint(challenges):
            raise ConfigError(
                f"{option}: {value} has no effect without a challenge in DNS, and acme_challenges has only "
                f"{', '.join(challenges)}; add dns-01 to it"
            )
