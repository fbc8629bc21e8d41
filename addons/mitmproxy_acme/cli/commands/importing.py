"""``mitmproxy-acme import``: stores the certificates of other programs in the storage of the options.

This module knows the command's output and exit codes; ``cli.importers`` reads the sources and decides what to store.
"""

import argparse
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing

from acme_storage import Storage, StorageError

from ...ca import known_cas
from ...config.config import Config
from ...core.errors import AcmeError, ConfigError
from ...store.certificate_writer import CertificateWriter
from ...store.change_feed import ChangeFeed
from ...store.encryption import RecordCipher
from ...store.renewal_schedule import RenewalSchedule
from ...store.store import Store
from .. import terminal
from ..environment import open_shared, read_config
from ..importers.importer import Importer, ImportOutcome
from ..importers.item import FoundCertificate, ImportItem
from ..importers.sources import read_source
from . import arguments

HELP = "import the certificates of certbot, acme.sh, Caddy, Kong or lua-resty-acme"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments, except the options of the proxies."""
    command.add_argument(
        "source",
        metavar="SOURCE",
        help="certbot:FOLDER, acme.sh:FOLDER, caddy:FOLDER, or kong+URL with the URL of its Redis, Consul or Vault",
    )
    command.add_argument("--dry-run", action="store_true", help="show what would be imported, and write nothing")
    arguments.add_json(command, "one JSON object per line for each certificate")


def run(chosen: argparse.Namespace) -> int:
    """Import; return 0 if every certificate was usable, 1 if one was not, 2 if the import failed or ended early."""
    confdir = arguments.confdir_of(chosen)
    try:
        config = read_config(confdir, chosen.settings)
        if not config.active:
            raise ConfigError("no name may have a certificate; set acme_domains or acme_certificates")
        directories = [authority.directory for authority in known_cas.resolve_all(config.issuers)]
        known = [*directories, *(authority.directory for authority in known_cas.ALIASES.values())]
        with closing(open_shared(config, confdir)) as storage:
            items = read_source(chosen.source, known)
            importer = Importer(config, directories, _writer(storage, config), time.time(), dry=chosen.dry_run)
            return _import(importer, sorted(items, key=_order), json=chosen.json)
    except (AcmeError, StorageError) as error:
        terminal.remark(f"mitmproxy-acme import: {error}")
        if chosen.json:
            terminal.say_document({"error": str(error)})
        return 2


def _writer(storage: Storage, config: Config) -> CertificateWriter:
    return CertificateWriter(
        Store(storage, RecordCipher.of(config)), RenewalSchedule(storage), ChangeFeed(storage, secrets.token_hex(4))
    )


def _order(item: ImportItem) -> tuple[str, float]:
    """Sort by name, and for one name the best first: the others are then skipped."""
    return item.name, -item.certificate.not_after if isinstance(item, FoundCertificate) else 0.0


def _import(importer: Importer, items: Sequence[ImportItem], *, json: bool) -> int:
    """Import each item, print a line for each, and a summary."""
    counts: Counter[ImportOutcome] = Counter()
    others = 0
    imported = "would import" if importer.dry else ImportOutcome.IMPORTED.value
    summarize = terminal.remark if json else terminal.say
    for item in items:
        taken = importer.take(item)
        counts[taken.outcome] += 1
        others += taken.other_ca
        if json:
            outcome = taken.outcome.name.lower()
            terminal.say_document({"name": taken.name, "outcome": outcome, "dry_run": importer.dry, "what": taken.what})
        elif taken.outcome is ImportOutcome.IMPORTED:
            terminal.say(f"{imported} {taken.name}, {taken.what}")
        else:
            terminal.say(f"{taken.outcome.value} {taken.name}: {taken.what}")
    if others:
        summarize(
            f"{others} of them are from a CA that is not in acme_ca: they are replaced when a client asks for the "
            "name, managed ones when a proxy starts"
        )
    rest = ", ".join(f"{outcome.value} {counts[outcome]}" for outcome in (ImportOutcome.LEFT, ImportOutcome.UNUSABLE))
    summarize(f"{imported} {counts[ImportOutcome.IMPORTED]}, {rest}")
    return 1 if counts[ImportOutcome.UNUSABLE] else 0
