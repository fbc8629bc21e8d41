"""The addon that mitmproxy loads: its options, and what begins and ends with it.

This module knows mitmproxy; it must not decide anything about certificates. It builds everything, once:

    AcmeAddon         among the scripts: ``load``, ``configure``, ``running``, ``done``
      CommandBar      the commands (``acme.list``, …)
      ChallengeHooks  first in mitmproxy's chain of addons: requests for http-01 challenges
      TrafficHooks    behind the scripts: all other hooks of connections and flows
      Http1Limits, Http2Limits, Streams, DnsPorts: put in the place of parts of mitmproxy
      PunycodeErrors: put in the place of a part of Python

and one ``Runtime`` for each configuration: the manager, and the parts that answer hooks. ``_use`` is the one place
where the hooks get a runtime, or lose it.
"""

import asyncio
import logging

from mitmproxy import ctx, exceptions
from mitmproxy.addonmanager import Loader
from mitmproxy.addons.termlog import TermLogHandler
from mitmproxy.proxy import commands, mode_specs
from mitmproxy.utils import asyncio_utils

from ..admin.metrics import Metrics
from ..config import options
from ..config.admin_settings import require_token_beside
from ..config.config import Config
from ..config.misspelt_options import find_misspelt
from ..core import structured_logging
from ..core.errors import ConfigError
from ..diagnostics import option_conflicts, upstream_check
from ..lifecycle.predecessor import Predecessor
from .command_bar import CommandBar
from .dns.flows import DnsFlows
from .dns.nameserver import is_plain
from .dns.ports import DnsPorts, allows
from .http.challenge_hooks import ChallengeHooks
from .http.http1_limits import Http1Limits
from .http.http2_limits import Http2Limits
from .http.routed_stream import Streams
from .option_loading import add_options
from .punycode_errors import PunycodeErrors
from .runtime import Runtime
from .tls.contexts import TLS_OPTIONS
from .traffic_hooks import TrafficHooks

logger = logging.getLogger(__name__)


