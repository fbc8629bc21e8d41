"""External account binding (RFC 8555 section 7.3.4) from a CA that gives one for an e-mail address.

This module knows one HTTP request, which ZeroSSL answers; it must not know accounts, or when a binding is needed.
"""

import json
from dataclasses import dataclass, field
from urllib.parse import urlencode

from ..core.errors import IssuerUnavailable, SettingsRefused
from . import problems
from .http.deadline import Timeout
from .http.transport import Session


@dataclass(frozen=True, slots=True)
class ExternalAccountBinding:
    """The binding of an account: a key identifier, a MAC key (base64url), and the MAC's algorithm."""

    kid: str
    hmac_key: str = field(repr=False)
    alg: str = "HS256"


def request_binding(ca: str, url: str, email: str, timeout: Timeout, ca_bundle: str = "") -> ExternalAccountBinding:
    """Ask for a new binding; blocks. ``ca`` names the CA in messages, ``timeout`` is that of ``Network``.

    The reply holds a secret: ``url`` is HTTPS with a certificate that ``ca_bundle`` trusts, or on this machine. Raises
    ``SettingsRefused`` if the CA gives none for that address, ``IssuerUnavailable`` for an unusable reply.
    """
    with problems.translated(ca, whole=True), Session() as session:
        form, headers = urlencode({"email": email}), {"Content-Type": "application/x-www-form-urlencoded"}
        response = session.request("POST", url, data=form, headers=headers, timeout=timeout, verify=ca_bundle or True)
    try:
        reply = json.loads(response.text)
        if reply["success"]:
            return ExternalAccountBinding(_text(reply["eab_kid"]), _text(reply["eab_hmac_key"]))
        reason = _text(reply["error"]["type"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise IssuerUnavailable(
            f"{ca} answered HTTP {response.status_code} to the request for an external account binding, and gave none",
            retry_after=problems.retry_after(response),
        ) from None
    raise SettingsRefused(
        f"{ca} gives no external account binding for {email}: {reason}; correct acme_email, or set acme_eab_kid and "
        "acme_eab_hmac_key"
    )


def _text(value: object) -> str:
    """Return one word of text. Raises ``TypeError`` for anything else: it goes into the log, or into a header."""
    if not isinstance(value, str) or not 0 < len(value) <= 300 or " " in value or not value.isprintable():
        raise TypeError
    return value
