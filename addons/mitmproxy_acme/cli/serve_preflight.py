"""What ``serve`` checks before it starts: only what is wrong is printed, and it goes on where it can.

This module knows which checks a start is worth; ``diagnostics`` knows how each works.
"""

import queue
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from acme_storage import StorageError

from ..ca import known_cas
from ..config.ca_settings import CaSettings
from ..config.config import Config
from ..core.errors import RecordRefused
from ..diagnostics import listen_check
from ..diagnostics.finding import Finding, Severity
from ..diagnostics.listen_check import ListenPort
from ..diagnostics.preflight import CheckTargets, inspect
from ..store.encryption import RecordCipher
from ..store.store import Store
from . import terminal
from .environment import open_shared

_WITHIN = 10.0  # seconds for CAs and resolvers; a start should not wait for the slowest of them


@dataclass(frozen=True, slots=True)
class StoredState:
    """What the storage has already: ``new_cas`` are those without an account.

    ``complete`` says that each managed certificate is stored and valid, so that a start orders nothing.
    """

    new_cas: tuple[CaSettings, ...]
    complete: bool

    @classmethod
    def read(cls, config: Config, confdir: Path) -> Self:
        """Read it; a storage that cannot be read, and one in memory, has nothing.

        Raises ``ConfigError`` for a wrong URL.
        """
        cas = config.issuers if config.orders else ()
        if config.storage.lower().startswith("memory:"):
            return cls(cas, complete=False)
        with closing(open_shared(config, confdir)) as storage:
            store = Store(storage, RecordCipher.of(config))
            try:
                new = [entry for entry in cas if store.account_uri(known_cas.resolve(entry).directory) is None]
                return cls(tuple(new), complete=not new and _is_complete(config, store, time.time()))
            except (StorageError, RecordRefused):
                return cls(cas, complete=False)


def _is_complete(config: Config, store: Store, now: float) -> bool:
    stored = (store.slot(subject.id).certificate for subject in config.managed)
    return all(certificate is not None and certificate.not_after > now for certificate in stored)


def ports_are_available(ports: list[ListenPort]) -> bool:
    """Print what is wrong with the ports, and return whether a start makes sense."""
    found = list(listen_check.inspect(ports))
    for finding in found:
        _print(finding)
    return not found


def report(settings: Mapping[str, Any], confdir: Path) -> None:
    """Print what is wrong with the options, the storage, the CA and DNS, as far as it is known within 10 s."""
    for finding in _within(_WITHIN, settings, confdir):
        if finding.outcome is not Severity.PASS:
            _print(finding)


def _within(seconds: float, settings: Mapping[str, Any], confdir: Path) -> Iterator[Finding]:
    found: queue.SimpleQueue[Finding | None] = queue.SimpleQueue()

    def check() -> None:
        try:
            with closing(inspect(settings, confdir, CheckTargets(tries_ports=False))) as findings:
                for finding in findings:
                    found.put(finding)
        finally:
            found.put(None)

    threading.Thread(target=check, name="acme preflight", daemon=True).start()
    deadline = time.monotonic() + seconds
    try:
        while (finding := found.get(timeout=max(deadline - time.monotonic(), 0.0))) is not None:
            yield finding
    except queue.Empty:
        terminal.remark("warn  the rest of the check takes too long here; mitmproxy-acme check does all of it")


def _print(finding: Finding) -> None:
    terminal.remark(f"{finding.outcome.value:4}  {finding.what}")
