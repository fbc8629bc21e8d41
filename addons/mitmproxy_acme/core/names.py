"""Names of servers.

This module knows DNS names and addresses as clients send them and operators write them; it must not know
certificates, storage or the network. All of it is pure.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import NewType

import idna

from .errors import ConfigError
from .key_types import KEY_TYPES, KINDS, mark_of, split

ServerName = NewType("ServerName", str)
"""What a certificate is for, and the key that it is stored under: a DNS name or an IP address (RFC 8738).

A DNS name is written as in certificates: lower case, A-labels, no trailing dot; it may start with ``*.``. An address is
in its canonical text (RFC 5952 for IPv6), without brackets.
"""

_LONGEST_NAME = 253
_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
# A name whose last label is all digits is an IPv4 address or invalid (RFC 1123 section 2.1), never a DNS name.
_NAME = re.compile(rf"(?=.{{1,{_LONGEST_NAME}}}\Z)(?:{_LABEL}\.)*(?!\d+\Z){_LABEL}\Z")


def parse_server_name(raw: str | None) -> ServerName | None:
    """Return the name that a client asked for (SNI, RFC 6066 section 3), or None if it is no host name.

    Case, a trailing dot and U-labels are normalised. IP addresses, underscores, empty labels and names over 253
    characters give None: no CA would issue for them.
    """
    if not raw or len(raw) > _LONGEST_NAME + len("."):  # before any costly step: a client may send 64 KiB
        return None
    name = raw.lower().removesuffix(".")
    if not name.isascii():
        try:
            name = to_a_labels(name)
        except ValueError:
            return None
    return ServerName(name) if _NAME.match(name) else None


def to_a_labels(text: str) -> str:
    """Return a name with A-labels (RFC 5890 section 2.3.2.1) in place of U-labels. Raises ``ValueError``."""
    try:
        return idna.encode(text, uts46=True).decode("ascii")
    except OverflowError:  # from Python 3.13 on, for an A-label that encodes a character that does not exist
        raise ValueError from None


def parse_address(raw: str | None) -> ServerName | None:
    """Return an IP address in its canonical text, or None if no certificate can be for it.

    IPv6 may be in brackets; an IPv4-mapped IPv6 address becomes the IPv4 address (RFC 4291 section 2.5.5.2). Addresses
    that belong to no single host (link-local, with or without its scope, multicast, unspecified) give None.
    """
    if raw is None or len(raw) > _LONGEST_NAME:
        return None
    try:
        address = ipaddress.ip_address(raw.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        address = address.ipv4_mapped or address
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return None
    return ServerName(str(address))


def is_address(name: str) -> bool:
    """Say whether a ``ServerName`` is an IP address: no DNS name has a colon, or a last label of digits alone."""
    return ":" in name or name.rpartition(".")[2].isdigit()


def is_ipv6(address: str) -> bool:
    return ":" in address


def is_global(address: str) -> bool:
    """Say whether an address is public: part of the internet, not of a private network (RFC 6890)."""
    return ipaddress.ip_address(address).is_global


def options_for(name: ServerName) -> tuple[str, ...]:
    """Return the options that can allow ``name`` a certificate: on demand, if possible, and managed."""
    if is_wildcard(name):
        return ("acme_certificates",)
    return "acme_ip_certificates" if is_address(name_of(name)) else "acme_domains", "acme_certificates"


def url_host(host: str) -> str:
    """Return a host as URLs and Host headers write it: IPv6 in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]" if is_ipv6(host) else host


def tls_alpn_server_name(name: str) -> str:
    """Return the server name that a validator of tls-alpn-01 sends (RFC 8737 section 3, RFC 8738 section 6)."""
    return ipaddress.ip_address(name).reverse_pointer if is_address(name) else name


def parse_host(raw: str, option: str) -> ServerName:
    """Return a DNS name that an operator wrote. Raises ``ConfigError``."""
    return _parse_host(raw, option, "a DNS name such as www.example.com")


def _parse_host(raw: str, option: str, right: str) -> ServerName:
    name = parse_server_name(raw.strip())
    if name is None:
        raise ConfigError(f"{option}: {raw!r} is {_what_is_wrong(raw.strip())}; write {right}")
    return name


def parse_identifier(raw: str, option: str) -> ServerName:
    """Return what a certificate can be for: a DNS name, ``*.`` before one, or an address. Raises ``ConfigError``."""
    text = raw.strip()
    if text.startswith("*."):
        return ServerName("*." + parse_host(text[2:], option))
    address = parse_address(text)
    return address or _parse_host(text, option, "a DNS name such as www.example.com, or the IP address of a host")


def parse_id(raw: str, option: str) -> ServerName:
    """Return the id of a certificate as a person writes it: a name, with ``+rsa`` or ``+ecdsa`` behind it if needed.

    Raises ``ConfigError``.
    """
    text, mark = split(raw.strip())
    if mark.lower() not in ("", *map(mark_of, KINDS)):
        raise ConfigError(
            f"{option}: {raw!r} has no known kind of key behind the +; write NAME, NAME+rsa or NAME+ecdsa"
        )
    return ServerName(parse_identifier(text, option) + mark.lower())


def parse_certificate_name(raw: str) -> ServerName | None:
    """Do the same for input from a program; None if it is invalid."""
    try:
        return parse_id(raw, "host")
    except ConfigError:
        return None


def name_of(id: ServerName) -> ServerName:
    """Return the name of an id, without the mark of its kind of key."""
    return ServerName(split(id)[0])


def wildcard(host: ServerName) -> ServerName:
    """Return the wildcard for the names one label below ``host``."""
    return ServerName(f"*.{host}")


def is_wildcard(name: ServerName) -> bool:
    return name.startswith("*.")


def covering_wildcard(name: ServerName) -> ServerName:
    """Return the only wildcard that can cover ``name`` (RFC 6125 section 6.4.3)."""
    return ServerName(f"*.{name.partition('.')[2]}")


def _what_is_wrong(text: str) -> str:
    if "://" in text:
        return "a URL, not a host name"
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return "not a host name"
    return "an IP address"


@dataclass(frozen=True, slots=True)
class Subject:
    """What one certificate is for: its names, in order.

    ``managed`` certificates are listed by the operator and obtained at the start; the others are on demand and have a
    single name. The first name identifies the certificate in storage and in the renewal schedule. If two kinds of keys
    are served, ``mark`` identifies the second kind: ``+rsa`` or ``+ecdsa``. ``key_type`` is the type to order.
    """

    names: tuple[ServerName, ...]
    managed: bool = False
    key_type: str = KEY_TYPES[0]
    mark: str = ""

    @property
    def id(self) -> ServerName:
        return ServerName(self.name + self.mark)

    @property
    def name(self) -> ServerName:
        """The first name; both kinds of key share its order lock and its backoff."""
        return self.names[0]

    @property
    def lookup_keys(self) -> tuple[ServerName, ...]:
        """The ids by which it is found: its names, each with the mark of its kind."""
        return tuple(ServerName(name + self.mark) for name in self.names)

    def __str__(self) -> str:
        return self.id if len(self.names) == 1 else f"{self.id} (+{len(self.names) - 1})"
