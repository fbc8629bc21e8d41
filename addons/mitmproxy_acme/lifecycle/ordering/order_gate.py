"""The one answer to "may we order this now?": backoffs, the limits of the CAs, ``acme_ask`` and the limits of visitors.

This module knows every rule that keeps an order from being placed; it must not know how an order is placed, or which
CA it goes to. A rule that fails raises the error that tells a person why, and until when.
"""

from collections.abc import Callable, Mapping

from ...core.backoff import Backoff
from ...core.errors import BackingOff
from ...core.names import Subject
from ..configured_ca import ConfiguredCa
from .admission import Admission
from .ask import AskClient
from .backoff_registry import BackoffRegistry
from .exhausted_limits import ExhaustedLimits
from .order_request import OrderRequest, Requester

# Orders that are under way, or wait in the queue, beyond which visitors bring no new name. One holds some 20 KiB.
_MOST_ORDERS = 1_000


class OrderGate:
    """The rules of one node. Use it from one event loop."""

    def __init__(
        self,
        cas: tuple[ConfiguredCa, ...],
        backoffs: BackoffRegistry,
        limits: ExhaustedLimits,
        admission: Admission,
        ask: AskClient | None,
        now: Callable[[], float],
    ) -> None:
        """``ask`` is None where ``acme_ask`` is not set."""
        self._cas = cas
        self._backoffs = backoffs
        self._limits = limits
        self._admission = admission
        self._ask = ask
        self._now = now

    async def require(self, request: OrderRequest, under_way: int) -> None:
        """Return if ``request`` may be ordered now. Ask before the lease is taken; nothing here reads storage.

        ``under_way`` is the number of orders under way, this one included. Raises ``BackingOff`` (``LimitReached``,
        ``ClientLimited``), or ``NameNotAllowed`` where ``acme_ask`` refuses. A new name of a visitor that passes is
        counted for its client.
        """
        subject, replacing = request.subject, request.replacing
        if replacing is not None and replacing.serves(subject, self._now()):
            self._backoffs.note_served(subject, replacing.not_after)
        self.require_in_memory(subject)
        if request.is_new_name:
            self._require_room(request, under_way)
        if self._ask is not None and not subject.managed:
            await self._ask.require(subject.name, anew=request.requester is Requester.PERSON)
        if request.is_new_name:
            self._admission.admit(subject, request.client)

    def require_in_memory(self, subject: Subject) -> None:
        """Raise ``BackingOff`` while no CA may be asked for the name, as far as this process knows."""
        if (refusal := self._backoffs.active_backoff(subject)) is not None:
            raise refusal

    async def require_in_storage(self, subject: Subject) -> None:
        """Do the same with the failures of every node, while another node has the lease.

        Raises ``BackingOff``, ``StorageError``.
        """
        await self._backoffs.load(subject)
        self.require_in_memory(subject)

    def require_with(self, subject: Subject, stored: Mapping[str, Backoff]) -> None:
        """Do the same under the lease, with what ``BackoffRegistry.read`` found there."""
        self._backoffs.remember(stored)
        self.require_in_memory(subject)

    def _require_room(self, request: OrderRequest, under_way: int) -> None:
        """Apply what limits the new names of visitors, before ``acme_ask`` is asked."""
        subject = request.subject
        if under_way > _MOST_ORDERS:
            raise BackingOff(f"{subject}: {_MOST_ORDERS} names are being ordered already", until=self._now())
        self._admission.require_client(subject, request.client)
        self._require_limits(subject)

    def _require_limits(self, subject: Subject) -> None:
        """Raise ``LimitReached`` where every CA that may be asked has used up a limit that visitors share."""
        cas = [ca for ca in self._cas if self._backoffs.is_available(subject, ca.directory)]
        found = [(ca, limit) for ca in cas if (limit := self._limits.find(ca.directory, subject)) is not None]
        if not found or len(found) < len(cas):
            return
        ca, limit = min(found, key=lambda exceeded: exceeded[1].until)
        self._limits.log(ca.directory, ca.name, limit, subject)
        raise limit.refusal(subject, ca.name, self._now())
