"""Who may use the admin API: decided by the request alone, before anything is done for it.

This module knows headers and the token; it must not know what is asked for. Against strangers there is the token;
against web pages that a person visits meanwhile there are the Host header (DNS rebinding), the Origin header, and the
content type that no form can send (cross-site request forgery). No reply ever lets another origin read it (CORS).
"""

import hmac
import ipaddress
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..core.log_throttle import LogThrottle
from ..core.structured_logging import fields

logger = logging.getLogger(__name__)

_UNAUTHORIZED = 401
_READS = ("GET", "HEAD", "OPTIONS")
# Methods that a browser sends to another origin without asking first (https://fetch.spec.whatwg.org, CORS-safelisted).
_SIMPLE_CHANGES = ("POST",)


class HttpError(Exception):
    """The request is not fulfilled: ``status`` is the HTTP status, the message says what would be right.

    ``until`` is the Unix time from which on it is worth asking again, if it is known.
    """

    def __init__(self, status: int, message: str, *, until: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.until = until

    def headers(self, now: float) -> dict[str, str]:
        """Return the headers of a reply that belong to this status; ``now`` are Unix seconds."""
        challenge = {"WWW-Authenticate": "Bearer"} if self.status == _UNAUTHORIZED else {}
        return challenge if self.until is None else challenge | {"Retry-After": str(max(1, round(self.until - now)))}


@dataclass(frozen=True, slots=True)
class Guard:
    """The rules of one admin API; without ``token`` it must listen on loopback only."""

    token: str = field(repr=False)
    _unauthorized: LogThrottle = field(default_factory=lambda: LogThrottle(time.monotonic), repr=False, compare=False)

    def admit(self, method: str, headers: Mapping[str, str], *, public: bool = False) -> bool:
        """Return whether the token was given. Raises ``HttpError``.

        ``public`` is for what tells nothing: the page's own files, its health.
        """
        given = self._is_authorized(headers)
        if self.token and not given and not public:
            if count := self._unauthorized.add():
                logger.info(
                    "the admin API was asked without its token (%d requests)",
                    count,
                    extra=fields("admin_unauthorized", count=count),
                )
            raise HttpError(401, "a token is needed: Authorization: Bearer TOKEN, of acme_admin_token")
        if not self.token and not _is_local(headers.get("Host", "")):
            raise HttpError(
                421, "the Host header is not an address of this machine; ask localhost, or set acme_admin_token"
            )
        if method not in _READS and not given:
            _require_no_other_site(headers)
            if method in _SIMPLE_CHANGES and not _is_json(headers):
                raise HttpError(415, "a change needs a JSON body (Content-Type: application/json), or the token")
        return given

    def _is_authorized(self, headers: Mapping[str, str]) -> bool:
        scheme, _, credentials = headers.get("Authorization", "").partition(" ")
        bearer = credentials.strip() if scheme.lower() == "bearer" else ""
        # Kong's own header for the same is taken as well, for what talks to Kong.
        given = bearer or headers.get("Kong-Admin-Token", "")
        # As tornado reads headers; what no header can carry is no token (``require_admin_token``).
        return bool(self.token) and hmac.compare_digest(given.encode("latin-1", "replace"), self.token.encode())


def _is_local(host: str) -> bool:
    """Say whether a Host header names this machine without any DNS: only such a name cannot be rebound."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _require_no_other_site(headers: Mapping[str, str]) -> None:
    origin = headers.get("Origin")
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") or (
        # An origin is a scheme and the Host header (RFC 6454 section 6.2); "null" and whatever else are other sites.
        origin is not None and origin.partition("://")[2] != headers.get("Host")
    ):
        raise HttpError(
            403, "another web site asked for this change; only this one's own page may, or whoever has the token"
        )


def _is_json(headers: Mapping[str, str]) -> bool:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower() == "application/json"
