"""``mitmproxy-acme copy``: copies certificates, accounts and what belongs to them to another storage."""

import argparse
import time
from contextlib import closing
from pathlib import Path

from acme_storage import StorageError, StorageUnavailable

from ...config.config import Config
from ...store.encryption import RecordCipher
from ...store.transfer.sources import StorageSource
from ...store.transfer.transfer import Transfer, TransferOptions, count_keys
from .. import terminal
from ..storage_urls import open_named, require_different, without_secrets
from ..transfer_report import TransferReport
from . import arguments

HELP = "copy certificates, accounts, schedule and limits to another storage, while proxies run"
_FOLLOW_EVERY = 3.0


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments, except the options of the proxies."""
    command.add_argument("--to", required=True, metavar="URL", help="the storage to copy to, as in acme_storage")
    command.add_argument(
        "--from", dest="source", metavar="URL", help="the storage to copy from (default: acme_storage)"
    )
    command.add_argument(
        "--follow", action="store_true", help="then go on copying what proxies write, until Ctrl-C ends it"
    )
    arguments.add_transfer(command)


def run(chosen: argparse.Namespace) -> int:
    """Copy; return 0 if the destination has everything, 1 if a record or a storage failed."""
    config, confdir = arguments.config_of(chosen), arguments.confdir_of(chosen)
    url = chosen.source or config.storage
    require_different(url, chosen.to, confdir)
    cipher = RecordCipher.of(config, sealed_only=False)
    options = TransferOptions(dry=chosen.dry_run, overwrite=chosen.overwrite)
    with (
        closing(open_named("--from" if chosen.source else "acme_storage", url, confdir)) as source,
        closing(open_named("--to", chosen.to, confdir)) as destination,
    ):
        terminal.remark(f"from {without_secrets(url)} to {without_secrets(chosen.to)}")
        code = _copy(chosen, Transfer.between(source, destination, cipher, options), StorageSource(source))
    if code == 0 and not chosen.json:
        _advise(chosen, config, url, confdir)
    return code


def _copy(chosen: argparse.Namespace, transfer: Transfer, source: StorageSource) -> int:
    total = count_keys(source) if terminal.shows_progress() else None
    with terminal.Progress(total, "record") as progress:
        report = TransferReport(progress, json=chosen.json, dry=chosen.dry_run)
        error = ""
        try:
            for step in transfer.run():
                report.add(step)
            if chosen.follow and not chosen.dry_run:
                _follow(transfer, report, progress)
        except StorageError as trouble:
            error = str(trouble)
    report.summarize(error)
    if error:
        terminal.remark(f"mitmproxy-acme copy: {error}; run the command again to continue")
    return 1 if error or report.failed else 0


def _follow(transfer: Transfer, report: TransferReport, progress: terminal.Progress) -> None:
    """Copy what changes, until Ctrl-C; wait for a storage that is down."""
    progress.remark("following what proxies write; Ctrl-C ends this")
    down = ""
    try:
        while True:
            try:
                for step in transfer.catch_up():
                    report.add(step, each=True)
                down = ""
            except StorageUnavailable as error:
                if str(error) != down:
                    progress.remark(f"waiting: {error}")
                down = str(error)
            time.sleep(_FOLLOW_EVERY)
    except KeyboardInterrupt:
        return


def _advise(chosen: argparse.Namespace, config: Config, url: str, confdir: Path) -> None:
    if chosen.dry_run:
        terminal.remark("dry run: nothing was written")
        return
    if config.storage == chosen.to:
        terminal.remark("when the last proxy uses the new storage, run this once more")
        return
    source, destination = without_secrets(url), without_secrets(chosen.to)
    terminal.remark(f"next: set acme_storage={destination} on every node, with its login if it needs one; then run")
    terminal.remark(f"  mitmproxy-acme copy --from {source} --to {destination}")
    terminal.remark("once more: it copies what the proxies wrote meanwhile")
