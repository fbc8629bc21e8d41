"""What a DNS query is answered (RFC 1034 section 4.3.2, RFC 2308), given the TXT records that are published.

This module knows the decisions; it must not know DNS messages, mitmproxy or storage. All of it is pure.

There are two kinds of zones: ``acme_dns_zone``, and each delegated ``_acme-challenge.NAME`` of a name that may have a
certificate. Everything else is refused: this is not a resolver.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from ...config.config import Config
from ...core.challenge_domains import ChallengeDomain, is_digest

TXT_QUERIES = frozenset({"TXT", "ANY"})
_MAX_VALUES = 256  # they fit into a reply over TCP, and no name has more orders under way


class ResponseCode(Enum):
    """Whether the name of the query exists (RFC 1035 section 4.1.1)."""

    NOERROR = 0
    NXDOMAIN = 3


@dataclass(frozen=True)
class TxtRecords:
    """The published values by the names that CAs query (``str(ChallengeDomain)``), and the zone of their aliases."""

    by_name: Mapping[str, tuple[str, ...]]
    zone: str = ""

    def prepared(self) -> "TxtRecords":
        """Compute everything that grows with the number of records, so that no query has to, and return ``self``."""
        self._ancestors  # noqa: B018  # computes both
        return self

    def values(self, name: str) -> tuple[str, ...]:
        """Return the values of a name, or of the name whose alias it is."""
        return (self.by_name.get(name) or self._by_alias.get(name) or ())[:_MAX_VALUES]

    def has_descendants(self, name: str) -> bool:
        """Say whether a record exists below a name."""
        return name in self._ancestors

    @cached_property
    def _by_alias(self) -> Mapping[str, tuple[str, ...]]:
        if not self.zone:
            return {}
        return {
            domain.alias(self.zone): self.by_name[name]
            for name in self.by_name
            if (domain := ChallengeDomain.parse(name))
        }

    @cached_property
    def _ancestors(self) -> frozenset[str]:
        return frozenset(_with_ancestors(name.partition(".")[2] for name in (*self.by_name, *self._by_alias)))


NO_TXT_RECORDS = TxtRecords({})


@dataclass(frozen=True, slots=True)
class OwnerName:
    """A name in one of our zones, and the apex of that zone.

    ``exists`` is False if it exists only while TXT records are published at it or below it. ``may_have_txt`` is False
    if none can be published at it.
    """

    name: str
    apex: str
    exists: bool = True
    may_have_txt: bool = True

    def needs_records(self, type: str) -> bool:
        """Say whether the answer to a query for ``type`` depends on the published records."""
        return self.may_have_txt and (type in TXT_QUERIES or not self.exists)


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer: the TXT values, name servers or SOA of the name; if it has none, the SOA of ``apex``."""

    code: ResponseCode
    apex: str = ""
    values: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    soa: bool = False

    @property
    def is_negative(self) -> bool:
        return not (self.values or self.nameservers or self.soa)


@dataclass(frozen=True, slots=True)
class Zones:
    """The zones of one configuration; the published records are arguments."""

    config: Config
    _ancestors: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        config = self.config
        names = [name.removeprefix("*.") for subject in config.managed for name in subject.names]
        object.__setattr__(self, "_ancestors", frozenset(_with_ancestors([*names, *config.policy.bases])))

    def locate(self, name: str) -> OwnerName | None:
        """Return a name (lower case, no trailing dot) as one of our zones; None if it is in none."""
        zone = self.config.dns_zone
        if zone and name == zone:
            return OwnerName(name, zone, may_have_txt=False)
        if zone and name.endswith(f".{zone}"):
            return self._in_zone(name, name.removesuffix(f".{zone}"))
        return self._delegated(name)

    def _in_zone(self, name: str, part: str) -> OwnerName:
        """Any node of the cluster publishes here; this one knows only which names it may order itself."""
        zone, domain = self.config.dns_zone, ChallengeDomain.parse_alias(part) or ChallengeDomain.parse(name)
        if domain is None:
            return OwnerName(name, zone, exists=False, may_have_txt=is_digest(part))
        # A name above an alias has no records, and still exists: below a name that does not, none does (RFC 8020).
        is_above = not domain.account and (self.config.policy.is_open or domain.host in self._ancestors)
        return OwnerName(name, zone, exists=is_above or self.config.may_be_validated(domain.host))

    def _delegated(self, name: str) -> OwnerName | None:
        """Each such name may be delegated by itself, so each is the apex of its own zone."""
        domain = ChallengeDomain.parse(name)
        if domain is not None:
            return OwnerName(name, name) if self.config.may_be_validated(domain.host) else None
        parent = ChallengeDomain.parse_above(name)
        if parent is None or not self.config.may_be_validated(parent.host):
            return None
        return OwnerName(name, str(parent), exists=False, may_have_txt=False)

    def reply(self, owner: OwnerName, type: str, records: TxtRecords) -> Reply:
        """Return the answer to a query for ``type`` (``TXT``, ``SOA``, …, ``ANY``), with the records of now."""
        values = records.values(owner.name) if owner.may_have_txt else ()
        if not (owner.exists or values or records.has_descendants(owner.name)):
            return Reply(ResponseCode.NXDOMAIN, owner.apex)
        is_apex = owner.name == owner.apex
        return Reply(
            ResponseCode.NOERROR,
            owner.apex,
            values=values if type in TXT_QUERIES else (),
            nameservers=self.config.dns_nameservers if is_apex and type in ("NS", "ANY") else (),
            soa=is_apex and type in ("SOA", "ANY"),
        )


def _with_ancestors(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        while name:
            yield name
            name = name.partition(".")[2]
