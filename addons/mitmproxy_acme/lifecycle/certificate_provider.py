"""Certificate provider: the certificate of a name, from storage where it is there, else by an order.

This module knows what is served while an order runs or fails; it must not know how an order is made.
"""

from collections.abc import Awaitable

from acme_storage import StorageError

from ..config.config import Config
from ..core.certificate import Certificate
from ..core.errors import (
    AcmeError,
    BackingOff,
    ClientLimited,
    IssuanceError,
    NameNotAllowed,
    NoControlNode,
    NotFound,
    RecordRefused,
)
from ..core.names import ServerName, Subject
from ..core.thread_pools import ThreadPools
from ..store.store import Store
from .cache import Cache
from .certificate_lookup import CertificateLookup, StoredCertificate
from .certificate_policy import CertificatePolicy
from .client_usage import ClientUsage
from .negative_cache import NegativeCache
from .ordering.backoff_registry import BackoffRegistry
from .ordering.obtainer import Obtainer
from .ordering.order_request import OrderRequest, Requester
from .storage_health import StorageHealth


class CertificateProvider:
    """The certificates of one node. Use it from one event loop."""

    def __init__(
        self,
        config: Config,
        store: Store,
        threads: ThreadPools,
        lookup: CertificateLookup,
        policy: CertificatePolicy,
        obtainer: Obtainer,
        cache: Cache,
        backoffs: BackoffRegistry,
        refusals: NegativeCache,
        health: StorageHealth,
        usage: ClientUsage,
    ) -> None:
        self._config = config
        self._store = store
        self._threads = threads
        self._lookup = lookup
        self._policy = policy
        self._obtainer = obtainer
        self._cache = cache
        self._backoffs = backoffs
        self._refusals = refusals
        self._health = health
        self._usage = usage

    async def for_handshake(self, name: ServerName, *, on_demand: bool, client: str | None) -> Certificate | None:
        """Return the certificate to serve for ``name``, or None if there is none yet. See ``Manager.certificate_for``.

        A refusal is repeated from memory for some seconds.
        """
        subject = self._config.subject(name)
        if subject is None or not (subject.managed or on_demand):
            raise NameNotAllowed(f"no option allows a certificate for {name}")
        self._refusals.repeat(subject.id)
        self._lookup.require_room(subject)
        try:
            return await self._for_visitor(subject, client, on_demand=on_demand)
        except StorageError as error:
            self._health.trouble(error)
            self._refusals.remember(subject.id, error)
            raise
        except ClientLimited:  # another client may bring the name
            raise
        except AcmeError as error:
            backoff = error if isinstance(error, BackingOff) else self._backoffs.active_backoff(subject)
            self._refusals.remember(subject.id, error, until=backoff.until if backoff else None)
            raise

    async def ensure(self, subject: Subject) -> Certificate:
        """Return the stored certificate, or obtain one: for managed certificates, and for what data nodes ask for.

        Raises what ``Obtainer.obtain`` does.
        """
        found = await self._lookup.find(subject)
        if (wanted := self._wanted(subject, found.certificate)) is not None:
            return wanted
        order = self._obtainer.obtain(OrderRequest(subject, _requester(subject, found), found.certificate))
        return await self._or_stored(subject, found.certificate, order)

    async def issue(self, subject: Subject) -> Certificate:
        """Return the stored certificate, or obtain one for a person: no earlier failure counts, of the name or of a CA.

        Raises what ``Obtainer.obtain`` does, although an old certificate of another CA or key type may still be served.
        """
        await self._backoffs.override(subject)
        stored = (await self._lookup.find(subject)).certificate
        wanted = self._wanted(subject, stored)
        return self._note(wanted or await self._obtainer.obtain_for_person(subject, stored))

    async def renew(self, subject: Subject) -> Certificate:
        """Order a new one for a person, due or not; no earlier failure counts, of the name or of a CA.

        Raises ``NotFound`` where none is stored: a slip must not order a name for the first time. And what
        ``Obtainer.obtain`` does.
        """
        slot = await self._threads.storage(self._store.slot, subject.id)
        if slot.record is None and not slot.corrupt:
            raise NotFound(f"no certificate is stored for {subject.id}")
        return self._note(await self._obtainer.obtain_for_person(subject, slot.certificate))

    def _note(self, certificate: Certificate) -> Certificate:
        """Count a person who asks for a certificate as a client: it is renewed."""
        self._usage.served[certificate.id] = certificate
        return certificate

    async def _for_visitor(self, subject: Subject, client: str | None, *, on_demand: bool) -> Certificate | None:
        """Return what is stored, or what the options say of a name without a certificate."""
        self._health.require()
        found = await self._lookup.find_for_visitor(subject)
        stored = found.certificate
        if (wanted := self._wanted(subject, stored)) is not None:
            return wanted
        if not on_demand:
            return self._cache.put(subject, stored) if stored is not None else None
        request = OrderRequest(subject, _requester(subject, found), stored, client)
        if self._config.on_demand == "wait":
            return await self._or_stored(subject, stored, self._obtainer.obtain(request))
        if stored is not None:  # the renewer replaces it: the lookup has scheduled that
            return self._cache.put(subject, stored)
        if self._config.on_demand == "off":
            raise IssuanceError(f"{subject}: no certificate is stored, and acme_on_demand is off")
        self._obtainer.start(request)
        return None

    def _wanted(self, subject: Subject, stored: Certificate | None) -> Certificate | None:
        """Serve what is stored, and return it, if the options want it."""
        wanted = stored is not None and self._policy.is_wanted(subject, stored)
        return self._cache.put(subject, stored) if stored is not None and wanted else None

    async def _or_stored(
        self, subject: Subject, stored: Certificate | None, order: Awaitable[Certificate]
    ) -> Certificate:
        """Return what is ordered. Where the order fails, return what is stored: not wanted, but better than nothing."""
        try:
            return await order
        except (IssuanceError, NoControlNode, RecordRefused, StorageError):
            if stored is None:
                raise
            return self._cache.put(subject, stored)


def _requester(subject: Subject, found: StoredCertificate) -> Requester:
    """Return who wants what a visitor asks for: a name that is listed, or was ever stored, is the operator's own."""
    return Requester.OPERATOR if subject.managed or found.known else Requester.VISITOR
