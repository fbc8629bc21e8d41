"""mitmproxy's hooks and options, turned into calls.

This module knows mitmproxy; it must not decide anything about certificates.
"""

import asyncio
import difflib
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from mitmproxy import ctx, exceptions, http, tls
from mitmproxy.addonmanager import Loader
from mitmproxy.addons.termlog import TermLogHandler
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.certs import DHParams
from mitmproxy.proxy import mode_specs
from mitmproxy.proxy.layers import quic
from mitmproxy.utils import asyncio_utils

import acme_storage

from . import logs, options
from .commands import Commands
from .config import Config
from .errors import ConfigError
from .feed import Feed
from .hooks import tell_addons
from .keeping.measured import Measured
from .manager import Manager
from .measures import Measures
from .operating.deploy import Deploy
from .operating.inventory import Inventory
from .operating.webhook import Webhook
from .renewer import Renewer
from .serving.contexts import TLS_OPTIONS, Contexts
from .serving.handshakes import Handshakes
from .serving.responder import Responder, is_hidden

logger = logging.getLogger(__name__)

_IN_WORDS: dict[object, str] = {
    bool: "true or false",
    int: "one whole number",
    str: "one text",
    Sequence[str]: "a list of texts",
}


class Service:
    """What one configuration runs, from ``start`` to ``stop``; a changed option makes another."""

    def __init__(self, config: Config) -> None:
        """Raises ``ConfigError``. Does no I/O."""
        try:
            storage = acme_storage.open_storage(config.storage, default_folder=Path(ctx.options.confdir).expanduser())
        except ValueError as error:
            raise ConfigError(f"acme_storage: {error}") from None
        measures = Measures()
        self.manager = Manager(config, Measured(storage, measures), measures=measures)
        self.contexts = Contexts(ctx.options, config.tls_profile, config.cache_size, _dhparams)
        self.handshakes = Handshakes(self.manager, self.contexts, ctx.options, measures)
        self.responder = Responder(self.manager, measures)
        self._renewer = Renewer(self.manager)
        self._feed = Feed(self.manager)
        self._webhook = Webhook(self.manager) if config.webhook else None
        self._deploy = Deploy(self.manager) if config.deploy_hook else None
        self._running: list[asyncio.Task[None]] = []
        self.manager.events.subscribe(tell_addons)

    def start(self) -> None:
        for name, run in (("renewer", self._renewer.run), ("feed", self._feed.run)):
            self._running.append(asyncio_utils.create_task(run(), name=f"acme {name}", keep_ref=True))
        if self._webhook is not None:
            self._webhook.start()

        # Where a person sits before it, with a command bar; an empty flow list is falsy.
        if ctx.master.addons.get("view") is not None:  # type: ignore[no-untyped-call]
            self.inventory  # noqa: B018  # begins to read

    @cached_property
    def inventory(self) -> Inventory:
        """What is stored: read from the first time that somebody asks until the service stops."""
        inventory = Inventory(self.manager)
        self._running.append(asyncio_utils.create_task(inventory.run(), name="acme inventory", keep_ref=True))
        return inventory

    def stop(self) -> None:
        """Let the orders that are under way end, in the background: the next service finds what they store."""
        asyncio_utils.create_task(self._stop(), name="acme stop", keep_ref=True)

    async def _stop(self) -> None:
        for task in self._running:
            task.cancel()
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


