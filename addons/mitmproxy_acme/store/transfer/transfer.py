"""Transfer: every record that moves goes to another storage, while proxies write to both.

One pass looks at every record. Rounds follow that look at what proxies changed meanwhile, until one finds nothing: the
change feed names certificates, and the other kinds are small or are compared by their keys. A transfer can be killed
and repeated at any time; it copies what differs.

This module knows passes and rounds; it must not know how one record is copied, or who is told.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from acme_storage import Storage, StorageCorrupt, StorageUnavailable

from ...core.names import ServerName
from ..change_feed import ChangeFeed
from ..encryption import RecordCipher
from ..keys import (
    BACKOFFS_PREFIX,
    CALENDAR_PREFIX,
    CERTIFICATES_PREFIX,
    COMPROMISED_PREFIX,
    EXPIRED_PREFIX,
    RENEWAL_INFO_PREFIX,
    certificate_key,
    node_prefix,
    renewal_info_key,
)
from .kinds import MOVING
from .record_copier import RecordCopier
from .record_rules import rules_by_prefix
from .source_changes import SourceChanges
from .sources import Source, StorageSource, key_pages, missing_pages
from .steps import TROUBLE, WRITTEN, Step, StepOutcome

# A storage takes milliseconds for a call, most of it waiting.
_THREADS = 8
# Rounds that look for what changed meanwhile; more only chase proxies that write all the time.
_ROUNDS = 10
# So many failures in a row are the destination's (full, read-only), not the records'.
_FAILURES = 10
# Of these, a round looks for missing keys only: there may be 100,000, and the change feed names what was replaced.
_BY_KEY = (CALENDAR_PREFIX, EXPIRED_PREFIX, RENEWAL_INFO_PREFIX, CERTIFICATES_PREFIX)
# Proxies delete these when their reason ends: a copy of one must not outlive it.
_DELETED_EARLY = (COMPROMISED_PREFIX, BACKOFFS_PREFIX)


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """``dry`` writes nothing; ``overwrite`` replaces newer certificates and accounts at the destination."""

    dry: bool = False
    overwrite: bool = False


class Transfer:
    """One transfer to ``destination``. Use it from one thread. Every method blocks and raises ``StorageError``.

    ``feed`` is the source where it is a storage that proxies may use, None for a backup.
    """

    def __init__(
        self,
        source: Source,
        destination: Storage,
        cipher: RecordCipher,
        options: TransferOptions,
        *,
        feed: Storage | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._destination = destination
        self._options = options
        self._now = now
        self._changes = SourceChanges(feed) if feed is not None else None
        has_record = StorageSource(feed).has if feed is not None else lambda _: True
        rules = rules_by_prefix(cipher, has_record, now)
        self._copier = RecordCopier(source, destination, rules, cipher, now, dry=options.dry)
        self._announcer = ChangeFeed(destination, secrets.token_hex(4))
        self._has_nodes = False
        self._changed: dict[ServerName, float] = {}
        self._reported: set[str] = set()
        self._failures = 0
        self._written_early: dict[str, bytes] = {}  # key -> digest of what was written

    @classmethod
    def between(
        cls, source: Storage, destination: Storage, cipher: RecordCipher, options: TransferOptions
    ) -> "Transfer":
        """Return the transfer from one storage to another."""
        return cls(StorageSource(source), destination, cipher, options, feed=source)

    def run(self) -> Iterator[Step]:
        """Copy everything, and yield a step for each record; then what changed meanwhile, until nothing has.

        Raises ``StorageUnavailable`` if either storage is down: call it again to continue.
        """
        self._changed |= self._read_changes()  # before the pass, so that it names what the pass may miss
        for kind in MOVING:
            for page in self._source.pages(kind.prefix):
                yield from self._copy_page(page, overwrite=self._options.overwrite)
        if self._changes is None or self._options.dry:
            return
        for _ in range(_ROUNDS):
            steps = self.catch_up()
            yield from steps
            if not any(step.outcome in WRITTEN for step in steps):
                return

    def catch_up(self) -> list[Step]:
        """Copy what changed since the last call or pass.

        Returns what was written, and trouble that was not reported before. After ``StorageUnavailable`` call it again:
        nothing is forgotten.
        """
        self._changed |= self._read_changes()
        steps = list(self._round())
        self._changed = {}
        return steps

    def _read_changes(self) -> dict[ServerName, float]:
        return self._changes.read_new() if self._changes is not None else {}

    def _round(self) -> Iterator[Step]:
        for kind in MOVING:
            pages = self._source.pages(kind.prefix)
            if kind.prefix in _BY_KEY:
                pages = missing_pages(pages, key_pages(self._destination, kind.prefix))
            for page in pages:
                yield from self._only_news(self._copy_page(page))
        yield from self._only_news(self._copy_page([renewal_info_key(id) for id in self._changed]))
        yield from self._only_news(self._copy_page([certificate_key(id) for id in self._changed]))
        for id, at in self._changed.items():
            yield from self._remove_deleted(id, at)
        yield from self._remove_early()

    def _copy_page(self, keys: list[str], *, overwrite: bool = False) -> Iterator[Step]:
        """Copy the records of a page. What other threads have written when a storage goes down is yielded first."""
        self._has_nodes = bool(self._destination.keys(node_prefix(), limit=1))
        down: StorageUnavailable | None = None
        with ThreadPoolExecutor(_THREADS) as pool:
            copies = [pool.submit(self._copier.copy, key, overwrite=overwrite) for key in keys]
            try:
                for copy in copies:
                    if copy.cancelled():
                        continue
                    try:
                        step = copy.result()
                    except StorageUnavailable as error:
                        down = down or error
                        pool.shutdown(cancel_futures=True)  # waits for those under way
                        continue
                    if step is not None:
                        self._note(step)
                        yield step
            finally:
                pool.shutdown(cancel_futures=True)
        if down is not None:
            raise down

    def _note(self, step: Step) -> None:
        """Announce a certificate to the nodes of the destination, and count failures in a row."""
        self._failures = self._failures + 1 if step.outcome is StepOutcome.FAILED else 0
        if self._failures >= _FAILURES:
            raise StorageUnavailable(f"the destination stores nothing: {step.why}")
        if step.outcome in TROUBLE:
            self._reported.add(step.key)
        if step.outcome not in WRITTEN or self._options.dry:
            return
        if step.key.startswith(CERTIFICATES_PREFIX) and self._has_nodes:
            id = ServerName(step.key.removeprefix(CERTIFICATES_PREFIX))
            self._announcer.announce(id, self._now(), deleted=step.outcome is StepOutcome.REMOVED)
        if step.key.startswith(_DELETED_EARLY) and (written := self._destination.get(step.key)) is not None:
            self._written_early[step.key] = _digest(written)

    def _only_news(self, steps: Iterator[Step]) -> Iterator[Step]:
        known = frozenset(self._reported)
        for step in steps:
            if step.outcome in WRITTEN or (step.outcome in TROUBLE and step.key not in known):
                yield step

    def _remove_deleted(self, id: ServerName, at: float) -> Iterator[Step]:
        key = certificate_key(id)
        try:
            if self._source.read(key) is not None:
                return
        except StorageCorrupt:  # reported already
            return
        step = self._copier.remove(key, at)
        if step is not None:
            self._note(step)
            yield step

    def _remove_early(self) -> Iterator[Step]:
        """Delete what this transfer wrote, and a proxy has deleted at the source since."""
        if not self._written_early:
            return
        there = {key for prefix in _DELETED_EARLY for page in self._source.pages(prefix) for key in page}
        for key in self._written_early.keys() - there:
            written = self._written_early.pop(key)
            current = self._destination.get(key)
            if current is not None and _digest(current) == written and self._destination.swap(key, current, None):
                yield Step(key, StepOutcome.REMOVED)


def _digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=16).digest()


def count_keys(source: Source) -> int:
    """Return how many records a transfer looks at, for a progress bar. Raises ``StorageError``."""
    return sum(len(page) for kind in MOVING for page in source.pages(kind.prefix))