class AcmeAddon:
    """The addon. mitmproxy calls its methods on the event loop."""

    def __init__(self, *, listens: bool = True) -> None:
        """``listens`` says whether this process opens the admin API: of several workers one does."""
        self._listens = listens
        self._is_running = False
        self._runtime: Runtime | None = None
        self._metrics = Metrics()  # of the process: a changed option resets no counter
        self._challenge_hooks = ChallengeHooks()
        self._traffic_hooks = TrafficHooks()
        self._http1_limits, self._http2_limits = Http1Limits(), Http2Limits()
        self._streams = Streams()
        self._punycode_errors = PunycodeErrors()
        self._dns_ports = DnsPorts(_is_client_allowed, DnsFlows(_handle_hook))
        self.addons = [CommandBar(self.runtime)]

    def runtime(self) -> Runtime | None:
        """Return what the options of now run; None while no name may have a certificate."""
        return self._runtime

    def load(self, loader: Loader) -> None:
        self._dns_ports.install()
        add_options(loader, options.OPTIONS)

    def configure(self, updated: set[str]) -> None:
        """Check the options and run what they say.

        A wrong option ends the start. Later it raises ``OptionsError``: mitmproxy takes the change back, and the
        runtime of before goes on.
        """
        if "acme_log_format" in updated:
            handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, TermLogHandler)]
            structured_logging.set_log_format(ctx.options.acme_log_format, handlers)
        try:
            if updated & options.NAMES or "confdir" in updated:
                self._reconfigure()
            elif "mode" in updated and self._runtime is not None:
                _require_token(self._runtime.manager.config)
        except ConfigError as error:
            if self._is_running:
                raise exceptions.OptionsError(str(error)) from None  # type: ignore[no-untyped-call]
            # An ERROR during the start ends it; an exception would put a traceback around the one sentence.
            logger.error("%s", error)
        if self._runtime is not None and updated & TLS_OPTIONS:
            self._runtime.contexts.clear()

    def running(self) -> None:
        self._is_running = True
        if self._runtime is not None:
            try:
                self._runtime.start()
            except ConfigError as error:  # an ERROR during the start ends it
                logger.error("%s", error)
        ctx.master.addons.get("proxyserver").servers.changed.connect(self._serve_dns)  # type: ignore[no-untyped-call]
        self._serve_dns_soon()
        for sentence in find_misspelt(ctx.options.deferred):
            logger.warning("%s", sentence)
        if self._runtime is not None:
            _warn_of_modes(self._runtime.manager.config)
        else:
            logger.info("no name may have a certificate; set acme_domains or acme_certificates")

    def done(self) -> asyncio.Task[None] | None:
        """End. mitmproxy awaits what is returned when the process ends, and drops it when a script is reloaded."""
        runtime = self._runtime
        if runtime is not None and ctx.master.should_exit.is_set():
            # The ports stay open until the last work is done; mitmproxy's own certificate would be served there.
            runtime.handshakes.is_ending = True
            self._challenge_hooks.responder = None
            self._dns_ports.use(None)
        else:
            self._use(None)
        self._dns_ports.uninstall()
        return runtime.end() if runtime is not None else None

    def _reconfigure(self) -> None:
        """Replace the runtime by one with the options of now. Raises ``ConfigError`` and changes nothing then."""
        config = Config.from_options({name: getattr(ctx.options, name) for name in options.NAMES})
        runtime = None
        if config.active:
            _require_token(config)
            runtime = Runtime(
                config, self._metrics, listens=self._listens, predecessor=_predecessor(self._runtime, config)
            )
        if self._runtime is not None:
            self._runtime.stop()
        self._use(runtime)
        for warning in config.warnings:
            logger.warning("%s", warning)
        if self._is_running:
            if runtime is not None:
                runtime.start()
            self._serve_dns_soon()

    def _use(self, runtime: Runtime | None) -> None:
        """Have mitmproxy's hooks reach this runtime from now on; None takes ours out of mitmproxy."""
        self._runtime = runtime
        self._challenge_hooks.responder = runtime.responder if runtime is not None else None
        self._traffic_hooks.runtime = runtime
        self._dns_ports.use(runtime.nameserver if runtime is not None else None)
        if runtime is not None:
            self._streams.install(runtime.router)
        else:
            self._streams.uninstall()
        limits = self._http1_limits, self._http2_limits, self._punycode_errors
        for part in (self._challenge_hooks, self._traffic_hooks, *limits):
            if runtime is not None:
                part.install()
            else:
                part.uninstall()

    def _serve_dns_soon(self) -> None:
        asyncio_utils.create_task(self._serve_dns(), name="acme dns ports", keep_ref=True)

    async def _serve_dns(self) -> None:
        await self._dns_ports.serve(ctx.master.addons.get("proxyserver").servers)  # type: ignore[no-untyped-call]


def _predecessor(runtime: Runtime | None, config: Config) -> Predecessor | None:
    """Return what the next runtime asks before it orders, if its storage is another."""
    if runtime is None or runtime.manager.config.storage == config.storage:
        return None
    return runtime.lend()


def _warn_of_modes(config: Config) -> None:
    """Log what is missing among mitmproxy's own options for this configuration to work."""
    modes = [mode_specs.ProxyMode.parse(mode) for mode in ctx.options.mode]
    settings = {"mode": list(ctx.options.mode), "listen_port": ctx.options.listen_port}
    for rule in (option_conflicts.without_http, option_conflicts.without_routing):
        if advice := rule(config, settings):
            logger.warning("%s", advice)
    if advice := upstream_check.without_certificate(config):
        logger.warning("%s", advice)
    has_dns_mode = any(is_plain(mode) for mode in modes)
    if config.answers_dns and not has_dns_mode:
        logger.warning("acme_challenges has a DNS challenge, but this proxy has no dns mode; add --mode dns@53")
    has_reverse_mode = any(isinstance(mode, mode_specs.ReverseMode) for mode in modes)
    if (has_reverse_mode or (config.answers_dns and has_dns_mode)) and ctx.options.block_global:
        logger.warning("block_global is on: a public CA cannot reach this proxy to validate; set block_global=false")


def _require_token(config: Config) -> None:
    """Raise ``ConfigError`` if the admin API needs a token because of mitmproxy's modes, and has none."""
    require_token_beside(ctx.options.mode, config.admin, config.admin_token)


def _is_client_allowed(address: str) -> bool:
    return allows(address, ctx.options)


async def _handle_hook(hook: commands.StartHook) -> None:
    await ctx.master.addons.handle_lifecycle(hook)
