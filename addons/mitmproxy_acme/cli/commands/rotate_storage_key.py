"""``mitmproxy-acme rotate-storage-key``: encrypts every certificate and account with the newest key."""

import argparse
from collections import Counter
from contextlib import closing

from acme_storage import Storage, StorageError

from ...core.errors import ConfigError
from ...store.encryption import RecordCipher
from ...store.key_rotation import RotationOutcome, rotate
from .. import terminal
from ..environment import open_shared
from . import arguments

HELP = "encrypt all certificates and accounts with the first key of acme_storage_key or acme_account_storage_key"
_OUTCOMES = (RotationOutcome.RESEALED, RotationOutcome.CURRENT, RotationOutcome.UNREADABLE)


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments, except the options of the proxies."""
    arguments.add_json(command)


def run(chosen: argparse.Namespace) -> int:
    """Encrypt; return 0 if the newest key encrypts every record, else 1."""
    storage, sealing = _to_rotate(chosen)
    counts: Counter[RotationOutcome] = Counter()
    unreadable: list[dict[str, str]] = []
    failed = False
    with closing(storage):
        try:
            for step in rotate(storage, sealing):
                counts[step.outcome] += 1
                if step.outcome is RotationOutcome.UNREADABLE:
                    unreadable.append({"key": step.key, "why": step.why})
        except StorageError as error:
            terminal.remark(f"acme_storage: {error}")
            failed = True
    if chosen.json:
        terminal.say_document(
            {outcome.name.lower(): counts[outcome] for outcome in _OUTCOMES} | {"trouble": unreadable}
        )
    else:
        for record in unreadable:
            terminal.say(f"unreadable: {record['key']}: {record['why']}")
        terminal.say(", ".join(f"{outcome.value} {counts[outcome]}" for outcome in _OUTCOMES))
    return 1 if failed or unreadable else 0


def _to_rotate(chosen: argparse.Namespace) -> tuple[Storage, RecordCipher]:
    config = arguments.config_of(chosen)
    if not (config.storage_keys or config.account_storage_keys):
        raise ConfigError("acme_storage_key is not set; give the new key first, then the old keys")
    return open_shared(config, arguments.confdir_of(chosen)), RecordCipher.of(config, sealed_only=False)
