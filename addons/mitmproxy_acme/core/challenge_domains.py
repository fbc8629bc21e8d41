"""Names in DNS: where a CA looks for proofs, and which names of one zone they may stand under instead.

This module knows names; it must not know DNS messages, or what is proved. All of it is pure.

The CA asks for ``_acme-challenge.NAME``. The operator makes that name lead here in one of two ways: it is delegated
itself (NS), or it is an alias (CNAME) of ``NAME.ZONE``, in the zone of ``acme_dns_zone``, which is delegated once:

    _acme-challenge.www.example.com          CNAME  www.example.com.acme.example.com
    _ujmmo…._acme-challenge.www.example.com  CNAME  _ujmmo….www.example.com.acme.example.com    (dns-account-01)

A name that would be too long so has 32 hexadecimal digits of its SHA-256 for an alias, which no DNS name is.
"""

import hashlib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import ConfigError
from .host_port import parse_host_port
from .names import ServerName, parse_host, parse_server_name
from .proof import TXT_TYPES

_LABEL = "_acme-challenge"
_ACCOUNT = re.compile(r"_[a-z2-7]{16}")  # draft-ietf-acme-dns-account-label: base32 of ten bytes
_DIGEST = re.compile(r"[0-9a-f]{32}")
_LONGEST_NAME = 253
_LONGEST_ZONE = _LONGEST_NAME - len(".") - 32


@dataclass(frozen=True, slots=True)
class ChallengeDomain:
    """Where a CA looks: at a host's name in DNS, under the label of an account if it has one (dns-account-01)."""

    host: ServerName
    account: str = ""

    def __str__(self) -> str:
        return f"{self.account}.{_LABEL}.{self.host}" if self.account else f"{_LABEL}.{self.host}"

    @classmethod
    def of(cls, name: str, account: str = "") -> "ChallengeDomain":
        """Return the place for a name of a certificate, which may be a wildcard (RFC 8555 section 8.4)."""
        return cls(ServerName(name.removeprefix("*.")), account)

    @classmethod
    def parse(cls, name: str) -> "ChallengeDomain | None":
        """Read the name that a CA asks for, in lower case; None where it is another's."""
        above, mark, host = f".{name}".rpartition(f".{_LABEL}.")
        return cls._checked(host, above.removeprefix(".")) if mark else None

    @classmethod
    def parse_above(cls, name: str) -> "ChallengeDomain | None":
        """Return the nearest place that a name, in lower case and no place itself, is below; None where it is below
        none."""
        above, mark, host = f".{name}".rpartition(f".{_LABEL}.")
        account = above.rpartition(".")[2]
        return cls._checked(host, account if _ACCOUNT.fullmatch(account) else "") if mark else None

    @classmethod
    def parse_alias(cls, part: str) -> "ChallengeDomain | None":
        """Read what stands before the zone in an alias, in lower case; None where it is none that can be read."""
        account, _, host = part.partition(".") if part.startswith("_") else ("", "", part)
        return cls._checked(host, account)

    @classmethod
    def _checked(cls, host: str, account: str) -> "ChallengeDomain | None":
        if parse_server_name(host) != host or (account and not _ACCOUNT.fullmatch(account)):
            return None
        return cls(ServerName(host), account)

    def alias(self, zone: str) -> str:
        """Return the name in ``zone`` that this one may be an alias of."""
        readable = f"{self.account}.{self.host}.{zone}" if self.account else f"{self.host}.{zone}"
        if len(readable) <= _LONGEST_NAME:
            return readable
        return f"{hashlib.sha256(str(self).encode()).hexdigest()[:32]}.{zone}"


def is_digest(part: str) -> bool:
    """Say whether what stands before the zone may be the alias of a name that is too long."""
    return _DIGEST.fullmatch(part) is not None


def parse_zone(text: str) -> str:
    """Read ``acme_dns_zone``. Raises ``ConfigError``."""
    if not text:
        return ""
    zone = parse_host(text, "acme_dns_zone")
    if len(zone) > _LONGEST_ZONE:
        raise ConfigError(
            f"acme_dns_zone: {zone} has {len(zone)} characters, so no name fits in front; "
            f"delegate one of at most {_LONGEST_ZONE}"
        )
    return zone


def parse_resolver(text: str) -> str:
    """Read one of ``acme_dns_resolvers``: an address, and a port if it is another than 53. Raises ``ConfigError``."""
    try:
        ipaddress.ip_address(parse_host_port(text.strip(), default_port=53).host)
    except ValueError:
        raise ConfigError(
            f"acme_dns_resolvers: {text!r} is not the address of a resolver; write one such as 192.0.2.1, or "
            "192.0.2.1:5353"
        ) from None
    return text.strip()


def require_challenge_in_dns(challenges: Sequence[str], *, zone: str, provider: str) -> None:
    """Raise ``ConfigError`` where it is said who answers in DNS, and nothing is asked there; or where two would."""
    if zone and provider:
        raise ConfigError(
            "acme_dns_zone and acme_dns_provider: either this proxy is the nameserver of the challenges, or the "
            "provider is; set one of them"
        )
    for option, value in (("acme_dns_zone", zone), ("acme_dns_provider", provider)):
        if value and TXT_TYPES.isdisjoint(challenges):
            raise ConfigError(
                f"{option}: {value} is for challenges in DNS, and acme_challenges has only "
                f"{', '.join(challenges)}; add dns-01"
            )
