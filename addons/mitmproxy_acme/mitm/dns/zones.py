"""Zones: what is answered to a question of DNS (RFC 1034 section 4.3.2, RFC 2308), given the records that stand.

This module knows the decisions; it must not know DNS messages, mitmproxy or storage. All of it is pure.

Two kinds of zones lead here: the one of ``acme_dns_zone``, and each ``_acme-challenge.NAME`` that is delegated itself,
of a name that may have a certificate. Everything else is refused: this is no resolver.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from ...config.config import Config
from ...core.challenge_domains import ChallengeDomain, is_digest

TEXT_QUESTIONS = frozenset({"TXT", "ANY"})
_TEXTS = 256  # they fit a reply over TCP, and no name has more orders under way


class Outcome(Enum):
    """RFC 1035 section 4.1.1: what a reply says of the question's name."""

    NOERROR = 0
    NXDOMAIN = 3


@dataclass(frozen=True)
class Texts:
    """The values that stand, by the names that CAs ask for (as ``str(Place)`` spells them); and the zone of aliases."""

    by_place: Mapping[str, tuple[str, ...]]
    zone: str = ""

    def prepared(self) -> "Texts":
        """Return these, with everything computed that grows with their number: a question must not cost that."""
        self._above  # noqa: B018  # computes both
        return self

    def at(self, name: str) -> tuple[str, ...]:
        """Return the values that stand at a place, or at its alias."""
        return (self.by_place.get(name) or self._by_alias.get(name) or ())[:_TEXTS]

    def stand_below(self, name: str) -> bool:
        return name in self._above

    @cached_property
    def _by_alias(self) -> Mapping[str, tuple[str, ...]]:
        if not self.zone:
            return {}
        return {
            place.alias(self.zone): self.by_place[name]
            for name in self.by_place
            if (place := ChallengeDomain.parse(name))
        }

    @cached_property
    def _above(self) -> frozenset[str]:
        return frozenset(_with_ancestors(name.partition(".")[2] for name in (*self.by_place, *self._by_alias)))


NO_TEXTS = Texts({})


@dataclass(frozen=True, slots=True)
class Spot:
    """A name of ours, and the zone it is in.

    ``exists`` is False where nothing is, nor below, unless texts stand there; ``may_hold`` False where none can.
    """

    name: str
    apex: str
    exists: bool = True
    may_hold: bool = True

    def needs_texts(self, type: str) -> bool:
        """Say whether the answer to a question for ``type`` hangs on what stands."""
        return self.may_hold and (type in TEXT_QUESTIONS or not self.exists)


@dataclass(frozen=True, slots=True)
class Reply:
    """What to say: texts of the name, and the names of its servers or its SOA; else, with ``apex``, the SOA of that."""

    outcome: Outcome
    apex: str = ""
    texts: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    soa: bool = False

    @property
    def is_negative(self) -> bool:
        return not (self.texts or self.nameservers or self.soa)


@dataclass(frozen=True, slots=True)
class Zones:
    """The zones of one configuration; the values that stand in them are arguments."""

    config: Config
    _ancestors: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        config = self.config
        names = [name.removeprefix("*.") for subject in config.managed for name in subject.names]
        object.__setattr__(self, "_ancestors", frozenset(_with_ancestors([*names, *config.policy.bases])))

    def locate(self, name: str) -> Spot | None:
        """Return where a name (lower case, no trailing dot) is in our zones; None where it is not."""
        zone = self.config.dns_zone
        if zone and name == zone:
            return Spot(name, zone, may_hold=False)
        if zone and name.endswith(f".{zone}"):
            return self._in_zone(name, name.removesuffix(f".{zone}"))
        return self._delegated(name)

    def _in_zone(self, name: str, part: str) -> Spot:
        """Anything may stand here that any node of the cluster orders; this one knows only what itself may."""
        zone, place = self.config.dns_zone, ChallengeDomain.parse_alias(part) or ChallengeDomain.parse(name)
        if place is None:
            return Spot(name, zone, exists=False, may_hold=is_digest(part))
        # Above an alias: it has nothing, and is there all the same, for what is below what is not there is not (8020).
        above = not place.account and (self.config.policy.is_open or place.host in self._ancestors)
        return Spot(name, zone, exists=above or self.config.may_have(place.host))

    def _delegated(self, name: str) -> Spot | None:
        """Each such name may be delegated for itself, so each is the apex of its own zone."""
        place = ChallengeDomain.parse(name)
        if place is not None:
            return Spot(name, name) if self.config.may_have(place.host) else None
        parent = ChallengeDomain.parse_above(name)
        if parent is None or not self.config.may_have(parent.host):
            return None
        return Spot(name, str(parent), exists=False, may_hold=False)

    def reply(self, spot: Spot, type: str, standing: Texts) -> Reply:
        """Return the answer to a question for ``type`` (``TXT``, ``SOA``, …, ``ANY``), with what stands now."""
        texts = standing.at(spot.name) if spot.may_hold else ()
        if not (spot.exists or texts or standing.stand_below(spot.name)):
            return Reply(Outcome.NXDOMAIN, spot.apex)
        apex = spot.name == spot.apex
        return Reply(
            Outcome.NOERROR,
            spot.apex,
            texts=texts if type in TEXT_QUESTIONS else (),
            nameservers=self.config.dns_nameservers if apex and type in ("NS", "ANY") else (),
            soa=apex and type in ("SOA", "ANY"),
        )


def _with_ancestors(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        while name:
            yield name
            name = name.partition(".")[2]
