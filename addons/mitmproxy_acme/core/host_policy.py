"""Which names an operator means by ``a.example.com``, ``*.example.com``, ``**.example.com`` and ``re:PATTERN``, and
which may have a certificate on demand.

This module knows the notation, for every option that takes it; it must not know certificates. All of it is pure.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Self

import idna

from .names import ServerName, parse_host
from .patterns import Pattern

_ACE = "xn--"  # begins an A-label (RFC 5890 section 2.3.2.1)
# Joiners and variation selectors of emoji, and the five skin tones (Unicode TR51).
_OF_EMOJI = frozenset("\u200d\ufe0f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")


class Kind(Enum):
    """What an entry matches: one name, the names one label below another, at any depth below it, or an expression."""

    EXACT = ""
    ONE_LABEL = "*."
    ANY_DEPTH = "**."
    REGEXP = "re:"


@dataclass(frozen=True, slots=True)
class HostPattern:
    """One entry. ``name`` is the name without its prefix; of a regular expression it is the text of that."""

    kind: Kind
    name: str
    regexp: Pattern | None = None

    @classmethod
    def parse(cls, entry: str, option: str) -> Self:
        """Read one entry of ``option``. Raises ``ConfigError``."""
        entry = entry.strip()
        if entry.startswith(Kind.REGEXP.value):
            regexp = Pattern.parse(entry, option)
            return cls(Kind.REGEXP, regexp.text, regexp)
        kind = next((kind for kind in (Kind.ANY_DEPTH, Kind.ONE_LABEL) if entry.startswith(kind.value)), Kind.EXACT)
        return cls(kind, parse_host(entry.removeprefix(kind.value), option))

    def __str__(self) -> str:
        return self.kind.value + self.name


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """Which names may get a certificate on demand (``acme_domains``, ``acme_allow_any_domain``).

    The term is autocert's: https://pkg.go.dev/golang.org/x/crypto/acme/autocert#HostPolicy
    """

    exact: frozenset[str] = frozenset()
    one_label: frozenset[str] = frozenset()
    any_depth: frozenset[str] = frozenset()
    patterns: tuple[Pattern, ...] = ()
    any_domain: bool = False

    @classmethod
    def parse(cls, entries: Iterable[str], *, any_domain: bool = False) -> Self:
        """Read the entries of ``acme_domains``. Raises ``ConfigError``."""
        patterns = [HostPattern.parse(entry, "acme_domains") for entry in entries]
        return cls(
            exact=_names(patterns, Kind.EXACT),
            one_label=_names(patterns, Kind.ONE_LABEL),
            any_depth=_names(patterns, Kind.ANY_DEPTH),
            patterns=tuple(pattern.regexp for pattern in patterns if pattern.regexp is not None),
            any_domain=any_domain,
        )

    def allows(self, name: ServerName) -> bool:
        """Say whether ``name`` may have a certificate on demand.

        A name with an A-label that does not decode may not, unless it is listed itself: CAs must not issue for it
        (CA/Browser Forum Baseline Requirements, section 7.1.4.2.1), and a stranger can invent any number of such names.
        """
        parent = name.partition(".")[2]
        if name in self.exact:
            return True
        if not _is_decodable(name):
            return False
        if parent in self.one_label:
            return True
        while parent:
            if parent in self.any_depth:
                return True
            parent = parent.partition(".")[2]
        if any(pattern.matches(name) for pattern in self.patterns):
            return True
        # A single label (localhost, a container's name) is never a public name: it needs a listed entry.
        return self.any_domain and "." in name

    @property
    def is_open(self) -> bool:
        """Whether it allows names that cannot be recognised by their last labels."""
        return self.any_domain or bool(self.patterns)

    @property
    def bases(self) -> frozenset[str]:
        """The listed names: each other name that it allows is one of them, or ends in one."""
        return self.exact | self.one_label | self.any_depth

    def __bool__(self) -> bool:
        return self.any_domain or any((self.exact, self.one_label, self.any_depth, self.patterns))


def _names(patterns: Iterable[HostPattern], kind: Kind) -> frozenset[str]:
    return frozenset(pattern.name for pattern in patterns if pattern.kind is kind)


def _is_decodable(name: ServerName) -> bool:
    """Say whether each A-label decodes to a U-label (RFC 5891 section 5.4)."""
    return all(_is_a_label(label) for label in name.split(".") if label.startswith(_ACE)) if _ACE in name else True


def _is_a_label(label: str) -> bool:
    """Say whether a U-label encodes to exactly this label (RFC 3492).

    Emoji count as letters: IDNA 2008 does not allow them, but such domains exist, and CAs issue for them.
    """
    encoded = label.removeprefix(_ACE)
    try:
        decoded = encoded.encode().decode("punycode")
        if decoded.isascii() or decoded.encode("punycode").decode() != encoded:
            return False
        idna.check_label(_without_emoji(decoded))
    except (ValueError, OverflowError):  # idna's and the codec's errors are subclasses
        return False
    return True


def _without_emoji(label: str) -> str:
    """Return the label with a letter in place of each emoji and its modifiers."""
    emoji = {letter for letter in label if unicodedata.category(letter) == "So"}
    return "".join("x" if letter in emoji | _OF_EMOJI else letter for letter in label) if emoji else label
