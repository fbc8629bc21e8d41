"""What a storage URL of a server says, taken apart once for all adapters: where, who, and with which parameters.

This module knows how URLs are written and that a password may be named instead of spelt. It must not know any
store, and no sentence that it raises shows more of a URL than the names of its parameters.
"""

import os
from collections.abc import Collection, Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote


class Parts(NamedTuple):
    """A URL ``scheme://user:password@hosts/path?parameters``, decoded; ``password`` as it is, not its reference."""

    scheme: str
    user: str
    password: str
    hosts: tuple[tuple[str, int | None], ...]  # an IPv6 address without its brackets
    path: str  # with its slash
    parameters: Mapping[str, str]


def split(url: str, known: Collection[str]) -> Parts:
    """Take ``url`` apart. Raises ``ValueError`` with one sentence for what is no such URL.

    ``known`` are the names that parameters may have; ``env:NAME`` as the password, or as the value of a parameter
    whose name says that it is secret, is the value of that environment variable.
    """
    scheme, _, rest = url.partition(":")
    if "#" in rest:
        raise ValueError(f"the storage URL {scheme}: must not hold a #; in a password or a path write %23")
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.removeprefix("//").partition("/") if rest.startswith("//") else ("", "", rest)
    access, _, hosts = authority.rpartition("@")
    user, _, password = access.partition(":")
    return Parts(
        scheme.lower(),
        unquote(user),
        secret(unquote(password), scheme),
        tuple(_host(host, scheme) for host in hosts.split(",") if host),
        unquote(slash + path),
        parameters(query, known, scheme),
    )


def parameters(query: str, known: Collection[str], scheme: str) -> dict[str, str]:
    """Return what a query says; each name once, and none but ``known`` ones."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            names = ", ".join(sorted(known))
            raise ValueError(f"the storage URL {scheme}: has an unknown parameter {name[:40]!r}; known are {names}")
        if name in found:
            raise ValueError(f"the storage URL {scheme}: has the parameter {name} twice")
        found[name] = secret(value, scheme) if "password" in name else value
    return found


def secret(text: str, scheme: str) -> str:
    """Return ``text``, or what the environment variable holds that ``env:NAME`` names."""
    if not text.startswith("env:"):
        return text
    name = text.removeprefix("env:")
    if name not in os.environ:
        raise ValueError(
            f"the storage URL {scheme}: takes a password from the environment variable {name[:60]!r}, which is not set"
        )
    return os.environ[name]


def number(parameters: Mapping[str, str], name: str, default: float, scheme: str) -> float:
    """Return a parameter that is a number above zero."""
    text = parameters.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise ValueError(f"the storage URL {scheme}: needs a number above zero for {name}")
    return value


def switch(parameters: Mapping[str, str], name: str, default: bool, scheme: str) -> bool:
    """Return a parameter that is true or false."""
    text = parameters.get(name, str(default)).lower()
    if text not in ("true", "false", "1", "0", "yes", "no"):
        raise ValueError(f"the storage URL {scheme}: needs true or false for {name}")
    return text in ("true", "1", "yes")


def _host(text: str, scheme: str) -> tuple[str, int | None]:
    name, colon, port = text.rpartition(":")
    if text.endswith("]") or not colon:
        name, port = text, ""
    if port and not (port.isdecimal() and 0 < int(port) < 65_536):
        # Not shown: an unquoted @ or / in a password puts a part of it here.
        raise ValueError(
            f"the storage URL {scheme}: has a port that is no number; in a password write @ as %40, / as %2F"
        )
    return unquote(name.removeprefix("[").removesuffix("]")), int(port) if port else None
