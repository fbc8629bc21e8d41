"""Renewer: when to look at which certificate, and what comes of a look.

This module knows the calendar, the CA's suggestions and the clock; it must not know how a certificate is obtained
(the manager does). It also obtains the managed certificates at the start, and again until it succeeds. On a data node
it does no more than that: control nodes renew.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from acme_storage import StorageError

from ..core.certificate import Certificate
from ..core.errors import AcmeError, IssuanceError, NoControlNode, RecordRefused
from ..core.events import CertificateExpiring, CertificateRemoved, ChangedElsewhere, Event, RenewalScheduled
from ..core.names import ServerName, Subject
from ..core.renewal import (
    ASK_AGAIN_DEFAULT,
    DAY,
    RenewalInfo,
    describe_duration,
    first_check_at,
    in_time,
    is_expiring,
    renew_at,
)
from ..core.single_flight import SingleFlight
from ..core.structured_logging import fields
from ..store.renewal_schedule import ScheduledCheck
from .manager import Manager

logger = logging.getLogger(__name__)

# Of work that nobody waits for, so much at once: it keeps the CA's four threads busy, and no more.
_AT_ONCE = 8
# The longest rest between two looks at the calendar: other nodes write there too, and the monotonic clock that a
# rest is measured by stands still while a laptop sleeps.
_LONGEST_REST = 30.0
_LEAST_WAIT = 60.0
# And the shortest, where a round reads more entries than these. Where a CA is to be asked every six hours, one of
# 100,000 certificates is due five times a second; to read the calendar for each would keep a thread busy.
_MANY, _REST_AFTER_MANY = 100, 3.0
_ASK_PERMISSION_AGAIN = 3_600.0


class Renewer:
    """Keeps the certificates of one manager. ``run`` never returns; cancel it, and the orders under way go on."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._wish = manager.config.renew_before
        # Managed certificates that are not held yet, and when to try for them (Unix seconds).
        self._missing: dict[Subject, float] = dict.fromkeys(manager.config.managed, 0.0)
        self._looks: SingleFlight[ServerName, None] = SingleFlight("look")
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._woken = asyncio.Event()
        self._next = 0.0
        self._seals_seen = False
        self._read_many = False
        manager.on_scheduled = self._scheduled
        manager.events.subscribe(self._happened)

    async def run(self) -> None:
        """Look, rest, look again."""
        while True:
            self._next = math.inf  # what is scheduled while a round reads the calendar may be missed by it
            try:
                self._next = await self._round()
            except Exception:  # whatever it is: a proxy that stops renewing is noticed when it is too late
                logger.exception("the renewal round failed")
                self._next = self._manager.now() + _LONGEST_REST
            if self._read_many:
                await asyncio.sleep(_REST_AFTER_MANY)
            rest = min(max(self._next - self._manager.now(), 0.0), _LONGEST_REST)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), rest)
            self._woken.clear()

    async def close(self) -> None:
        """End the looks; an order that one began goes on, for it is the manager's."""
        await self._looks.cancel()

    def _scheduled(self, at: float) -> None:
        if at < self._next:
            self._woken.set()

    def _happened(self, event: Event) -> None:
        """A managed certificate that was revoked or deleted is obtained again: it is held as long as it is listed.

        What another node did may be a deletion: a look at the storage tells.
        """
        match event:
            case CertificateRemoved():
                changed = frozenset({event.id})
            case ChangedElsewhere():
                changed = event.ids
            case _:
                return
        subjects = (self._manager.config.subject(id) for id in changed)
        if managed := [subject for subject in subjects if subject is not None and subject.managed]:
            self._missing.update(dict.fromkeys(managed, self._manager.now()))
            self._woken.set()

    async def _round(self) -> float:
        """Begin every look that is due; return when the next one is (Unix seconds)."""
        now = self._manager.now()
        for subject in [subject for subject, at in self._missing.items() if at <= now]:
            self._begin(subject.id, partial(self._hold, subject))
        try:
            await self._look_at_seals()
            entries = await self._manager.threads.storage(self._coming, now) if self._manager.config.orders else []
            await self._manager.cache.refresh()
        except StorageError as error:
            self._manager.health.trouble(error)
            return now + _LONGEST_REST
        self._read_many = len(entries) > _MANY
        for entry in entries:
            if entry.at <= now and self._concerns(entry, now):
                self._begin(entry.id, partial(self._look, entry))
        coming = [at for at in (*self._missing.values(), *(entry.at for entry in entries)) if at > now]
        return min(coming, default=now + _LONGEST_REST)

    async def _look_at_seals(self) -> None:
        """Have a wrong ``acme_storage_key`` said at the start, and not when the first visitor comes."""
        if not self._seals_seen:
            with contextlib.suppress(RecordRefused):  # it is logged where it is read
                await self._manager.threads.storage(
                    self._manager.store.verify_keys, accounts=self._manager.config.orders
                )
            self._seals_seen = True

    def _coming(self, now: float) -> list[ScheduledCheck]:
        """Return what is due, and all that becomes due in the coming rest: it may lie in the next minute."""
        return self._without_doubles(list(self._manager.calendar.due_by(now + _LONGEST_REST)))

    def _without_doubles(self, entries: list[ScheduledCheck]) -> list[ScheduledCheck]:
        """Keep the last of a name's entries: nodes that look at the same moment may move one to two minutes.

        Else each of the two could become two again at every look. The last one stands for both, a minute later.
        """
        last = {entry.id: entry for entry in entries}
        for entry in entries:
            if last[entry.id] is not entry and self._manager.config.subject(entry.id) is not None:
                self._manager.calendar.remove(entry)
        return list(last.values())

    def _begin(self, id: ServerName, look: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._looks.start(id, lambda: self._in_turn(look))

    async def _in_turn(self, look: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async with self._slots:
            try:
                await look()
            except StorageError as error:  # the entry stays where it is, and is due again in the next round
                self._manager.health.trouble(error)
            except RecordRefused as error:  # and so does this one, for a node that has the key
                logger.debug("not looked at: %s", error)

    def _concerns(self, entry: ScheduledCheck, now: float) -> bool:
        """Say whether to look: at names of ours, and at what everybody has let lie for a day.

        Other names in the same storage belong to proxies with other options; their entries are theirs to move.
        """
        return self._manager.config.subject(entry.id) is not None or now - entry.at > DAY

    async def _hold(self, subject: Subject) -> None:
        """Have a managed certificate, or know when to try again."""
        try:
            await self._manager.ensure(subject)
        except (IssuanceError, NoControlNode, RecordRefused):
            self._missing[subject] = self._retry_at(subject)
        else:
            self._missing.pop(subject, None)

    async def _look(self, entry: ScheduledCheck) -> None:
        manager = self._manager
        slot = await manager.threads.storage(manager.store.slot, entry.id)
        subject, certificate = manager.config.subject(entry.id), slot.certificate
        if subject is not None and subject.managed and certificate is None:
            self._missing[subject] = manager.now()
        end = entry.at if certificate is None else certificate.not_after
        if manager.now() - end > DAY:  # a certificate that is just being stored is listed already, and not yet there
            await manager.threads.storage(manager.calendar.forget, entry)
        elif subject is not None and certificate is not None:
            await self._renew_if_due(entry, subject, certificate)

    async def _renew_if_due(self, entry: ScheduledCheck, subject: Subject, certificate: Certificate) -> None:
        manager = self._manager
        info = await self._renewal_info(subject, certificate)
        due = renew_at(certificate, self._wish, info)
        if due > manager.now() and manager.is_wanted(subject, certificate):
            await self._move(entry, self._next_look(due, info))
            return
        try:
            renewed = await manager.obtain(subject, replacing=certificate)
        except AcmeError as error:
            await self._not_renewed(entry, subject, certificate, error)
        else:
            if ScheduledCheck(subject.id, first_check_at(renewed, self._wish)).key != entry.key:
                await manager.threads.storage(manager.calendar.remove, entry)

    async def _not_renewed(
        self, entry: ScheduledCheck, subject: Subject, certificate: Certificate, error: AcmeError
    ) -> None:
        """Keep the old certificate, and come back when the backoff ends."""
        now = self._manager.now()
        if isinstance(error, IssuanceError | RecordRefused):
            at = self._retry_at(subject)
        else:
            at = now + in_time(_ASK_PERMISSION_AGAIN, certificate.not_after - now, _LEAST_WAIT)
        if is_expiring(certificate, now):  # the failure itself is logged already
            left, node = certificate.not_after - now, self._manager.node.id
            ca = (self._manager.ca_of(certificate) or self._manager.cas[0]).name
            logger.warning(
                "%s: not renewed, and the certificate expires in %s: %s (%s, node %s)",
                *(subject, describe_duration(left), error, ca, node),
                extra=fields(
                    "certificate_expiring",
                    name=subject.id,
                    node=node,
                    ca=ca,
                    reason=str(error),
                    expires_in=round(left),
                ),
            )
            self._manager.events.publish(CertificateExpiring(subject, certificate, str(error), node))
        await self._move(entry, at)

    async def _renewal_info(self, subject: Subject, certificate: Certificate) -> RenewalInfo | None:
        """Return the CA's suggestion: the stored one while it holds, else a new one (RFC 9773 section 4.3)."""
        manager, id, renewal_id = self._manager, subject.id, certificate.renewal_id
        ca = manager.ca_of(certificate)
        if not self._wish.auto or ca is None or renewal_id is None or manager.now() >= certificate.not_after:
            return None
        known = await manager.threads.storage(manager.calendar.renewal_info, id, renewal_id)
        if known is not None and known.is_current(manager.now()):
            return known
        if manager.failures.is_left_alone(subject, ca.directory):
            return known
        try:
            info = await ca.issuer.renewal_info(certificate, manager.now())
        except IssuanceError as error:
            logger.debug("%s: no renewal information: %s", subject, error)
            return known
        if info is not None:
            await manager.threads.storage(manager.calendar.save_renewal_info, id, renewal_id, info)
            manager.events.publish(RenewalScheduled(id))
            if known is None or known.is_ordinary(manager.now()):
                self._explain(id, ca.name, info)
        return info

    def _explain(self, id: ServerName, ca: str, info: RenewalInfo) -> None:
        """Say what is out of the ordinary about a new window: that it is over, as after a revocation, or the reason."""
        over, node = info.end <= self._manager.now(), self._manager.node.id
        if info.is_ordinary(self._manager.now()):
            return
        explained = f"the CA explains its renewal window at {info.explanation_url}" if info.explanation_url else ""
        called_for = "its renewal window is over, so it is replaced at once, as one that its CA revokes" if over else ""
        logger.warning(
            "%s: %s (%s, node %s)",
            *(id, "; ".join(filter(None, (called_for, explained))), ca, node),
            extra=fields(
                "replacement_called_for" if over else "renewal_explained",
                name=id,
                node=node,
                ca=ca,
                url=info.explanation_url,
            ),
        )

    def _next_look(self, due: float, info: RenewalInfo | None) -> float:
        if not self._wish.auto:
            return due
        now = self._manager.now()
        ask_again = info.ask_again if info is not None else now + ASK_AGAIN_DEFAULT
        return min(due, max(ask_again, now + _LEAST_WAIT))

    def _retry_at(self, subject: Subject) -> float:
        backoff = self._manager.failures.known(subject)
        return backoff.until if backoff is not None else self._manager.now() + _LEAST_WAIT

    async def _move(self, entry: ScheduledCheck, at: float) -> None:
        await self._manager.threads.storage(self._manager.calendar.move, entry, at)
        self._scheduled(at)
