"""Preflight: what would keep certificates from coming, found out before a client does.

This module knows what to look at and what to advise; each look is small, and none changes anything but a probe in the
storage that it removes again.
"""

import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import acme_storage

from .. import options
from ..config import Config
from ..errors import AcmeError, ConfigError, Sealed
from ..issuing import keys, probe
from ..keeping.nodes import Nodes
from ..keeping.sealing import Sealing
from ..keeping.store import Store

_CLOCK_TOLERANCE = 60.0


class Outcome(Enum):
    PASS = "pass"  # noqa: S105  # an outcome, not a password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: ``what`` says what was seen and, unless it passed, what to do."""

    outcome: Outcome
    what: str


def inspect(settings: Mapping[str, Any], confdir: Path) -> Iterator[Finding]:
    """Yield findings as they are made; blocks for seconds where a CA is slow."""
    for name in settings:
        if name.startswith("acme_") and name not in options.NAMES:
            yield Finding(Outcome.WARN, f"{name} is no option of this addon and has no effect")
    ours = {name: value for name, value in settings.items() if name in options.NAMES}
    try:
        config = Config.from_options(ours)
        if config.account_key:
            keys.load_account_key(config.account_key)
    except ConfigError as error:
        yield Finding(Outcome.FAIL, str(error))
        return
    yield from _options(config, settings)
    yield from _storage(config, confdir)
    if config.orders:
        yield from _ca(config)


def _options(config: Config, settings: Mapping[str, Any]) -> Iterator[Finding]:
    for warning in config.warnings:
        yield Finding(Outcome.WARN, warning)
    if not config.active:
        yield Finding(Outcome.FAIL, "no name may have a certificate; set acme_domains or acme_certificates")
    else:
        names = sum(len(subject.names) for subject in config.managed)
        on_demand = "names on demand" if config.policy else "nothing on demand"
        yield Finding(Outcome.PASS, f"options are valid: {names} managed names, {on_demand}")
    if str(settings.get("block_global", True)).lower() != "false":
        advice = "block_global is on: a public CA cannot reach the proxy to validate; set block_global=false"
        yield Finding(Outcome.WARN, advice)


def _storage(config: Config, confdir: Path) -> Iterator[Finding]:
    key, value = f"probes/{secrets.token_hex(8)}", b"probe"
    try:
        storage = acme_storage.open_storage(config.storage, default_folder=confdir)
        written = storage.swap(key, None, value, ttl=60)
        right = written and storage.get(key) == value and not storage.swap(key, None, value)
        storage.delete(key)
        sealed = _sealed(storage, config)
        alone = not config.orders and not Nodes(storage).control_is_up()
        storage.close()
    except (ValueError, acme_storage.StorageError) as error:
        yield Finding(Outcome.FAIL, f"acme_storage: {error}")
        return
    if right:
        yield Finding(Outcome.PASS, "storage can be read, written and locked")
    else:
        yield Finding(Outcome.FAIL, "acme_storage: what was written does not come back, or is not locked")
    if sealed:
        yield Finding(Outcome.FAIL, sealed)
    if alone:
        yield Finding(
            Outcome.WARN, "no control node is up to order for this data node; start one with acme_role=control"
        )


def _sealed(storage: acme_storage.Storage, config: Config) -> str:
    """Say what is wrong with acme_storage_key, as far as one account and one certificate tell."""
    try:
        Store(storage, Sealing(config.storage_keys)).look_at_seals()
    except Sealed as error:
        return str(error)
    return ""


def _ca(config: Config) -> Iterator[Finding]:
    try:
        directory = probe.look_at(config, time.time())
    except AcmeError as error:
        yield Finding(Outcome.FAIL, str(error))
        return
    yield Finding(Outcome.PASS, f"the CA answers at {directory.url}")
    issuer = config.issuer
    if directory.needs_eab and not issuer.eab_kid:
        yield Finding(Outcome.FAIL, "the CA takes no account without acme_eab_kid and acme_eab_hmac_key")
    if issuer.profile and issuer.profile not in directory.profiles:
        offered = ", ".join(directory.profiles) or "none"
        yield Finding(Outcome.FAIL, f"acme_profile: the CA does not offer {issuer.profile!r}; it offers {offered}")
    if directory.terms_of_service:
        yield Finding(Outcome.PASS, f"its terms of service are at {directory.terms_of_service}")
    if directory.clock_ahead is not None and abs(directory.clock_ahead) > _CLOCK_TOLERANCE:
        way = "ahead of" if directory.clock_ahead > 0 else "behind"
        advice = f"the clock is {abs(directory.clock_ahead):.0f} s {way} the CA's; set it, or validity is misjudged"
        yield Finding(Outcome.WARN, advice)
