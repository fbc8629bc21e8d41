"""Who may use the admin API: decided from the head of the request, before any work is done for it.

This module knows headers and the token; it must not know what is asked for. The token keeps strangers out. Against web
pages that the operator has open there are the Host header (DNS rebinding), the Origin header, and the content type that
no form can send (cross-site request forgery). No reply allows another origin to read it (CORS).
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
from .problems import CROSS_SITE_REQUEST, HttpError

logger = logging.getLogger(__name__)

_READS = ("GET", "HEAD", "OPTIONS")
# Methods that a browser sends to another origin without a preflight (https://fetch.spec.whatwg.org, CORS-safelisted).
_SIMPLE_CHANGES = ("POST",)


@dataclass(frozen=True, slots=True)
class Guard:
    """The rules of one admin API. Without a ``token`` it must listen on loopback only."""

    token: str = field(repr=False)
    _unauthorized: LogThrottle = field(default_factory=lambda: LogThrottle(time.monotonic), repr=False, compare=False)

    def admit(self, method: str, headers: Mapping[str, str], *, public: bool = False) -> bool:
        """Return whether the request carries the token. Raises ``HttpError``.

        ``public`` resources reveal nothing and need no token: the files of the page, the health check.
        """
        given = self._is_authorized(headers)
        if self.token and not given and not public:
            if count := self._unauthorized.count_event():
                logger.info(
                    "the admin API refused %d requests without its token",
                    count,
                    extra=fields("admin_unauthorized", count=count),
                )
            raise HttpError(401, "a token is needed; send Authorization: Bearer and the acme_admin_token")
        if not self.token and not _is_local(headers.get("Host", "")):
            raise HttpError(
                421, "the Host header is not an address of this machine; use localhost, or set acme_admin_token"
            )
        if method not in _READS and not given:
            _require_no_other_site(headers)
            if method in _SIMPLE_CHANGES and not _is_json(headers):
                raise HttpError(415, "a change needs a JSON body (Content-Type: application/json) or the token")
        return given

    def _is_authorized(self, headers: Mapping[str, str]) -> bool:
        scheme, _, credentials = headers.get("Authorization", "").partition(" ")
        bearer = credentials.strip() if scheme.lower() == "bearer" else ""
        # Kong's own header is accepted as well, for clients of Kong.
        given = bearer or headers.get("Kong-Admin-Token", "")
        # As tornado decodes headers; ``require_admin_token`` refuses tokens that no header can carry.
        return bool(self.token) and hmac.compare_digest(given.encode("latin-1", "replace"), self.token.encode())


def _is_local(host: str) -> bool:
    """Return whether a Host header names this machine without DNS: only such a name cannot be rebound."""
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
        raise HttpError.of(
            CROSS_SITE_REQUEST, "another web site sent this change; use the status page of this node, or send the token"
        )


def _is_json(headers: Mapping[str, str]) -> bool:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower() == "application/json"
