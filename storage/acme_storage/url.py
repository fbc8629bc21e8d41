"""A server's storage URL, parsed: where the server is, who logs in, its parameters, and where secrets come from.

This module knows how URLs are written, and that a secret may be a reference; it must not know any server's protocol.
Its errors show no more of a URL than the names of its parameters: a value may be a password.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import inf
from urllib.parse import parse_qsl, unquote

_NO_PARAMETER = "text behind a ? or & that is no parameter (in a password write ? as %3F, & as %26)"


@dataclass(frozen=True)
class StorageUrl:
    """``scheme://user:password@host:port,host:port/path?name=value``, decoded; missing parts are empty."""

    scheme: str
    user: str
    password: str = field(repr=False)  # the password itself, not its reference
    hosts: tuple[tuple[str, int | None], ...]  # an IPv6 address without its brackets
    path: str  # with its slash
    parameters: Mapping[str, str] = field(repr=False)  # may hold secrets

    def wrong(self, what: str) -> ValueError:
        """Return the error for something wrong in this URL."""
        return ValueError(f"the storage URL {self.scheme}: {what}")

    def text(self, name: str, *variables: str) -> str | None:
        """Return the parameter, or the first of the environment ``variables`` that is set and not empty."""
        if name in self.parameters:
            return self.parameters[name]
        return next((value for variable in variables if (value := os.environ.get(variable))), None)

    def secret(self, name: str, *variables: str) -> str | None:
        """Return the parameter as ``text`` does; for ``env:NAME`` return the environment variable NAME."""
        if name in self.parameters:
            return _secret(self.parameters[name], name, self.scheme)
        return self.text(name, *variables)

    def flag(self, name: str, *variables: str, default: bool) -> bool:
        """Return a boolean parameter or environment variable; with an empty ``name`` only the variable."""
        text = self.text(name, *variables)
        if text is None:
            return default
        if text.lower() in ("true", "1", "yes", "on"):
            return True
        if text.lower() in ("false", "0", "no", "off"):
            return False
        source = name if name in self.parameters else " or ".join(variables)
        raise self.wrong(f"{source} must be true or false")

    def number(self, name: str, default: float) -> float:
        """Return a numeric parameter, which must be above zero."""
        try:
            number = float(self.parameters.get(name, default))
        except ValueError:
            number = 0
        if not 0 < number < inf:
            raise self.wrong(f"{name} must be a number above zero, such as {default:g}")
        return number


def is_here(host: str) -> bool:
    """Say whether a host, as URLs and libpq name it, is this machine, so that no network carries the data."""
    return host in ("", "localhost", "::1", "[::1]") or host.startswith(("/", "@", "127."))


def parse(url: str, known: Collection[str]) -> StorageUrl:
    """Parse ``url``; ``known`` are the names that its parameters may have.

    Raises ``ValueError`` with one sentence for anything invalid: an unknown or repeated parameter, a fragment, a port
    that is not a number, an environment variable that is not set.
    """
    scheme, _, rest = url.partition(":")
    if "#" in rest:
        raise ValueError(f"the storage URL {scheme}: must not contain a #; in a password or a path write %23")
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.removeprefix("//").partition("/") if rest.startswith("//") else ("", "", rest)
    access, _, hosts = authority.rpartition("@")
    user, _, password = access.partition(":")
    return StorageUrl(
        scheme.lower(),
        unquote(user),
        _secret(unquote(password), "the password", scheme),
        tuple(_host(host, scheme) for host in hosts.split(",") if host),
        unquote(slash + path),
        _parameters(query, known, scheme),
    )


def _parameters(query: str, known: Collection[str], scheme: str) -> dict[str, str]:
    found: dict[str, str] = {}
    # A + is a plus sign here: values are tokens and paths, not form fields.
    for name, value in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
        if name not in known:
            # Shown only if it looks like a name: with an unquoted ? or & in a password, part of it arrives here.
            shown = f"the unknown parameter {name[:40]!r}" if value and name.isidentifier() else _NO_PARAMETER
            raise ValueError(f"the storage URL {scheme}: has {shown}; known are {', '.join(sorted(known))}")
        if name in found:
            raise ValueError(f"the storage URL {scheme}: has the parameter {name} twice")
        found[name] = value
    return found


def _secret(text: str, what: str, scheme: str) -> str:
    if not text.startswith("env:"):
        return text
    name = text.removeprefix("env:")
    if not os.environ.get(name):
        raise ValueError(
            f"the storage URL {scheme}: {what} is in the environment variable {name[:60]!r}, which is not set"
        )
    return os.environ[name]


def _host(text: str, scheme: str) -> tuple[str, int | None]:
    name, colon, port = text.rpartition(":")
    if text.endswith("]") or not colon:
        name, port = text, ""
    if port and not (port.isdecimal() and 0 < int(port) < 65_536):
        # Not shown: with an unquoted @, / or ? in a password, part of it arrives here.
        raise ValueError(
            f"the storage URL {scheme}: the port is not a number; in a password write @ as %40, / as %2F, ? as %3F"
        )
    return unquote(name.removeprefix("[").removesuffix("]")), int(port) if port else None
