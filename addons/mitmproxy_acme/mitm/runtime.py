"""Service: what one configuration runs.

This module knows the parts, and in which order they begin and end; it must not know hooks, or what an option means.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitmproxy import ctx
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.certs import DHParams
from mitmproxy.utils import asyncio_utils

import acme_storage

from ..admin.inventory import Inventory
from ..admin.metrics import Metrics
from ..admin.webhook import Webhook
from ..config.admin_settings import AdminListen
from ..config.config import Config
from ..core.errors import ConfigError
from ..core.instrumentation import Instrumentation
from ..lifecycle.cluster_sync import ClusterSync
from ..lifecycle.deploy_hook import DeployHook
from ..lifecycle.manager import Manager
from ..lifecycle.renewer import Renewer
from ..lifecycle.revocation_retrier import RevocationRetrier
from ..store.instrumented import InstrumentedStorage
from ..store.plain_text import plain_text_warning
from .admin_barrier import AdminBarrier
from .challenge_lookup import ChallengeLookup
from .connection_log import ConnectionLog
from .dns.nameserver import Nameserver
from .event_hooks import tell_addons
from .http.challenge_reply import ChallengeResponder
from .tls.contexts import TlsContexts
from .tls.handshakes import Handshakes

if TYPE_CHECKING:  # tornado takes 50 ms to import, which only those wait for who have an admin API
    from ..admin.server import AdminServer

logger = logging.getLogger(__name__)


class Runtime:
    """What one configuration runs, from ``start`` to ``stop``; a changed option makes another."""

    def __init__(self, config: Config, metrics: Metrics, *, listens: bool = True) -> None:
        """Raises ``ConfigError``. Does no I/O. ``metrics`` are moved while the admin API can show them.

        Where it does not ``listen``, another process of the same options has the admin API.
        """
        try:
            storage = acme_storage.open_storage(config.storage, default_folder=Path(ctx.options.confdir).expanduser())
        except ValueError as error:
            raise ConfigError(f"acme_storage: {error}") from None
        if warning := plain_text_warning(config.storage):
            logger.warning("%s", warning)
        self._address = config.admin if listens else None
        measures = metrics if self._address is not None else Instrumentation()
        self.manager = Manager(config, InstrumentedStorage(storage, measures), measures=measures)
        if self._address is not None:
            self.manager.events.subscribe(metrics.happened)
        self.contexts = TlsContexts(ctx.options, config.tls_profile, config.cache_size, _dhparams)
        proofs = ChallengeLookup(self.manager)
        self.handshakes = Handshakes(
            self.manager, proofs, self.contexts, ctx.options, measures, has_own=_has_own_certificate
        )
        self.responder = ChallengeResponder(self.manager, proofs, measures)
        self.nameserver = Nameserver(self.manager, measures) if config.answers_dns else None
        self.barrier = AdminBarrier(config)
        self._connections = ConnectionLog()
        self._renewer = Renewer(self.manager)
        self._feed = ClusterSync(self.manager)
        self._metrics = metrics
        self._admin: AdminServer | None = None
        self._webhook = Webhook(self.manager) if config.webhook else None
        self._deploy = DeployHook(self.manager) if config.deploy_hook else None
        self._running: list[asyncio.Task[None]] = []
        self.manager.events.subscribe(tell_addons)

    def start(self) -> None:
        """Begin. Raises ``ConfigError`` where the admin API cannot listen."""
        self._connections.begin()
        if self._address is not None:
            self._admin = _open_admin(self.manager, self.inventory, self._metrics, self._address)
        if self._webhook is not None:
            self._webhook.start()
        if self._deploy is not None:
            self._deploy.start()
        # Where a person sits before it, with a command bar; an empty flow list is falsy.
        if ctx.master.addons.get("view") is not None:  # type: ignore[no-untyped-call]
            self.inventory  # noqa: B018  # begins to read
        self._run("renewer", self._renewer.run)
        self._run("feed", self._feed.run)
        if self.manager.config.orders:
            self._run("unrevoked", RevocationRetrier(self.manager).run)

    @cached_property
    def inventory(self) -> Inventory:
        """What is stored: read from the first time that somebody asks until the service stops."""
        inventory = Inventory(self.manager)
        self._run("inventory", inventory.run)
        return inventory

    def _run(self, name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._running.append(asyncio_utils.create_task(run(), name=f"acme {name}", keep_ref=True))

    def stop(self) -> None:
        """Let the orders that are under way end, in the background: the next service finds what they store."""
        self._connections.end()
        if self._admin is not None:
            self._admin.stop()
        asyncio_utils.create_task(self._stop(), name="acme stop", keep_ref=True)

    async def _stop(self) -> None:
        for task in self._running:
            task.cancel()
        if self._admin is not None:  # first: who is connected would go on by the old options, and the old token
            await self._admin.close()
        await self._renewer.close()
        await self._feed.close()
        await self.manager.landed()
        await self._tell_the_last()
        if self._deploy is not None:
            await self._deploy.landed()
        await self.manager.close()

    def end(self) -> asyncio.Task[None]:
        """Stop, and return what is worth some seconds' wait where the process ends."""
        self.stop()
        return asyncio_utils.create_task(self._end(), name="acme last words", keep_ref=True)

    async def _end(self) -> None:
        if self._deploy is not None:
            await self._deploy.close()
        await self._tell_the_last()

    async def _tell_the_last(self) -> None:
        if self._webhook is not None:
            await self._webhook.close()


def _open_admin(manager: Manager, inventory: Inventory, metrics: Metrics, address: AdminListen) -> "AdminServer":
    """Listen. Raises ``ConfigError``."""
    from ..admin.context import AdminContext
    from ..admin.server import AdminServer

    admin = AdminServer(AdminContext.of(manager, inventory, metrics), address)
    admin.start()
    return admin


def _has_own_certificate(sni: str) -> bool:
    """Say whether the operator gave mitmproxy a certificate for a server name (its option ``certs``)."""
    tls_config: TlsConfig = ctx.master.addons.get("tlsconfig")  # type: ignore[no-untyped-call]
    store = tls_config.certstore
    # Those that mitmproxy signs itself are under tuples.
    return bool(store) and any(form in store.certs for form in (*store.asterisk_forms(sni), "*"))


def _dhparams() -> DHParams | None:
    """Return mitmproxy's parameters, which it has from its ``running`` on."""
    tls_config: TlsConfig = ctx.master.addons.get("tlsconfig")  # type: ignore[no-untyped-call]
    return tls_config.certstore.dhparams if tls_config.certstore else None
