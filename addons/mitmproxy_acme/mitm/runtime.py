"""What one configuration runs.

This module knows the parts, and the order in which they begin and end; it must not know mitmproxy's hooks, or what an
option means.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitmproxy import ctx
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.certs import DHParams
from mitmproxy.utils import asyncio_utils

import acme_storage

from ..admin.event_history import EventHistory
from ..admin.inventory import Inventory
from ..admin.metrics import Metrics
from ..admin.webhook import Webhook
from ..config.config import Config
from ..core.errors import ConfigError
from ..core.instrumentation import Instrumentation
from ..lifecycle.deploy.hook import DeployHook
from ..lifecycle.manager import Manager
from ..lifecycle.predecessor import ASKED_FOR, Predecessor
from ..store.instrumented import InstrumentedStorage
from ..store.plain_text import plain_text_warning
from .admin_barrier import AdminBarrier
from .challenge_lookup import ChallengeLookup
from .connection_log import ConnectionLog
from .dns.nameserver import Nameserver
from .event_hooks import tell_addons
from .http.challenge_reply import ChallengeResponder
from .http.upstream_router import UpstreamRouter
from .tls.contexts import TlsContexts
from .tls.handshakes import Handshakes

if TYPE_CHECKING:  # tornado takes 50 ms to import: only with an admin API
    from ..admin.api.server import AdminServer

logger = logging.getLogger(__name__)


class Runtime:
    """What one configuration runs, from ``start`` to ``stop``; a changed option makes another.

    The hooks call ``handshakes``, ``responder``, ``nameserver`` and ``barrier``, which all ask ``manager``; ``router``
    is asked for each request.
    """

    def __init__(
        self, config: Config, metrics: Metrics, *, listens: bool = True, predecessor: Predecessor | None = None
    ) -> None:
        """Raises ``ConfigError``. Does no I/O. ``metrics`` are counted only if the admin API can show them.

        ``listens=False`` leaves the admin API to another process with the same options. ``predecessor`` comes from
        ``lend`` of the runtime that had another storage.
        """
        self._metrics = metrics
        self._admin_address = config.admin if listens else None
        measures = metrics if self._admin_address is not None else Instrumentation()
        storage = InstrumentedStorage(_open_storage(config), measures)
        self.manager = Manager(config, storage, measures=measures, predecessor=predecessor)
        threads, events = self.manager.threads, self.manager.events
        self._lent: Predecessor | None = None

        # What hooks reach
        challenges = ChallengeLookup(self.manager)
        self.contexts = TlsContexts(ctx.options, config.tls_profile, config.cache_size, _dhparams)
        self.handshakes = Handshakes(
            self.manager, challenges, self.contexts, ctx.options, measures, has_own=_has_own_certificate
        )
        self.responder = ChallengeResponder(self.manager, challenges, measures)
        self.nameserver = Nameserver(self.manager, measures) if config.answers_dns else None
        self.barrier = AdminBarrier(config)
        self.router = UpstreamRouter(config, time.monotonic) if config.upstreams else None

        # What works in the background from ``start`` on
        self._renewer = self.manager.make_renewer()
        self._cluster_sync = self.manager.make_cluster_sync()
        self._webhook = Webhook(self.manager) if config.webhook else None
        self._deploy_hook = DeployHook(config, threads, events) if config.deploy_hook else None
        self._connection_log = ConnectionLog()
        self._admin: AdminServer | None = None
        self._tasks: list[asyncio.Task[None]] = []

        # What receives events
        events.subscribe(tell_addons)
        if self._admin_address is not None:
            events.subscribe(metrics.happened)

    def start(self) -> None:
        """Begin. Raises ``ConfigError`` if the admin API cannot listen."""
        self._connection_log.begin()
        if self._admin_address is not None:
            from ..admin.api.server import AdminServer
            from ..admin.context import AdminContext

            context = AdminContext.of(self.manager, self.inventory, self._metrics)
            self._admin = AdminServer(context, self._admin_address)
            self._admin.start()
            self._run("traffic history", context.traffic.run)
        if self._webhook is not None:
            self._webhook.start()
        if self._deploy_hook is not None:
            self._deploy_hook.start()
        # With a flow list there is a command bar, which needs the inventory. (An empty list is falsy.)
        if ctx.master.addons.get("view") is not None:  # type: ignore[no-untyped-call]
            self.inventory  # noqa: B018  # begins to read
            asyncio_utils.create_task(self.history.read(), name="acme event history", keep_ref=True)
        self._run("renewer", self._renewer.run)
        self._run("client usage", self.manager.usage.run)
        self._run("cluster sync", self._cluster_sync.run)
        if self.manager.config.orders:
            self._run("housekeeper", self.manager.make_housekeeper().run)
            self._run("revocation retrier", self.manager.make_revocation_retrier().run)

    @cached_property
    def history(self) -> EventHistory:
        """What happened on all nodes."""
        return EventHistory(self.manager)

    @cached_property
    def inventory(self) -> Inventory:
        """What is stored: read from the first access on, until the runtime stops."""
        inventory = Inventory(self.manager)
        self._run("inventory", inventory.run)
        return inventory

    def _run(self, name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._tasks.append(asyncio_utils.create_task(run(), name=f"acme {name}", keep_ref=True))

    def lend(self) -> Predecessor:
        """Return what a runtime with another storage asks; after ``stop`` it stays open for half a minute."""
        self._lent = self._lent or self.manager.as_predecessor()
        return self._lent

    def stop(self) -> None:
        """Stop, and let the orders under way end in the background: the next runtime finds what they store."""
        self._connection_log.end()
        if self._admin is not None:
            self._admin.stop()
        asyncio_utils.create_task(self._stop(), name="acme stop", keep_ref=True)

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._admin is not None:  # first: connected clients would go on with the old options, and the old token
            await self._admin.close()
        await self._renewer.close()
        await self._cluster_sync.close()
        await self.manager.wait_idle()
        await self._close_webhook()
        if self._deploy_hook is not None:
            await self._deploy_hook.wait_idle()
        if self._lent is not None:
            await asyncio.sleep(ASKED_FOR)
            self._lent.close()
        await self.manager.close()

    def end(self) -> asyncio.Task[None]:
        """Stop, and return the last work, for which the end of the process should wait some seconds."""
        self.stop()
        return asyncio_utils.create_task(self._end(), name="acme end", keep_ref=True)

    async def _end(self) -> None:
        if self._deploy_hook is not None:
            await self._deploy_hook.close()
        await self._close_webhook()

    async def _close_webhook(self) -> None:
        """Send the events that wait."""
        if self._webhook is not None:
            await self._webhook.close()


def _open_storage(config: Config) -> acme_storage.Storage:
    """Open ``acme_storage``, and warn if it is reached in plain text. Raises ``ConfigError``."""
    try:
        storage = acme_storage.open_storage(config.storage, default_folder=Path(ctx.options.confdir).expanduser())
    except ValueError as error:
        raise ConfigError(f"acme_storage: {error}") from None
    if warning := plain_text_warning(config.storage):
        logger.warning("%s", warning)
    return storage


def _has_own_certificate(sni: str) -> bool:
    """Say whether the operator gave mitmproxy a certificate for a server name (its option ``certs``)."""
    tls_config: TlsConfig = ctx.master.addons.get("tlsconfig")  # type: ignore[no-untyped-call]
    store = tls_config.certstore
    # A string is the key of an operator's certificate; the keys of those that mitmproxy signs are tuples.
    return bool(store) and any(form in store.certs for form in (*store.asterisk_forms(sni), "*"))


def _dhparams() -> DHParams | None:
    """Return mitmproxy's parameters; None before mitmproxy is ``running``."""
    tls_config: TlsConfig = ctx.master.addons.get("tlsconfig")  # type: ignore[no-untyped-call]
    return tls_config.certstore.dhparams if tls_config.certstore else None
