"""``mitmproxy-acme backup``: writes certificates, accounts and what belongs to them to one encrypted file."""

import argparse
from contextlib import closing
from pathlib import Path

from acme_storage import Storage, StorageError

from ...store.encryption import RecordCipher
from ...store.transfer.backup import write_backup
from ...store.transfer.encrypted_file import EncryptedWriter, key_from
from ...store.transfer.sources import StorageSource
from ...store.transfer.transfer import count_keys
from .. import terminal
from ..backup_file import new_backup
from ..passphrase import read_passphrase
from ..storage_urls import open_named
from ..transfer_report import TransferReport
from . import arguments

HELP = "write certificates, accounts, schedule and limits to one encrypted file"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments, except the options of the proxies."""
    command.add_argument("file", metavar="FILE", help="readable by its owner only; an earlier backup is replaced")
    command.add_argument("--from", dest="source", metavar="URL", help="the storage to read (default: acme_storage)")
    arguments.add_passphrase(command)
    arguments.add_json(command, "one JSON object per line for each record, and a last one with the counts")


def run(chosen: argparse.Namespace) -> int:
    """Back up; return 0 if every record is in the file, 1 if one was broken or the storage failed."""
    config, confdir = arguments.config_of(chosen), arguments.confdir_of(chosen)
    url, argument = chosen.source or config.storage, "--from" if chosen.source else "acme_storage"
    passphrase = read_passphrase(chosen.key, new=True)
    with closing(open_named(argument, url, confdir)) as storage:
        report = _write(chosen, storage, RecordCipher.of(config, sealed_only=False), passphrase)
    return 1 if report is None or report.failed else 0


def _write(
    chosen: argparse.Namespace, storage: Storage, cipher: RecordCipher, passphrase: str
) -> TransferReport | None:
    """Write the file; None if the storage failed, and then the earlier file is still there."""
    total = count_keys(StorageSource(storage)) if terminal.shows_progress() else None
    with terminal.Progress(total, "record") as progress:
        report = TransferReport(progress, json=chosen.json, copied="backed up")
        try:
            with new_backup(Path(chosen.file)) as file:
                for step in write_backup(storage, cipher, EncryptedWriter(file, key_from(passphrase))):
                    report.add(step)
        except StorageError as error:
            terminal.remark(f"mitmproxy-acme backup: {error}; {chosen.file} was not written")
            if chosen.json:
                terminal.say_document({"error": str(error)})
            return None
    report.summarize()
    terminal.remark(f"wrote {chosen.file}; keep its passphrase, and the acme_storage_key if you use one")
    return report
