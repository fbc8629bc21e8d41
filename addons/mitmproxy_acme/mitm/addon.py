"""mitmproxy's options and the life of the addon, turned into calls; ``traffic`` has the hooks of connections and flows.

This module knows mitmproxy; it must not decide anything about certificates.
"""

import asyncio
import logging
from collections.abc import Sequence

from mitmproxy import ctx, exceptions
from mitmproxy.addonmanager import Loader
from mitmproxy.addons.termlog import TermLogHandler
from mitmproxy.proxy import mode_specs
from mitmproxy.utils import asyncio_utils

from ..admin.metrics import Metrics
from ..config import options
from ..config.admin_settings import require_token_beside
from ..config.config import Config
from ..core import structured_logging
from ..core.errors import ConfigError
from ..diagnostics import option_conflicts
from .command_bar import CommandBar
from .dns.flows import DnsFlows
from .dns.nameserver import is_plain
from .dns.ports import DnsPorts, allows
from .http.early_reply import EarlyReply
from .http.http1_limits import Http1Limits
from .http.http2_limits import Http2Limits
from .lazy_upstream import LazyUpstream
from .runtime import Runtime
from .tls.contexts import TLS_OPTIONS
from .traffic_hooks import TrafficHooks

logger = logging.getLogger(__name__)

_IN_WORDS: dict[object, str] = {
    bool: "true or false",
    int: "one whole number",
    str: "one text",
    Sequence[str]: "a list of texts",
}


class AcmeAddon:
    """The addon. mitmproxy calls its methods on the event loop."""

    def __init__(self, *, listens: bool = True) -> None:
        """``listens`` says whether this process has the admin API: of several workers on one address, one does."""
        self._listens = listens
        self._service: Runtime | None = None
        self._metrics = Metrics()  # of the process: an option that is changed resets no counter
        self._running = False
        self._dns_ports = DnsPorts(
            lambda address: allows(address, ctx.options),
            DnsFlows(lambda hook: ctx.master.addons.handle_lifecycle(hook)),
        )
        self.addons = [CommandBar(lambda: self._service)]
        self._front = EarlyReply(lambda: self._service.responder if self._service is not None else None)
        self._lazy = LazyUpstream()
        self._traffic = TrafficHooks(lambda: self._service, self._lazy)
        self._heads, self._frames = Http1Limits(), Http2Limits()

    def load(self, loader: Loader) -> None:
        self._dns_ports.install()
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
            structured_logging.write_as(ctx.options.acme_log_format, handlers)
        try:
            if updated & options.NAMES or "confdir" in updated:
                self._reconfigure()
            elif "mode" in updated and self._service is not None:
                _require_token(self._service.manager.config)
        except ConfigError as error:
            if self._running:
                raise exceptions.OptionsError(str(error)) from None  # type: ignore[no-untyped-call]
            # An ERROR during the start ends it; raising would put a traceback around the one sentence.
            logger.error("%s", error)
        if self._service is not None and updated & TLS_OPTIONS:
            self._service.contexts.clear()

    def running(self) -> None:
        self._running = True
        if self._service is not None:
            try:
                self._service.start()
            except ConfigError as error:  # an ERROR during the start ends it
                logger.error("%s", error)
        ctx.master.addons.get("proxyserver").servers.changed.connect(self._serve_dns)  # type: ignore[no-untyped-call]
        self._serve_dns_soon()
        self._say_what_is_amiss()

    def done(self) -> asyncio.Task[None] | None:
        """End. mitmproxy awaits what is returned when the process ends, and drops it when a script is reloaded."""
        service, self._service = self._service, None
        self._place()
        self._dns_ports.use(None)
        self._dns_ports.uninstall()
        return service.end() if service is not None else None

    def _reconfigure(self) -> None:
        config = Config.from_options({name: getattr(ctx.options, name) for name in options.NAMES})
        if config.active:
            _require_token(config)
        service = Runtime(config, self._metrics, listens=self._listens) if config.active else None
        if self._service is not None:
            self._service.stop()
        self._service = service
        self._place()
        self._dns_ports.use(service.nameserver if service is not None else None)
        for warning in config.warnings:
            logger.warning("%s", warning)
        if service is not None and self._running:
            service.start()
        if self._running:
            self._serve_dns_soon()

    def _serve_dns_soon(self) -> None:
        asyncio_utils.create_task(self._serve_dns(), name="acme dns ports", keep_ref=True)

    async def _serve_dns(self) -> None:
        await self._dns_ports.serve(ctx.master.addons.get("proxyserver").servers)  # type: ignore[no-untyped-call]

    def _place(self) -> None:
        """Put the addons that have a place of their own in mitmproxy's chain there, while there is work for them."""
        if self._service is None:
            for placed in (self._front, self._traffic, self._heads, self._frames, self._lazy):
                placed.leave()
            return
        self._front.enter()
        self._traffic.enter()
        self._heads.enter()
        self._frames.enter()
        if self._service.manager.config.lazy:
            self._lazy.enter()
        else:
            self._lazy.leave()

    def _say_what_is_amiss(self) -> None:
        for sentence in options.find_misspelt(ctx.options.deferred):
            logger.warning("%s", sentence)
        if self._service is None:
            logger.info("no name may have a certificate; set acme_domains or acme_certificates")
            return
        modes = [mode_specs.ProxyMode.parse(mode) for mode in ctx.options.mode]
        settings = {"mode": list(ctx.options.mode), "listen_port": ctx.options.listen_port}
        if advice := option_conflicts.without_http(self._service.manager.config, settings):
            logger.warning("%s", advice)
        answers_dns = self._service.manager.config.answers_dns
        has_dns_mode = any(is_plain(mode) for mode in modes)
        if answers_dns and not has_dns_mode:
            logger.warning("acme_challenges has one in DNS, and no mode of this proxy is dns; add --mode dns@53")
        if (_has_reverse_mode() or (answers_dns and has_dns_mode)) and ctx.options.block_global:
            logger.warning(
                "block_global is on: a public CA cannot reach this proxy to validate; set block_global=false"
            )


def _require_token(config: Config) -> None:
    """Raise ``ConfigError`` where the admin API needs a token because of mitmproxy's modes."""
    require_token_beside(ctx.options.mode, config.admin, config.admin_token)


def _has_reverse_mode() -> bool:
    return any(isinstance(mode_specs.ProxyMode.parse(mode), mode_specs.ReverseMode) for mode in ctx.options.mode)
