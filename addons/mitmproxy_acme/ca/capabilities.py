"""Capabilities: which certificates a CA issues, as far as it says so.

This module knows what an order demands; it must not know which CA has which capabilities (``known_cas``), or talk to
one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ..core.errors import NotOffered, SettingsRefused
from ..core.names import Subject, is_address, is_global, is_wildcard
from ..core.proof import DNS_TYPES


@dataclass(frozen=True, slots=True)
class Order:
    """What to order: for whom, with which options, at the CA that messages call ``ca``."""

    ca: str
    subject: Subject
    profile: str
    challenges: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one CA issues. Anything unknown counts as possible: the CA will say.

    ``ip``: it issues certificates for IP addresses (RFC 8738); ``ip_profile`` is the only profile that has them.
    ``profiles`` and ``key_types`` are complete lists, or empty if unknown. ``public``: clients everywhere trust it, so
    it issues for no address of a private network (CA/Browser Forum, BR 7.1.2.7.12).
    """

    ip: bool = True
    ip_profile: str = ""
    wildcard: bool = True
    profiles: tuple[str, ...] = ()
    key_types: tuple[str, ...] = ()
    public: bool = False

    def profile(self, subject: Subject, wished: str) -> str:
        """Return the profile to order: the one that the CA demands for addresses, else the one of the options."""
        return self.ip_profile if self.ip_profile and any(map(is_address, subject.names)) else wished

    def require(self, order: Order) -> None:
        """Raise ``NotOffered`` if the CA does not issue this, ``SettingsRefused`` if it issues this for no name."""
        if address := next(filter(is_address, order.subject.names), None):
            self._require_address(order, address)
        wildcard = next(filter(is_wildcard, order.subject.names), None)
        if wildcard is not None and not self.wildcard:
            raise NotOffered(
                f"{order.ca} issues no wildcards, and {wildcard} is one; add a CA to acme_ca that does, or, if this CA "
                "does for you, write the URL of its directory there"
            )
        require_profile(order, self.profiles)
        if self.key_types and order.subject.key_type not in self.key_types:
            takes = ", ".join(self.key_types)
            wanted = order.subject.key_type
            raise SettingsRefused(f"{order.ca} does not accept keys of acme_key_type {wanted}; it accepts {takes}")

    def _require_address(self, order: Order, address: str) -> None:
        if DNS_TYPES.issuperset(order.challenges):
            raise NotOffered(
                f"{address} is an address, which DNS challenges cannot validate, and acme_challenges has only "
                f"{', '.join(order.challenges)}; add http-01 or tls-alpn-01"
            )
        if not self.ip:
            raise NotOffered(
                f"{order.ca} issues no certificates for addresses, and {address} is one; add a CA to acme_ca that does"
            )
        if self.public and not is_global(address):
            raise NotOffered(
                f"{address} is not a public address, and {order.ca} issues for public ones only; add a CA of your own "
                "to acme_ca, by its URL"
            )


def require_profile(order: Order, offered: Iterable[str]) -> None:
    """Raise ``SettingsRefused`` if the CA offers profiles, but not the one of the order.

    For an address raise ``NotOffered`` instead: addresses may need another profile, so orders for names go on.
    """
    known = tuple(offered)
    if known and order.profile and order.profile not in known:
        refusal = NotOffered if any(map(is_address, order.subject.names)) else SettingsRefused
        raise refusal(f"{order.ca} offers no profile {order.profile!r}; it offers {', '.join(known)}")
