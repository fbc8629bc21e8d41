"""Backoff registry: what failed, in which scope, and until when it is not tried again.

    NAME        at every CA: the CA could not validate it, or will not issue for it
    CA          by its directory URL, for every name: it is down, or refuses our settings there
    NAME at CA  one CA will not take this name for now: its rate limits, a CAA record that bars it, or what it issues;
                or it took an order and did not finish it, or delivered what clients do not accept, which no name can
                mend. Where that happens to a second name, with none issued between, the CA as a whole is not asked for
                a while, and another is asked if there is one

This module knows backoffs in memory and in storage; it must not know how an order is made. A CA may be asked for a
name while none of the three is active; nothing is ordered while no CA may be asked.
"""

import contextlib
import logging
from collections.abc import Callable, Mapping
from functools import partial

from acme_storage import StorageError

from ...config.config import Config
from ...core.backoff import BACKOFF_MEMORY, Backoff
from ...core.errors import BackingOff, ClockDiffers, IssuanceError, Unfinished
from ...core.lru_cache import LruCache
from ...core.names import ServerName, Subject
from ...core.renewal import DAY, describe_duration, is_in_time
from ...core.structured_logging import fields
from ...core.thread_pools import ThreadPools
from ...store.keys import key_part, name_in_scope, name_scope
from ...store.new_names import NewNames
from ...store.store import Store
from .failure_log import FailedAttempt, FailureLog
from .failure_scope import OF_ORDERS, OF_THIS_NODE, is_at_one_ca, is_of_ca
from .waits_of_other_clocks import WaitsOfOtherClocks

logger = logging.getLogger(__name__)

_REMEMBERED = 10_000
# Seconds. The longest that the backoff of a whole CA keeps a name without a certificate from it, whatever the CA asks.
_LONGEST_WITHOUT = DAY


