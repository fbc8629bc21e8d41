"""What the options of the admin API, the webhook and the deploy hook mean.

This module knows the rules for their values; it must not know who listens, signs or runs them.
"""

import base64
import binascii
import ipaddress
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..core.errors import ConfigError
from ..core.host_port import parse_host_port
from .option_values import choice, http_url
from .secret_references import find_variables, read_secret

_SHORTEST_TOKEN = 16
# A path has 108 bytes on Linux with its final NUL, and 104 on macOS (unix(7)).
_LONGEST_PATH = 103 if sys.platform == "darwin" else 107
_UNIX = re.compile(r"unix:(?://)?(?P<path>/[^/?\x00-\x1f][^?\x00-\x1f]*)(\?mode=0?(?P<mode>600|660))?")
# mitmproxy's modes in which the client cannot choose the destination.
_NOT_FORWARDING = ("reverse", "dns")
_PORTS = {"http": 80, "https": 443, "http3": 443, "quic": 443, "tls": 443, "": 443}
# Bytes; https://github.com/standard-webhooks/standard-webhooks, "Signature scheme".
_SHORTEST_KEY = 24
_HOW_TO_MAKE_ONE = 'make one with: echo "whsec_$(openssl rand -base64 32)"'


@dataclass(frozen=True, slots=True)
class AdminAddress:
    """Where the admin API listens: ``host`` is an IP address or ``localhost``."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class AdminSocket:
    """The Unix socket at which the admin API listens: an absolute ``path``, and the ``mode`` of its file."""

    path: str
    mode: int = 0o600

    def __str__(self) -> str:
        return f"unix:{self.path}"


type AdminListen = AdminAddress | AdminSocket


def parse_admin_listen(text: str) -> AdminListen | None:
    """Read an address, or ``unix:/path`` with an optional ``?mode=0660``; None for an empty text.

    Raises ``ConfigError``.
    """
    text = text.strip()
    if not text:
        return None
    return _parse_admin_socket(text) if text.startswith("unix:") else _parse_admin_address(text)


def _parse_admin_socket(text: str) -> AdminSocket:
    found = _UNIX.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"acme_admin_listen: {text!r} is not a Unix socket with an absolute path and a mode of 0600 or 0660; write "
            "unix:/run/mitmproxy-acme/admin.sock, with ?mode=0660 behind it to let the group of the file connect"
        )
    path, mode = found["path"], found["mode"]
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigError(
            f"acme_admin_listen: the path of a Unix socket has at most {_LONGEST_PATH} bytes, and this one has "
            f"{len(os.fsencode(path))}; choose a shorter one, such as unix:/run/mitmproxy-acme/admin.sock"
        )
    return AdminSocket(path, int(mode or "600", 8))


def _parse_admin_address(text: str) -> AdminAddress:
    """Read ``127.0.0.1:8008``, ``[::1]:8008`` or ``localhost:8008``. Raises ``ConfigError``."""
    try:
        address = AdminAddress(*parse_host_port(text))
        address.is_loopback  # noqa: B018  # reads the address
    except ValueError:
        raise ConfigError(
            f"acme_admin_listen: {text!r} is not an address and a port; write one such as 127.0.0.1:8008, "
            "[::]:8008 or unix:/run/mitmproxy-acme/admin.sock"
        ) from None
    return address


def require_admin_token(address: AdminListen | None, token: str) -> None:
    """Raise ``ConfigError`` if others could reach the admin API without a token, or guess it."""
    if token and len(token) < _SHORTEST_TOKEN:
        raise ConfigError(
            f"acme_admin_token: {len(token)} characters are too few; make a token with: openssl rand -hex 32"
        )
    if not re.fullmatch(r"[!-~]*", token):
        raise ConfigError(
            "acme_admin_token: it contains a space, or a character that HTTP headers do not allow; make a token with: "
            "openssl rand -hex 32"
        )
    if isinstance(address, AdminAddress) and not address.is_loopback and not token:
        raise ConfigError(
            f"acme_admin_token: others can reach acme_admin_listen={address}, so a token is needed; "
            "make one with openssl rand -hex 32, or listen on 127.0.0.1"
        )


def require_token_beside(modes: Iterable[str], address: AdminListen | None, token: str) -> None:
    """Raise ``ConfigError`` if clients of the proxy could reach the admin API through one of mitmproxy's ``modes``.

    ``mitm.admin_barrier`` refuses such connections too, but a packet filter, or another proxy behind this one, can lead
    to the API by an address that is unknown here. No mode leads to a Unix socket.
    """
    if not isinstance(address, AdminAddress) or token:
        return
    for mode in modes:
        if (name := re.split("[:@]", mode, maxsplit=1)[0].lower()) not in _NOT_FORWARDING:
            raise ConfigError(
                f"acme_admin_token: clients of mode {mode} may ask for any address, also acme_admin_listen={address}, "
                "so a token is needed; make one with openssl rand -hex 32, or leave acme_admin_listen out"
            )
        if name == "reverse" and _leads_to(mode, address):
            raise ConfigError(
                f"acme_admin_token: mode {mode} leads everyone to acme_admin_listen={address}, so a token is needed; "
                "make one with openssl rand -hex 32, or give the mode another upstream"
            )


def _leads_to(mode: str, address: AdminAddress) -> bool:
    """Say whether a reverse mode has the admin API as its upstream, by this address or another of this machine."""
    upstream = mode.partition(":")[2].rpartition("@")[0] or mode.partition(":")[2]
    try:
        parts = urlsplit(upstream if "//" in upstream else f"//{upstream}")
        port = parts.port or _PORTS.get(parts.scheme.lower(), 0)
    except ValueError:
        return False  # mitmproxy reports what is wrong with it
    return is_reached_at(parts.hostname or "", port, address)


def is_reached_at(host: str, port: int, address: AdminAddress) -> bool:
    """Say whether a connection to a host and port reaches the admin API, as far as their text tells."""
    return port == address.port and (host == address.host or _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return ip.is_loopback or ip.is_unspecified


def parse_webhook_key(secret: str) -> bytes:
    """Return the key that signs webhook messages, empty without a secret. Raises ``ConfigError``, never quoting it.

    A secret is used as it is, or decoded if Standard Webhooks wrote it: ``whsec_`` and the base64 of random bytes.
    """
    if not secret.startswith("whsec_"):
        return secret.encode()
    encoded = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(encoded, validate=True)
        if len(encoded) % 4:  # Python 3.12 lets superfluous padding pass
            raise binascii.Error
    except ValueError:  # binascii.Error, and that of letters beyond ASCII
        raise ConfigError(f"acme_webhook_secret: what follows whsec_ is not base64; {_HOW_TO_MAKE_ONE}") from None
    if len(key) < _SHORTEST_KEY:
        raise ConfigError(
            f"acme_webhook_secret: {len(key)} bytes follow whsec_, and a key needs at least {_SHORTEST_KEY}; "
            f"{_HOW_TO_MAKE_ONE}"
        )
    return key


def parse_deploy_hook(text: str) -> tuple[str, ...]:
    """Split ``acme_deploy_hook`` into words as a shell does; no shell runs. Raises ``ConfigError``."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise ConfigError(f"acme_deploy_hook: {text!r} cannot be parsed ({error}); close its quotes") from None
    if words and shutil.which(words[0]) is None:
        raise ConfigError(f"acme_deploy_hook: there is no program {words[0]!r} here; write the path of one")
    return words


def parse_operation(given: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    """Return the fields of ``Config`` about what people and programs see of the proxy. Raises ``ConfigError``."""
    return {
        "admin": parse_admin_listen(given["acme_admin_listen"]),
        "admin_token": read_secret("acme_admin_token", given["acme_admin_token"], warnings),
        "webhook": http_url("acme_webhook", given["acme_webhook"]),
        "webhook_key": parse_webhook_key(read_secret("acme_webhook_secret", given["acme_webhook_secret"], warnings)),
        "deploy_hook": parse_deploy_hook(given["acme_deploy_hook"]),
        "secret_variables": find_variables(given[name] for name in given if name != "acme_deploy_hook"),
        "hide_challenges": given["acme_hide_challenges"],
        "log_format": choice(given, "acme_log_format"),
    }
