"""External account binding (RFC 8555 section 7.3.4) from a CA that gives it to whoever has an e-mail address.

This module knows one HTTP question, which ZeroSSL answers; it must not know accounts, or when a binding is needed.
"""

import json
from dataclasses import dataclass, field
from urllib.parse import urlencode

from ..core.errors import IssuerUnavailable, SettingsRefused
from . import problems
from .transport import Session, Timeout


@dataclass(frozen=True, slots=True)
class ExternalAccountBinding:
    """What binds an account: a key identifier, a MAC key (base64url), and the MAC's algorithm."""

    kid: str
    hmac_key: str = field(repr=False)
    alg: str = "HS256"


def request_binding(ca: str, url: str, email: str, timeout: Timeout, ca_bundle: str = "") -> ExternalAccountBinding:
    """Ask for a new binding; blocks. ``ca`` is what messages call the CA, ``timeout`` that of ``Network``.

    The reply holds a secret: ``url`` is HTTPS, with a certificate that ``ca_bundle`` trusts, or this machine.
    Raises ``SettingsRefused`` where there is none for that address, ``IssuerUnavailable`` where nothing of use comes.
    """
    with problems.translated(ca, whole=True), Session() as session:
        form, headers = urlencode({"email": email}), {"Content-Type": "application/x-www-form-urlencoded"}
        response = session.request("POST", url, data=form, headers=headers, timeout=timeout, verify=ca_bundle or True)
    try:
        reply = json.loads(response.text)
        if reply["success"]:
            return ExternalAccountBinding(_text(reply["eab_kid"]), _text(reply["eab_hmac_key"]))
        reason = _text(reply["error"]["type"])
    except (ValueError, TypeError, KeyError):
        raise IssuerUnavailable(
            f"{ca} answered HTTP {response.status_code} to the wish for an external account binding, and gave none",
            retry_after=problems.retry_after(response),
        ) from None
    raise SettingsRefused(
        f"{ca} gives no external account binding for {email}: {reason}; mend acme_email, or set acme_eab_kid and "
        "acme_eab_hmac_key"
    )


def _text(value: object) -> str:
    """Return what is one word of text. Raises ``TypeError`` for anything else: it goes to the log, or into a header."""
    if not isinstance(value, str) or not 0 < len(value) <= 300 or " " in value or not value.isprintable():
        raise TypeError
    return value
