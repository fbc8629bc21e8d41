"""``mitmproxy-acme restore``: copies the records of a backup into a storage."""

import argparse
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from acme_storage import StorageError

from ...store.encryption import RecordCipher
from ...store.transfer.backup import BackupSource
from ...store.transfer.encrypted_file import EncryptedReader, key_from
from ...store.transfer.transfer import Transfer, TransferOptions
from .. import terminal
from ..backup_file import open_backup
from ..passphrase import read_passphrase
from ..storage_urls import open_named
from ..transfer_report import TransferReport
from . import arguments

HELP = "copy the records of a backup into a storage, without replacing newer ones"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments, except the options of the proxies."""
    command.add_argument("file", metavar="FILE", help="what mitmproxy-acme backup wrote")
    command.add_argument("--to", metavar="URL", help="the storage to restore to (default: acme_storage)")
    arguments.add_passphrase(command)
    arguments.add_transfer(command)


def run(chosen: argparse.Namespace) -> int:
    """Restore; return 0 if the storage has everything, 1 if a record or the storage failed, or the file is damaged."""
    config, confdir = arguments.config_of(chosen), arguments.confdir_of(chosen)
    url, argument = chosen.to or config.storage, "--to" if chosen.to else "acme_storage"
    with open_backup(Path(chosen.file)) as file:
        passphrase = read_passphrase(chosen.key, new=False)
        backup = BackupSource(EncryptedReader(file, key_from(passphrase)))
        made = f"{datetime.fromtimestamp(backup.facts.created, UTC):%Y-%m-%d %H:%M} UTC"
        terminal.remark(f"{chosen.file}: {backup.facts.records} records of {made}")
        options = TransferOptions(dry=chosen.dry_run, overwrite=chosen.overwrite)
        with closing(open_named(argument, url, confdir)) as storage:
            cipher = RecordCipher.of(config, sealed_only=False)
            return _restore(chosen, Transfer(backup, storage, cipher, options), backup.facts.records)


def _restore(chosen: argparse.Namespace, transfer: Transfer, total: int) -> int:
    error = ""
    with terminal.Progress(total, "record") as progress:
        report = TransferReport(progress, json=chosen.json, dry=chosen.dry_run, copied="restored")
        try:
            for step in transfer.run():
                report.add(step)
        except StorageError as trouble:
            error = str(trouble)
    report.summarize(error)
    if error:
        terminal.remark(f"mitmproxy-acme restore: {error}; run the command again to continue")
    elif chosen.dry_run:
        terminal.remark("dry run: nothing was written")
    return 1 if error or report.failed else 0
