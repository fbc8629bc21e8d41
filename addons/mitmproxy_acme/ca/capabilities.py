"""What a CA can: which certificates it issues, as far as it says so.

This module knows what an order demands; it must not know which CA can what (``authorities``), or talk to one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ..core.errors import NotOffered, SettingsRefused
from ..core.names import Subject, is_address, is_global, is_wildcard
from ..core.proof import DNS_TYPES


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be ordered of a CA that messages call ``ca``: for whom, and by which options."""

    ca: str
    subject: Subject
    profile: str
    challenges: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one CA issues. Whatever nobody knows counts as possible: the CA will say.

    ``ip`` are certificates for addresses (RFC 8738), ``ip_profile`` the profile under which alone it has them.
    ``profiles`` and ``key_types`` are all that it has; none where that is not known. ``public`` says that clients
    everywhere trust it, so that it issues for no address of a private network (CA/Browser Forum, BR 7.1.2.7.12).
    """

    ip: bool = True
    ip_profile: str = ""
    wildcard: bool = True
    profiles: tuple[str, ...] = ()
    key_types: tuple[str, ...] = ()
    public: bool = False

    def profile(self, subject: Subject, wished: str) -> str:
        """Return the profile to order: for an address the one that the CA demands, else the one of the options."""
        return self.ip_profile if self.ip_profile and any(map(is_address, subject.names)) else wished

    def require(self, order: Order) -> None:
        """Raise ``NotOffered`` for what the CA does not issue, ``SettingsRefused`` for what it issues to no name."""
        if address := next(filter(is_address, order.subject.names), None):
            self._require_address(order, address)
        wildcard = next(filter(is_wildcard, order.subject.names), None)
        if wildcard is not None and not self.wildcard:
            raise NotOffered(
                f"{order.ca} issues no wildcards, and {wildcard} is one; add a CA that does to acme_ca, or write the "
                "URL of its directory there if it does for you"
            )
        require_profile(order, self.profiles)
        if self.key_types and order.subject.key_type not in self.key_types:
            takes = ", ".join(self.key_types)
            wanted = order.subject.key_type
            raise SettingsRefused(f"{order.ca} takes no keys of acme_key_type {wanted}; it takes {takes}")

    def _require_address(self, order: Order, address: str) -> None:
        if DNS_TYPES.issuperset(order.challenges):
            raise NotOffered(
                f"{address} is an address, which no challenge in DNS can validate, and acme_challenges has only "
                f"{', '.join(order.challenges)}; add http-01 or tls-alpn-01"
            )
        if not self.ip:
            raise NotOffered(
                f"{order.ca} issues no certificates for addresses, and {address} is one; add a CA that does to acme_ca"
            )
        if self.public and not is_global(address):
            raise NotOffered(
                f"{address} is no address of the internet, and {order.ca} issues for none other; name a CA of your own "
                "in acme_ca, by its URL"
            )


def require_profile(order: Order, offered: Iterable[str]) -> None:
    """Raise ``SettingsRefused`` where the CA offers profiles, and the one of the order is not among them.

    ``NotOffered`` for an address, which may want another profile than names: those are ordered on.
    """
    known = tuple(offered)
    if known and order.profile and order.profile not in known:
        refusal = NotOffered if any(map(is_address, order.subject.names)) else SettingsRefused
        raise refusal(f"{order.ca} offers no profile {order.profile!r}; it offers {', '.join(known)}")
