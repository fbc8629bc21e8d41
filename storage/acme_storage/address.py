"""A storage URL of a server taken apart: where it is, what the parameters say, and where its secrets lie.

This module knows URLs and environment variables; it must not know any server's protocol. No error shows a value:
it may be a password.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True)
class Address:
    """``host`` is empty and ``port`` None where the URL is silent; ``path`` has no slash at either end."""

    scheme: str
    host: str
    port: int | None
    path: str
    parameters: Mapping[str, str] = field(repr=False)  # may hold secrets

    def text(self, name: str, *variables: str) -> str | None:
        """Return the parameter, else the first of the environment's ``variables`` that is set and not empty."""
        if name in self.parameters:
            return self.parameters[name]
        return next((value for variable in variables if (value := os.environ.get(variable))), None)

    def secret(self, name: str, *variables: str) -> str | None:
        """Return the parameter as ``text`` does, or what the variable NAME holds where it is ``env:NAME``."""
        text = self.text(name, *variables)
        if name not in self.parameters or text is None or not text.startswith("env:"):
            return text
        value = os.environ.get(text.removeprefix("env:"))
        if not value:
            raise ValueError(f"the storage URL {self.scheme}: {name}={text}: this environment variable is not set")
        return value

    def flag(self, name: str, *variables: str, default: bool) -> bool:
        """Return a parameter that is true or false."""
        text = self.text(name, *variables)
        if text is None:
            return default
        if text.lower() in ("true", "1", "yes", "on"):
            return True
        if text.lower() in ("false", "0", "no", "off"):
            return False
        raise ValueError(f"the storage URL {self.scheme}: {name} must be true or false")

    def seconds(self, name: str, default: float) -> float:
        """Return a parameter that is a number of seconds above zero."""
        try:
            number = float(self.parameters.get(name, default))
        except ValueError:
            number = 0
        if not 0 < number < inf:
            raise ValueError(f"the storage URL {self.scheme}: {name} must be a number of seconds, such as {default:g}")
        return number


def parse(url: str, known: tuple[str, ...]) -> Address:
    """Take ``scheme://host:port/path?name=value`` apart; every part after ``scheme:`` may be missing.

    Raises ``ValueError`` with one sentence for what is not understood: a parameter that is not ``known``, one given
    twice, a user name, a fragment, a port that is none.
    """
    scheme, _, rest = url.partition(":")
    place = f"the storage URL {scheme}:"
    if rest and not rest.startswith(("//", "?")):
        raise ValueError(f"{place} needs two slashes before the host: {scheme}://host:port/path")
    if "#" in rest:
        raise ValueError(f"{place} must not hold a #; write %23")
    try:
        parts = urlsplit(f"x:{rest}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(f"{place} has no proper host and port: it is {scheme}://host:port/path") from None
    if "@" in parts.netloc:
        raise ValueError(f"{place} takes no user and password before the host; known parameters are {', '.join(known)}")
    path = unquote(parts.path).strip("/")
    return Address(scheme.lower(), host, port, path, _parameters(place, parts.query, known))


def _parameters(place: str, query: str, known: tuple[str, ...]) -> dict[str, str]:
    # A + stays one: these are tokens and paths, not the fields of a form.
    pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)
    names = [name for name, _ in pairs]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{place} has the unknown parameter {unknown[0]}; known are {', '.join(known)}")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{place} has the parameter {twice[0]} twice")
    if empty := [name for name, value in pairs if not value]:
        raise ValueError(f"{place} has the parameter {empty[0]} without a value")
    return dict(pairs)
