"""The terms of service of the CAs: asked of a person, once (RFC 8555 section 7.3.3).

This module knows where the terms are named, and how they are accepted; it must not know what follows.
"""

import time
from collections.abc import Iterable

from ..ca import directory_probe
from ..config.ca_settings import CaSettings
from ..core.errors import AcmeError, ConfigError
from . import terminal


def require_agreement(cas: Iterable[CaSettings]) -> None:
    """Return when a person has accepted the terms of each CA. Raises ``ConfigError`` if they are not accepted.

    Blocks while a person is asked, and while a CA is slow.
    """
    for entry in cas:
        try:
            terms = directory_probe.fetch(entry, time.time).terms_of_service
        except AcmeError as error:
            raise ConfigError(
                f"--agree-tos: the terms of service of {entry.ca} are not known, because it does not answer: {error}; "
                "add --agree-tos if you accept them"
            ) from None
        if terms:
            _ask(entry.ca, terms)


def _ask(ca: str, terms: str) -> None:
    if not terminal.is_asked_here():
        raise ConfigError(f"--agree-tos: {ca} has terms of service; read {terms}, then add --agree-tos")
    terminal.remark(f"{ca} has terms of service: {terms}")
    if not terminal.confirm("Do you accept them?"):
        raise ConfigError(f"--agree-tos: {ca} issues no certificate before you accept its terms of service")