class AcmeAddon:
    """The addon. mitmproxy calls its methods on the event loop."""

    def __init__(self) -> None:
        self._service: Service | None = None
        self._running = False
        self.addons = [Commands(lambda: self._service)]

    def load(self, loader: Loader) -> None:
        for option in options.OPTIONS:
            default = list(option.default) if isinstance(option.default, tuple) else option.default
            loader.add_option(option.name, option.type, default, option.help, option.choices or None)  # type: ignore[arg-type]
            # What was set before the option was known is read here, one at a time: mitmproxy would do so after us, and
            # over a value of the wrong type drop the whole script without a word (seen with acme_handshake_wait=x).
            try:
                ctx.options.process_deferred()
            except (exceptions.OptionsError, TypeError) as error:
                value = ctx.options.deferred.pop(option.name)
                said = isinstance(error, exceptions.OptionsError)  # of a TypeError the text speaks to programmers
                kind = type(value).__name__  # and never the value: it may be a secret
                wrong = str(error).rpartition(f"{option.name}: ")[2] if said else f"a {kind} is given"
                logger.error("%s: %s; write %s", option.name, wrong, _IN_WORDS[option.type])

    def configure(self, updated: set[str]) -> None:
        """Check the options and run what they say.

        A wrong option ends the start. Later it raises ``OptionsError``: mitmproxy takes the change back, and what ran
        before goes on.
        """
        if "acme_log_format" in updated:
            handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, TermLogHandler)]
            logs.write_as(ctx.options.acme_log_format, handlers)
        if updated & options.NAMES or "confdir" in updated:
            try:
                self._reconfigure()
            except ConfigError as error:
                if self._running:
                    raise exceptions.OptionsError(str(error)) from None  # type: ignore[no-untyped-call]
                # An ERROR during the start ends it; raising would put a traceback around the one sentence.
                logger.error("%s", error)
        elif self._service is not None and updated & TLS_OPTIONS:
            self._service.contexts.clear()
        if updated & {"mode", "acme_lazy", *options.NAMES}:
            self._be_lazy()

    def running(self) -> None:
        self._running = True
        if self._service is not None:
            self._service.start()
        self._say_what_is_amiss()

    def done(self) -> asyncio.Task[None] | None:
        """End. mitmproxy awaits what is returned when the process ends, and drops it when a script is reloaded."""
        service, self._service = self._service, None
        return service.end() if service is not None else None

    async def tls_start_client(self, data: tls.TlsData) -> None:
        if service := self._service:
            await service.handshakes.start_tls(data)

    async def quic_start_client(self, data: quic.QuicTlsData) -> None:
        if service := self._service:
            await service.handshakes.start_quic(data)

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        if (service := self._service) is None:
            return
        await service.responder.respond(flow)
        _hide(flow)
        if _is_http3_of_reverse_https(flow) and not flow.server_conn.connected:
            # It would otherwise need an upstream that speaks QUIC, and few do; reverse:http3 is for those.
            flow.server_conn.transport_protocol = "tcp"

    # The other hooks of a flow that nobody else is to see: it would otherwise be listed, dumped or saved there.
    def request(self, flow: http.HTTPFlow) -> None:
        _hide(flow)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        _hide(flow)

    def response(self, flow: http.HTTPFlow) -> None:
        _hide(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        _hide(flow)

    def _reconfigure(self) -> None:
        config = Config.from_options({name: getattr(ctx.options, name) for name in options.NAMES})
        service = Service(config) if config.active else None
        if self._service is not None:
            self._service.stop()
        self._service = service
        for warning in config.warnings:
            logger.warning("%s", warning)
        if service is not None and self._running:
            service.start()

    def _be_lazy(self) -> None:
        """Connect to the upstream only when there is a request for it: a dead one must close neither a challenge nor
        a handshake."""
        if self._service is None or not self._service.manager.config.lazy:
            return
        if _has_reverse_mode() and ctx.options.connection_strategy != "lazy":
            logger.info("connection_strategy is set to lazy; acme_lazy=false leaves it alone")
            ctx.options.update(connection_strategy="lazy")  # type: ignore[no-untyped-call]

    def _say_what_is_amiss(self) -> None:
        for name in ctx.options.deferred:
            if name.startswith("acme_"):
                near = difflib.get_close_matches(name, options.NAMES, 1)
                hint = f"; is {near[0]} meant?" if near else ""
                logger.warning("%s is no option of this addon and has no effect%s", name, hint)
        if self._service is None:
            logger.info("no name may have a certificate; set acme_domains or acme_certificates")
        elif _has_reverse_mode() and ctx.options.block_global:
            logger.warning(
                "block_global is on: a public CA cannot reach this proxy to validate; set block_global=false"
            )


def _dhparams() -> DHParams | None:
    """Return mitmproxy's parameters, which it has from its ``running`` on."""
    tls_config: TlsConfig = ctx.master.addons.get("tlsconfig")  # type: ignore[no-untyped-call]
    return tls_config.certstore.dhparams if tls_config.certstore else None


def _hide(flow: http.HTTPFlow) -> None:
    """Keep a hidden challenge from the addons behind this one: mitmproxy's flow list, dumper and writer are."""
    if is_hidden(flow):
        raise exceptions.AddonHalt


def _is_http3_of_reverse_https(flow: http.HTTPFlow) -> bool:
    client, mode = flow.client_conn, flow.client_conn.proxy_mode
    return client.transport_protocol == "udp" and isinstance(mode, mode_specs.ReverseMode) and mode.scheme == "https"


def _has_reverse_mode() -> bool:
    return any(isinstance(mode_specs.ProxyMode.parse(mode), mode_specs.ReverseMode) for mode in ctx.options.mode)