class BackoffRegistry:
    """The backoffs of names and of CAs (by directory URL). Use it from one event loop.

    A name has one, whatever kind of key was ordered: what the CA could not validate, it cannot validate for another.
    They are kept in storage, so that they outlive a restart and hold for every node. Those that are ``OF_THIS_NODE``
    are kept in memory only.
    """

    def __init__(
        self,
        config: Config,
        directories: tuple[str, ...],
        store: Store,
        threads: ThreadPools,
        now: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        """``directories`` are the URLs of the CAs of the options."""
        self._config = config
        self._directories = directories
        self._store = store
        self._threads = threads
        self._now = now
        self._draw = draw
        self._log, self._new_names, self._clocks = FailureLog(), NewNames(now), WaitsOfOtherClocks(_REMEMBERED, now)
        self._known: LruCache[str, Backoff] = LruCache(_REMEMBERED)
        # What ``reset`` removed: it keeps no name from being tried, and yet the name has failed.
        self._overridden: LruCache[str, Backoff] = LruCache(_REMEMBERED)
        # By directory URL the name whose order that CA did not finish, if it has issued nothing since.
        self._unfinished: dict[str, ServerName] = {}
        # When the certificate ends that a name has while it is to be renewed (Unix seconds).
        self._served: LruCache[str, float] = LruCache(_REMEMBERED)

    def note_served(self, subject: Subject, until: float) -> None:
        """Let no backoff of a whole CA outlast the certificate that the name has until then (Unix seconds)."""
        self._served.put(subject.name, until)

    def is_available(self, subject: Subject, directory: str) -> bool:
        """Say whether that CA may be asked for the name now, as far as this process knows: no storage, no wait."""
        return _longest(partial(self._blocking, subject.name), subject.name, directory) is None

    def is_backing_off(self, subject: Subject, directory: str) -> bool:
        """Say whether that CA is asked nothing about the name, though it may be asked for an order."""
        return _longest(self._active_in, subject.name, directory) is not None

    def has_failed(self, subject: Subject) -> bool:
        """Say whether the name itself has failed since its last certificate, though it may be tried again now.

        As far as this process knows after ``load``: no storage, no wait.
        """
        return any(remembered.get(subject.name) is not None for remembered in (self._known, self._overridden))

    def active_backoff(self, subject: Subject) -> BackingOff | None:
        """Return why no CA may be asked now, as far as this process knows: no storage, no wait."""
        backoff = _soonest(partial(self._blocking, subject.name), subject.name, self._directories)
        return self._refusal(subject, backoff) if backoff is not None else None

    def active_backoff_at(self, subject: Subject, directory: str) -> BackingOff | None:
        """Return why that CA may not be asked now; None exactly where ``is_available``."""
        backoff = _longest(partial(self._blocking, subject.name), subject.name, directory)
        return self._refusal(subject, backoff) if backoff is not None else None

    def stopped(self) -> Backoff | None:
        """Return why no name at all can be ordered now, until the first CA may be asked again; None where one may."""
        backoffs = [self._active_in(directory) for directory in self._directories]
        active = [backoff for backoff in backoffs if backoff is not None]
        return min(active, key=_until) if len(active) == len(backoffs) else None

    def of_ca(self, directory: str, stored: Mapping[str, Backoff]) -> Backoff | None:
        """Return the backoff of a whole CA, from here or from ``stored`` (by scope); None where it has none."""
        return self._latest(stored, directory)

    def of_name(self, id: ServerName, stored: Mapping[str, Backoff]) -> Backoff | None:
        """Return what keeps a name from every CA, from here or from ``stored`` (by scope). Reads no other name.

        None for a name that only waits until a CA works again. A data node does not know which CAs the cluster asks:
        there it is the backoff at any of them.
        """
        read = partial(self._latest, stored)
        if not self._config.orders:
            return read(id) or next((read(scope) for scope in stored if scope.startswith(f"{id}@")), None)
        own = (id, *(name_scope(id, directory) for directory in self._directories))
        return _soonest(read, id, self._directories) if any(read(scope) for scope in own) else None

    def of_names(self, stored: Mapping[str, Backoff]) -> dict[ServerName, Backoff]:
        """Return the same for every name that has any."""
        if not self._config.orders:
            active = ((scope, self._active(backoff)) for scope, backoff in stored.items())
            return {id: backoff for scope, backoff in active if backoff and (id := name_in_scope(scope)) is not None}
        ids = {id for scope in (*stored, *dict(self._known.items())) if (id := name_in_scope(scope)) is not None}
        found = {id: self.of_name(id, stored) for id in ids}
        return {id: backoff for id, backoff in found.items() if backoff is not None}

    def _latest(self, stored: Mapping[str, Backoff], scope: str) -> Backoff | None:
        found = stored.get(key_part(scope))
        return self._active_in(scope) or (self._active(self._clocks.correct(scope, found)) if found else None)

    async def load(self, subject: Subject) -> None:
        """Read what other nodes stored about the name, and about the CAs. Raises ``StorageError``."""
        self.remember(await self._threads.storage(self.read, subject))

    def remember(self, stored: Mapping[str, Backoff]) -> None:
        """Take over what ``read`` found."""
        for scope, backoff in stored.items():
            self._known.put(scope, self._clocks.correct(scope, backoff))

    def read(self, subject: Subject) -> Mapping[str, Backoff]:
        """Return the backoffs that are stored for a name, at all CAs and at each, by their scopes. Blocks."""
        stored = ((scope, self._store.backoff(scope)) for scope in self._scopes(subject, self._directories))
        return {scope: backoff for scope, backoff in stored if backoff is not None}

    async def record(self, subject: Subject, error: IssuanceError, attempt: FailedAttempt) -> Backoff:
        """Count a failure, and return the backoff that follows.

        One that comes while its scope is backing off already (of many orders that are under way when a CA goes down)
        is not counted again. A renewal is tried again while its certificate is valid (``Waits.next_backoff``); where
        the whole CA backs off for longer, the failure is counted for the name alone.
        """
        scope = self._scope(subject, error, attempt.directory)
        if (active := self._active_in(scope)) is not None:
            if self._blocking(subject.name, scope) is not None:
                return active
            if self._served.get(subject.name) is not None:
                scope = name_scope(subject.name, attempt.directory)
        waits = self._config.fail_backoff
        if is_of_ca(error) or scope == attempt.directory or isinstance(error, Unfinished):
            waits = waits.for_ca()
        backoff = waits.next_backoff(
            None if isinstance(error, ClockDiffers) else self._known.get(scope),  # a clock is set right at any time
            str(error),
            now=self._now(),
            draw=self._draw(),
            at_least=error.retry_after or 0.0,
            served_until=attempt.served_until,
        )
        self._known.put(scope, backoff)
        self._log.log(subject, error, attempt, backoff, self._now())
        if not isinstance(error, OF_THIS_NODE):
            new = attempt.new and scope != attempt.directory
            ttl = self._new_names.time_to_live(scope, backoff) if new else BACKOFF_MEMORY
            if ttl is not None:
                await self._save(scope, backoff, ttl)
        return backoff

    def defer(self, subject: Subject, reason: str, until: float, attempt: FailedAttempt) -> None:
        """Ask one CA no order for the name until then, though nothing has failed: in this process only."""
        scope = name_scope(subject.name, attempt.directory)
        previous = self._known.get(scope)
        then = describe_duration(until - self._now())
        then = f"trying {attempt.following}" if attempt.following else f"next attempt in {then}"
        logger.warning("%s: not ordered: %s; %s", subject, reason, then)
        self._known.put(scope, Backoff(previous.failures if previous else 0, until, reason, since=self._now()))

    async def override(self, subject: Subject) -> None:
        """Let a name be tried again at once, as a person asks: at the CAs too, where every CA backs off.

        This process remembers all the same that the name has failed. Raises ``StorageError``.
        """
        if not self._config.orders:  # a control node clears what is stored, when it is asked for the person
            for scope in self._scopes(subject, self._directories):
                self._known.forget(scope)
            return
        await self.reset(subject)
        await self.load(subject)
        if self.active_backoff(subject) is not None:
            for directory in self._directories:
                await self._forget(directory)

    async def reset(self, subject: Subject) -> None:
        """Let a name be tried again at once, unless a whole CA backs off. Raises ``StorageError``."""
        if failed := await self._threads.storage(self._store.backoff, subject.name) or self._known.get(subject.name):
            self._overridden.put(subject.name, failed)
        for scope in (subject.name, *(name_scope(subject.name, directory) for directory in self._directories)):
            await self._forget(scope)

    async def _forget(self, scope: str) -> None:
        self._known.forget(scope)
        await self._threads.storage(self._store.delete_backoff, scope)

    async def record_success(self, subject: Subject, directory: str) -> bool:
        """Forget the failures before a certificate of that CA. Say whether the CA had failed."""
        had_failed = self._known.get(directory) is not None
        self._unfinished.pop(directory, None)
        self._overridden.forget(subject.name)
        self._served.forget(subject.name)
        for scope in self._scopes(subject, (directory,)):
            if self._known.get(scope) is not None:
                self._known.forget(scope)
                with contextlib.suppress(StorageError):  # it expires; the certificate is what counts
                    await self._threads.storage(self._store.delete_backoff, scope)
        return had_failed

    def _scope(self, subject: Subject, error: IssuanceError, directory: str) -> str:
        """Return what backs off: the whole CA where a second name hangs there, else each new one would wait for it."""
        if is_of_ca(error) or (isinstance(error, OF_ORDERS) and self._is_second(subject, directory)):
            return directory
        return name_scope(subject.name, directory) if is_at_one_ca(error) else subject.name

    def _is_second(self, subject: Subject, directory: str) -> bool:
        """Note that a CA hangs with a name's order; say whether another name's did before, and there is another CA."""
        before = self._unfinished.setdefault(directory, subject.name)
        return before != subject.name and len(self._directories) > 1

    def _scopes(self, subject: Subject, directories: tuple[str, ...]) -> list[str]:
        at = (name_scope(subject.name, directory) for directory in directories)
        return [*directories, subject.name, *at]

    async def _save(self, scope: str, backoff: Backoff, ttl: float) -> None:
        try:
            await self._threads.storage(self._store.save_backoff, scope, backoff, ttl)
        except StorageError as error:
            logger.warning(
                "the backoff of %s is not stored, and ends with this process: %s",
                scope,
                error,
                extra=fields("backoff_unsaved", name=scope, reason=str(error)),
            )

    def _blocking(self, name: str, scope: str) -> Backoff | None:
        """Return the backoff of a scope if it keeps a name from being ordered now.

        That of a whole CA, whose certificates end at different times, keeps a name that is served only while there is
        time for it, and a name without a certificate for a day.
        """
        backoff, now = self._active_in(scope), self._now()
        if backoff is None or scope not in self._directories:
            return backoff
        if (left := (self._served.get(name) or now) - now) > 0:
            return backoff if is_in_time(backoff.until - now, left) else None
        return backoff if not backoff.since or now < backoff.since + _LONGEST_WITHOUT else None

    def _active_in(self, scope: str) -> Backoff | None:
        return self._active(self._clocks.correct(scope, known)) if (known := self._known.get(scope)) else None

    def _active(self, backoff: Backoff | None) -> Backoff | None:
        longest = self._config.fail_backoff.longest
        return backoff if backoff is not None and 0 < backoff.until - self._now() <= longest else None

    def _refusal(self, subject: Subject, backoff: Backoff) -> BackingOff:
        wait = describe_duration(backoff.until - self._now())
        return BackingOff(f"{subject}: retry in {wait}: {backoff.reason}", until=backoff.until)


def _soonest(find: Callable[[str], Backoff | None], id: str, directories: tuple[str, ...]) -> Backoff | None:
    """Return the backoff that ends first of those that keep a name from each CA; None where one may be asked."""
    found = [_longest(find, id, directory) for directory in directories]
    active = [backoff for backoff in found if backoff is not None]
    return min(active, key=_until) if len(active) == len(found) else None


def _longest(find: Callable[[str], Backoff | None], id: str, directory: str) -> Backoff | None:
    """Return the backoff that ends last of those that keep a name from one CA; None where none does."""
    found = (find(scope) for scope in (id, directory, name_scope(id, directory)))
    return max((backoff for backoff in found if backoff is not None), key=_until, default=None)


def _until(backoff: Backoff) -> float:
    return backoff.until
