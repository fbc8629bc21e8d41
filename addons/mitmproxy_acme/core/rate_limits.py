"""A CA's rate limits as token buckets, and what each of them counts.

This module knows the arithmetic and the names; it must not know which CA has which limits (``ca.known_cas``), storage
or a clock: ``now`` is always an argument.
"""

import dataclasses
import hashlib
import ipaddress
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Self

from publicsuffixlist import PublicSuffixList

from .errors import ConfigError
from .names import ServerName
from .renewal import parse_duration

# Times are floats: anything due within this many seconds counts as due, or a token would be missing at the announced
# moment. A bucket that fills much faster than that cannot be counted.
_GRAIN = 0.001
# Seconds by which the clocks of nodes may differ.
_CLOCKS_DIFFER = 60.0
_FASTEST = 10  # tokens a second; the fastest order limit that a CA publishes is one in 36 seconds


class LimitKind(StrEnum):
    """What is limited, by the name of its setting in ``acme_ca``."""

    ORDERS = "orders"  # new orders of an account
    CERTIFICATES_PER_DOMAIN = "certificates_per_domain"  # certificates under a registered domain
    DUPLICATES = "duplicates"  # certificates for exactly the same identifiers
    FAILED_VALIDATIONS = "failed_validations"  # failed authorizations of an identifier


@dataclass(frozen=True, slots=True)
class Limit:
    """A token bucket: ``capacity`` tokens at once, and as many again in each ``period`` (seconds), one by one.

    A bucket is one number, the time when it is full again (Unix seconds; a past time means full): the "theoretical
    arrival time" of the generic cell rate algorithm (ITU-T I.371). Let's Encrypt counts in the same way.
    """

    capacity: int
    period: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``300/3h``: a number and a duration. Raises ``ValueError``."""
        match = re.fullmatch(r"([1-9][0-9]{0,8})/(.+)", text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not a limit; write a number and a duration, such as 300/3h")
        limit = cls(int(match[1]), parse_duration(match[2]))
        if limit.interval * _FASTEST < 1:
            raise ValueError(f"{text!r} is more than {_FASTEST} a second, which is too fast to count; write less")
        return limit

    @property
    def interval(self) -> float:
        """The seconds between two new tokens."""
        return self.period / self.capacity

    def debt(self, full_at: float, now: float) -> float:
        """Return the seconds until the bucket is full, at most the period.

        A bucket that is full later than that was written by a clock that was ahead, or for a longer period. It counts
        as full: as an empty one it would forbid everything until that clock's time has come.
        """
        debt = max(full_at - now, 0.0)
        return min(debt, self.period) if debt <= self.period + _CLOCKS_DIFFER else 0.0

    def remaining(self, full_at: float, now: float) -> int:
        """Return the number of whole tokens."""
        return math.floor(self.capacity - max(self.debt(full_at, now) - _GRAIN, 0.0) / self.interval)

    def next_at(self, full_at: float, now: float, reserve: int = 0) -> float:
        """Return the time when a whole token beyond ``reserve`` is there: ``now``, or later."""
        return now + max(self.debt(full_at, now) - (self.period - (reserve + 1) * self.interval), 0.0)

    @property
    def reserve(self) -> int:
        """The tokens that visitors' names cannot take, a fifth: strangers can invent names and use up the rest."""
        return self.capacity // 5

    def spend(self, full_at: float, now: float) -> float:
        """Return when the bucket is full again after one more token is taken. An empty one stays empty."""
        return now + min(self.debt(full_at, now) + self.interval, self.period)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one CA; None for a limit that it does not have or that is unknown."""

    orders: Limit | None = None
    certificates_per_domain: Limit | None = None
    duplicates: Limit | None = None
    failed_validations: Limit | None = None

    def of(self, kind: LimitKind) -> Limit | None:
        limit: Limit | None = getattr(self, kind)
        return limit

    def overridden(self, settings: Mapping[LimitKind, Limit | None]) -> "Limits":
        """Return these limits with the operator's ``settings`` in their place; None turns a limit off."""
        return dataclasses.replace(self, **{str(kind): limit for kind, limit in settings.items()})


def parse_setting(kind: LimitKind, text: str) -> Limit | None:
    """Read a setting of ``acme_ca``: ``300/3h``, or ``off`` (None). Raises ``ConfigError``."""
    if text.strip() == "off":
        return None
    try:
        return Limit.parse(text)
    except ValueError as error:
        raise ConfigError(f"acme_ca: {kind}: {error}; or {kind}=off for no limit") from None


@dataclass(frozen=True, slots=True)
class LimitScope:
    """What one bucket of a kind counts.

    ``name`` is for people: empty for the account, else the registered domain, the certificate as a ``Subject`` is
    written, or the identifier. ``mark`` is unique within the kind: up to 255 characters that may be part of a storage
    key.
    """

    kind: LimitKind
    name: str
    mark: str


def account_scope() -> LimitScope:
    return LimitScope(LimitKind.ORDERS, "", "account")


def domain_scopes(names: tuple[ServerName, ...]) -> tuple[LimitScope, ...]:
    """Return the registered domains of the names, each once."""
    domains = dict.fromkeys(registered_domain(name) for name in names)
    return tuple(LimitScope(LimitKind.CERTIFICATES_PER_DOMAIN, domain, domain.replace("/", "~")) for domain in domains)


def identifiers_scope(names: tuple[ServerName, ...]) -> LimitScope:
    """Return the scope of a set of names; their order does not matter."""
    others = len(set(names)) - 1
    digest = hashlib.sha256(" ".join(sorted(set(names))).encode()).hexdigest()
    return LimitScope(LimitKind.DUPLICATES, f"{names[0]} (+{others})" if others else names[0], digest[:32])


def identifier_scope(name: ServerName) -> LimitScope:
    """Return the identifier that is validated for the name: for a wildcard the name below it (RFC 8555 7.1.4)."""
    identifier = name.removeprefix("*.")
    return LimitScope(LimitKind.FAILED_VALIDATIONS, identifier, identifier)


def registered_domain(name: ServerName) -> str:
    """Return the domain that the owner of ``name`` registered: one label and a public suffix (https://publicsuffix.org).

    A public suffix, a single label and an IPv4 address are returned as they are; an IPv6 address counts with its /64,
    as at Let's Encrypt. The list comes with the installed library, so a new suffix needs a new version of it.
    """
    host = name.removeprefix("*.")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _public_suffixes().privatesuffix(host) or host
    return str(ipaddress.ip_network(f"{host}/64", strict=False)) if address.version == 6 else host


@cache
def _public_suffixes() -> PublicSuffixList:
    """Read the list on first use: it takes 40 ms and 2 MB, which a node without limits saves."""
    return PublicSuffixList()
