"""Zones: what is answered to a question of DNS (RFC 1034 section 4.3.2, RFC 2308), given the records that stand.

This module knows the decisions; it must not know DNS messages, mitmproxy or storage. All of it is pure.

Two kinds of zones lead here: the one of ``acme_dns_zone``, and each ``_acme-challenge.NAME`` that is delegated itself,
of a name that may have a certificate. Everything else is refused: this is no resolver.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from ..config import Config
from ..delegation import Place, is_digest

type Texts = Mapping[str, tuple[str, ...]]
"""Values of TXT records by the name that the CA asks for, as ``str(Place)`` spells it."""


TEXT_QUESTIONS = frozenset({"TXT", "ANY"})
_TEXTS = 256  # they fit a reply over TCP, and no name has more orders under way


class Outcome(Enum):
    """RFC 1035 section 4.1.1: what a reply says of the question's name."""

    NOERROR = 0
    NXDOMAIN = 3
    REFUSED = 5


@dataclass(frozen=True, slots=True)
class Spot:
    """A name of ours: the zone it is in, and what can stand there.

    ``place`` is whose values it shows; ``digest`` that they must be looked for by its alias. ``exists`` is False where
    nothing is, nor below.
    """

    name: str
    apex: str
    place: Place | None = None
    digest: bool = False
    exists: bool = True


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


REFUSED = Reply(Outcome.REFUSED)


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
            return Spot(name, zone)
        if zone and name.endswith(f".{zone}"):
            return self._in_zone(name, name.removesuffix(f".{zone}"))
        return self._delegated(name)

    def _in_zone(self, name: str, part: str) -> Spot:
        zone, place = self.config.dns_zone, Place.parse_alias(part)
        if is_digest(part):
            return Spot(name, zone, digest=True)
        if place is None:
            return Spot(name, zone, exists=False)
        if self.config.may_have(place.host):
            return Spot(name, zone, place)
        # Above an alias: it has nothing, and is there all the same, for what is below what is not there is not (8020).
        above = not place.account and (self.config.policy.is_open or place.host in self._ancestors)
        return Spot(name, zone, exists=above)

    def _delegated(self, name: str) -> Spot | None:
        """Each such name may be delegated for itself, so each is the apex of its own zone."""
        place = Place.parse(name)
        if place is not None:
            return Spot(name, name, place) if self.config.may_have(place.host) else None
        below = name.partition(".")[2]
        while below and (parent := Place.parse(below)) is None:
            below = below.partition(".")[2]
        if not below or parent is None or not self.config.may_have(parent.host):
            return None
        return Spot(name, str(parent), exists=False)

    def texts(self, spot: Spot, standing: Texts) -> tuple[str, ...]:
        """Return the values that stand at a spot, of all that ``standing`` has."""
        if spot.place is not None:
            return standing.get(str(spot.place), ())[:_TEXTS]
        if not spot.digest:
            return ()
        aliases = {place.alias(self.config.dns_zone): name for name in standing if (place := Place.parse(name))}
        return standing.get(aliases.get(spot.name, ""), ())[:_TEXTS]

    def reply(self, spot: Spot, type: str, texts: tuple[str, ...]) -> Reply:
        """Return the answer to a question for ``type`` (``TXT``, ``SOA``, …, ``ANY``); ``texts`` stand at the spot."""
        if not spot.exists or (spot.digest and not texts):
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
