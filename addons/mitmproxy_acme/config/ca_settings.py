"""Entries of ``acme_ca``: each CA as the operator wrote it, with its own settings.

This module knows these settings; it must not know any CA (``ca.known_cas`` does).
"""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import ConfigError
from ..core.operating_system import with_home
from ..core.rate_limits import Limit, LimitKind, parse_setting
from .option_values import require_known
from .secret_references import read_secret

_BINDING = ("eab_kid", "eab_hmac_key")
_GENERAL = (*_BINDING, "profile", "preferred_chain", "ca_bundle")  # also options, for all CAs
_KNOWN = ("eab_alg", "staging", *_GENERAL, *map(str, LimitKind))
_EAB_ALGORITHMS = ("HS256", "HS384", "HS512")


@dataclass(frozen=True, slots=True)
class CaSettings:
    """One entry of ``acme_ca``: the CA as it was written (alias or URL), and its settings.

    ``eab_alg`` is the MAC algorithm of the binding (RFC 7518 section 3.2). ``limits`` are the limits that were set,
    which replace the CA's own; None means off. ``staging`` is where its orders are rehearsed, an alias or URL that
    replaces the known directory; or ``off``.
    """

    ca: str
    eab_kid: str = ""
    eab_hmac_key: str = field(default="", repr=False)
    eab_alg: str = "HS256"
    profile: str = ""
    preferred_chain: str = ""
    ca_bundle: str = ""
    email: str = ""
    staging: str = ""
    limits: Mapping[LimitKind, Limit | None] = field(default_factory=dict)


def parse_entries(given: Mapping[str, Any], warnings: list[str]) -> tuple[CaSettings, ...]:
    """Read ``acme_ca``, with the options that apply to all its entries, by name. Raises ``ConfigError``.

    ``warnings`` receives a sentence for each secret that is written out.
    """
    general = {name: given[f"acme_{name}"] for name in _GENERAL}
    of_others = general | dict.fromkeys(_BINDING, "")  # a binding is valid at one CA only
    entries, email = list[CaSettings](), parse_email(given["acme_email"])
    for text in given["acme_ca"]:
        entries.append(_entry(text, of_others if entries else general, email, warnings))
    if not entries:
        raise ConfigError("acme_ca: it is empty; write one or more CAs, the preferred one first")
    return tuple(entries)


def _entry(text: str, general: Mapping[str, str], email: str, warnings: list[str]) -> CaSettings:
    ca, *settings = (part.strip() for part in text.split(";"))
    own: dict[str, str] = {}
    for setting in filter(None, settings):
        name, equals, value = setting.partition("=")
        if name not in _KNOWN:
            # A setting without = is not shown: it may be a secret whose name was forgotten.
            shown = repr(name) if equals else "a setting without a ="
            raise ConfigError(f"acme_ca: {shown} is not a setting of a CA; write one of {', '.join(_KNOWN)}")
        own[name] = value
    merged = {name: own.get(name, general[name]) for name in _GENERAL}
    merged["eab_hmac_key"] = read_secret("acme_eab_hmac_key", merged["eab_hmac_key"], warnings)
    if bool(merged["eab_kid"]) != bool(merged["eab_hmac_key"]):
        raise ConfigError(f"acme_eab_kid and acme_eab_hmac_key: only one is set for {ca}; a CA gives them as a pair")
    if merged["ca_bundle"]:
        merged["ca_bundle"] = _bundle(merged["ca_bundle"])
    limits = {kind: parse_setting(kind, own[kind]) for kind in LimitKind if kind in own}
    algorithm = require_known("acme_ca: eab_alg", own.get("eab_alg", "HS256"), _EAB_ALGORITHMS)
    return CaSettings(ca=ca, eab_alg=algorithm, email=email, staging=own.get("staging", ""), limits=limits, **merged)


def _bundle(text: str) -> str:
    """Return the path of a file with certificates: without any, the CA would seem to be untrusted."""
    path = with_home(text)
    if not os.path.isfile(path):
        raise ConfigError(f"acme_ca_bundle: there is no file {text}; write the path of a PEM file")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise ConfigError(
            f"acme_ca_bundle: {text} holds no PEM certificates; write the path of a file that does"
        ) from None
    except OSError as error:
        raise ConfigError(f"acme_ca_bundle: {text} cannot be read: {error.strerror}") from None
    return path


def parse_email(text: str) -> str:
    """Return one e-mail address, without mailto:; empty if none is set. Raises ``ConfigError``."""
    local, at, domain = text.removeprefix("mailto:").strip().rpartition("@")
    if text and not (local and at and "." in domain and not any(c in text for c in " ,<>")):
        raise ConfigError(f"acme_email: {text!r} is not one e-mail address; write it as me@example.com")
    return f"{local}{at}{domain}"
