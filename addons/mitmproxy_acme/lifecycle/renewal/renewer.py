"""Renewer: when to check which certificate, and whether it is renewed then.

It also obtains the managed certificates at the start, and again until it succeeds. On a data node it does no more than
that: control nodes renew. This module knows the renewal schedule, the CA's suggestions and the clock; it must not know
how a certificate is obtained.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from acme_storage import StorageError

from ...config.config import Config
from ...core.certificate import Certificate
from ...core.errors import AcmeError, BackingOff, IssuanceError, NoControlNode, RecordRefused
from ...core.events import CertificateRemoved, ChangedElsewhere, CheckScheduled, Event
from ...core.names import ServerName, Subject
from ...core.renewal import (
    ASK_AGAIN_DEFAULT,
    DAY,
    RenewalInfo,
    first_check_at,
    in_time,
    is_expiring,
    renew_at,
    spread_after,
)
from ...core.single_flight import SingleFlight
from ...core.thread_pools import ThreadPools
from ...store.renewal_schedule import RenewalSchedule, ScheduledCheck
from ...store.store import Store
from ..cache import Cache
from ..certificate_policy import CertificatePolicy
from ..certificate_provider import CertificateProvider
from ..ordering.backoff_registry import BackoffRegistry
from ..ordering.obtainer import Obtainer
from ..ordering.order_request import OrderRequest, Requester
from ..storage_health import StorageHealth
from .due_checks import MOST_READ, DueChecks
from .expiry_warning import ExpiryWarning
from .idle_names import IdleNames
from .renewal_windows import RenewalWindows
from .unlisted_checks import UnlistedChecks

logger = logging.getLogger(__name__)

# Checks at once: enough to keep the CA's four threads busy.
_AT_ONCE = 8
# Seconds. The longest rest between two reads of the schedule: other nodes write there too, and the monotonic clock that
# measures a rest stops while a laptop sleeps.
_LONGEST_REST = 30.0
_LEAST_WAIT = 60.0
# And the shortest, where a round reads more entries than these. Where a CA is asked every six hours, one of 100,000
# certificates is due five times a second; to read the schedule for each would keep a thread busy.
_MANY, _REST_AFTER_MANY = 100, 3.0
_ASK_PERMISSION_AGAIN = 3_600.0
# Seconds by which a clock is set back between two rounds without harm: what waits comes as much later.
_SET_BACK = 60.0


class Renewer:
    """Renews the certificates of one node. ``run`` never returns; cancel it, and the orders under way go on.

    Use it from one event loop, and subscribe ``happened`` to the node's events.
    """

    def __init__(
        self,
        *,
        config: Config,
        provider: CertificateProvider,
        obtainer: Obtainer,
        policy: CertificatePolicy,
        windows: RenewalWindows,
        backoffs: BackoffRegistry,
        cache: Cache,
        store: Store,
        schedule: RenewalSchedule,
        due: DueChecks,
        idle: IdleNames,
        unlisted: UnlistedChecks,
        warning: ExpiryWarning,
        threads: ThreadPools,
        health: StorageHealth,
        now: Callable[[], float],
    ) -> None:
        self._config, self._policy = config, policy
        self._provider, self._obtainer = provider, obtainer
        self._windows, self._backoffs = windows, backoffs
        self._cache, self._store = cache, store
        self._schedule, self._due, self._unlisted = schedule, due, unlisted
        self._idle, self._warning = idle, warning
        self._threads, self._health = threads, health
        self._now = now
        # Managed certificates that are not stored yet, and when to try for them (Unix seconds).
        self._missing: dict[Subject, float] = dict.fromkeys(config.managed, 0.0)
        self._checks: SingleFlight[ServerName, None] = SingleFlight("check")
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._woken = asyncio.Event()
        self._next = self._round_at = 0.0
        self._keys_verified = self._read_many = False

    async def run(self) -> None:
        """Begin what is due, rest, and read the schedule again."""
        while True:
            self._next = math.inf  # the round may miss what is scheduled while it reads
            try:
                self._next = await self._round()
            except Exception:  # logged, so that one fault does not end all renewals
                logger.exception("the renewal round failed")
                self._next = self._now() + _LONGEST_REST
            if self._read_many:
                await asyncio.sleep(_REST_AFTER_MANY)
            rest = min(self._next - self._now(), _LONGEST_REST)  # none where it is due already
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), rest)
            self._woken.clear()

    async def close(self) -> None:
        """End the checks; an order that one began goes on."""
        await self._checks.cancel()

    def _scheduled(self, at: float) -> None:
        if at < self._next:
            self._woken.set()

    def happened(self, event: Event) -> None:
        """Wake for an earlier check, and obtain a managed certificate again that was revoked or deleted.

        What another node did may be a deletion: the storage tells.
        """
        match event:
            case CheckScheduled():
                self._scheduled(event.at)
                return
            case CertificateRemoved():
                changed = frozenset({event.id})
            case ChangedElsewhere():
                changed = event.ids
            case _:
                return
        subjects = (self._config.subject(id) for id in changed)
        if managed := [subject for subject in subjects if subject is not None and subject.managed]:
            self._missing.update(dict.fromkeys(managed, self._now()))
            self._woken.set()

    async def _round(self) -> float:
        """Begin every check that is due; return when the next one is (Unix seconds)."""
        now = self._now()
        if now < self._round_at - _SET_BACK:
            # By the wrong clock they wait too long, or ended and left the memory. The backoffs know what has to wait.
            self._missing = dict.fromkeys(self._config.managed, now)
        self._round_at = now
        for subject in [subject for subject, at in self._missing.items() if at <= now]:
            self._begin(subject.id, partial(self._obtain_managed, subject))
        try:
            await self._verify_keys()
            entries = await self._threads.storage(self._due.read, now, now + _LONGEST_REST) if self._has_room else []
            overdue = await self._cache.refresh()
        except StorageError as error:
            self._health.trouble(error)
            return now + _LONGEST_REST
        unlisted = self._unlisted.find(overdue, entries, now) if self._has_room else []
        self._read_many = len(entries) > _MANY or not self._has_room
        for entry in entries:
            if entry.at <= now and self._due.concern_us(entry, now):
                self._begin(entry.id, partial(self._check_listed, entry))
        for entry in unlisted:
            self._begin(entry.id, partial(self._check, entry))
        if self._due.are_more_listed:
            return now
        coming = [at for at in (*self._missing.values(), *(entry.at for entry in entries)) if at > now]
        return min(coming, default=now + _LONGEST_REST)

    async def _verify_keys(self) -> None:
        """Log a wrong ``acme_storage_key`` at the start, and not when the first visitor comes."""
        if not self._keys_verified:
            with contextlib.suppress(RecordRefused):  # it is logged where it is read
                await self._threads.storage(self._store.verify_keys, accounts=self._config.orders)
            self._keys_verified = True

    @property
    def _has_room(self) -> bool:
        """Whether to read the schedule: never on a data node, and not while enough checks wait for their turn."""
        return self._config.orders and len(self._checks) < MOST_READ

    def _begin(self, id: ServerName, check: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._checks.start(id, lambda: self._run_check(check))

    async def _run_check(self, check: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run it in its turn. Raises ``RecordRefused``; the entry stays then, for a node that has the key."""
        async with self._slots:
            try:
                await check()
            except StorageError as error:  # the entry stays where it is, and is due again in the next round
                self._health.trouble(error)

    async def _obtain_managed(self, subject: Subject) -> None:
        """Obtain a managed certificate, or note when to try again."""
        try:
            await self._provider.ensure(subject)
        except (IssuanceError, NoControlNode, RecordRefused):
            self._missing[subject] = self._retry_at(subject)
        else:
            self._missing.pop(subject, None)

    async def _check_listed(self, entry: ScheduledCheck) -> None:
        """Check it, unless another node does that now, or has done it while this one worked on others."""
        lease = await self._threads.storage(self._due.claim, entry)
        if lease is None:
            return
        try:
            await self._check(entry)
        finally:
            with contextlib.suppress(StorageError):  # it expires
                await self._threads.storage(lease.release)

    async def _check(self, entry: ScheduledCheck) -> None:
        slot = await self._threads.storage(self._store.slot, entry.id)
        subject, certificate = self._config.subject(entry.id), slot.certificate
        if certificate is None:
            await self._check_missing(entry, subject)
        elif self._now() - certificate.not_after > DAY and not self._config.manages(entry.id):
            await self._threads.storage(self._idle.give_up, entry, certificate)
        elif subject is not None:
            await self._renew_if_due(entry, subject, certificate)
        else:  # no option allows the name any more, here or, as nothing has moved the entry, elsewhere
            await self._move(entry, certificate.not_after + DAY + _LEAST_WAIT)

    async def _check_missing(self, entry: ScheduledCheck, subject: Subject | None) -> None:
        if subject is not None and subject.managed:
            # Unless it waits after a failure: to begin at once in each round took a whole CPU (seen in the simulator).
            self._missing.setdefault(subject, self._now())
        if self._now() - entry.at > DAY:  # a certificate that is just being stored is listed already, and not yet there
            await self._threads.storage(self._idle.forget, entry)

    async def _renew_if_due(self, entry: ScheduledCheck, subject: Subject, certificate: Certificate) -> None:
        info = await self._windows.find(subject, certificate)
        due = renew_at(certificate, self._config.renew_before, info, self._now())
        if due > self._now() and self._policy.is_wanted(subject, certificate):
            await self._move(entry, self._next_check(due, info))
            return
        if await self._idle.pass_over(entry, certificate):
            return
        try:
            request = OrderRequest(subject, Requester.OPERATOR, certificate)
            renewed = await self._obtainer.obtain(request)
        except AcmeError as error:
            now = self._now()
            # Called for before its time: its CA may be about to revoke it.
            urgent = info is not None and info.end <= now and not is_expiring(certificate, now)
            await self._not_renewed(entry, subject, certificate, error, urgent=urgent)
        else:
            if ScheduledCheck(subject.id, first_check_at(renewed, self._config.renew_before)).key != entry.key:
                await self._threads.storage(self._schedule.remove, entry)

    async def _not_renewed(
        self, entry: ScheduledCheck, subject: Subject, certificate: Certificate, error: AcmeError, *, urgent: bool
    ) -> None:
        """Keep the old certificate, and check again when the backoff ends, or somewhat later."""
        now = self._now()
        if isinstance(error, IssuanceError | RecordRefused):
            at = self._retry_at(subject)
            if not urgent and (isinstance(error, BackingOff) or self._backoffs.stopped() is not None):
                at = spread_after(certificate, at)  # other names wait for the same CA
        else:
            at = now + in_time(_ASK_PERMISSION_AGAIN, certificate.not_after - now, _LEAST_WAIT)
        if is_expiring(certificate, now):  # the failure itself is logged already
            self._warning.warn(subject, certificate, str(error), certificate.not_after - now)
        await self._move(entry, at)

    def _next_check(self, due: float, info: RenewalInfo | None) -> float:
        if not self._config.renew_before.auto:
            return due
        now = self._now()
        ask_again = info.ask_again if info is not None else now + ASK_AGAIN_DEFAULT
        return min(due, max(ask_again, now + _LEAST_WAIT))

    def _retry_at(self, subject: Subject) -> float:
        backoff = self._backoffs.active_backoff(subject)
        return backoff.until if backoff is not None else self._now() + _LEAST_WAIT

    async def _move(self, entry: ScheduledCheck, at: float) -> None:
        await self._threads.storage(self._schedule.move, entry, at)
        self._scheduled(at)
