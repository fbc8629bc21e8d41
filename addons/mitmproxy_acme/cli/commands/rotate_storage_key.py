"""``mitmproxy-acme rotate-storage-key``: every certificate and account, sealed by the newest key."""

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

HELP = "seal all certificates and accounts by the first key of acme_storage_key, or of acme_account_storage_key"
_SAID = (RotationOutcome.RESEALED, RotationOutcome.CURRENT, RotationOutcome.UNREADABLE)


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Say what the command takes beside the options."""
    arguments.add_json(command)


def run(chosen: argparse.Namespace) -> int:
    """Seal; return 0 where all is sealed by the newest key, 1 where something is not."""
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
        terminal.say_document({outcome.name.lower(): counts[outcome] for outcome in _SAID} | {"trouble": unreadable})
    else:
        for record in unreadable:
            terminal.say(f"not readable: {record['key']}: {record['why']}")
        terminal.say(", ".join(f"{outcome.value} {counts[outcome]}" for outcome in _SAID))
    return 1 if failed or unreadable else 0


def _to_rotate(chosen: argparse.Namespace) -> tuple[Storage, RecordCipher]:
    config = arguments.config_of(chosen)
    if not (config.storage_keys or config.account_storage_keys):
        raise ConfigError("acme_storage_key is not set; give the new key first, then those that sealed until now")
    return open_shared(config, arguments.confdir_of(chosen)), RecordCipher.of(config, sealed_only=False)
