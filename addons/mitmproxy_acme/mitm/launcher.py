"""mitmdump, mitmweb or mitmproxy as ``run`` and ``serve`` start them: with the addon, on uvloop, with faster hooks; and
mitmdump with fewer log lines, and able to share its ports.

This module knows how mitmproxy starts; like the shim it is above ``addon``, and only those commands import it.
mitmproxy 12.2 has no argument for the event loop or for SO_REUSEPORT, so two of its modules get another ``asyncio``.
"""

import asyncio
import gc
import logging
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from mitmproxy import exceptions, hooks
from mitmproxy.addonmanager import AddonManager, safecall
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy import mode_servers, mode_specs
from mitmproxy.tools import main

from .addon import AcmeAddon
from .launch import Launch, Tool
from .start_screen import StartScreen
from .supervisor import WorkerSlot

logger = logging.getLogger(__name__)

_SCRIPT = "acme_addon.py"
_ONE_WRITER = ("save_stream_file", "hardump")
_ALONE = (mode_specs.WireGuardMode, mode_specs.LocalMode, mode_specs.TunMode, mode_specs.OsProxyMode)

type LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def start(launch: Launch, slot: WorkerSlot | None = None) -> int:
    """Run the tool until a signal or a person ends it; ``slot`` is that of one of several workers that share the ports.

    Raises ``SystemExit`` with the tool's exit code if it cannot start. Changes modules of mitmproxy and ``sys.argv``:
    the process is that tool from here on.
    """
    sys.argv = [f"mitmproxy-acme {launch.command}", *launch.arguments]  # mitmproxy reads its name and old options there
    factory, loop = _choose_loop()
    if factory is not None:
        main.asyncio = _like(asyncio, run=partial(asyncio.run, loop_factory=factory))  # type: ignore[attr-defined]  # imported for itself
    if slot is not None:
        _share_ports(slot)
    _replace_master(launch, slot, loop)
    # each reads its arguments, makes its master and runs it
    {Tool.DUMP: main.mitmdump, Tool.WEB: main.mitmweb, Tool.CONSOLE: main.mitmproxy}[launch.tool](launch.arguments)
    return 0


def _replace_master(launch: Launch, slot: WorkerSlot | None, loop: str) -> None:
    """Have mitmproxy make a master of ours in place of the tool's; only the tool that is started is imported."""
    match launch.tool:
        case Tool.DUMP:
            from mitmproxy.tools import dump

            class DumpMaster(_WithAddon, dump.DumpMaster):
                pass

            dump.DumpMaster = partial(DumpMaster, launch, slot, loop)  # type: ignore[assignment, misc]  # it is only ever called
        case Tool.WEB:
            from mitmproxy.tools.web import master as web

            class WebMaster(_WithAddon, web.WebMaster):
                pass

            web.WebMaster = partial(WebMaster, launch, slot, loop)  # type: ignore[assignment, misc]
        case Tool.CONSOLE:
            from mitmproxy.tools.console import master as console

            class ConsoleMaster(_WithAddon, console.ConsoleMaster):
                pass

            console.ConsoleMaster = partial(ConsoleMaster, launch, slot, loop)  # type: ignore[assignment, misc]


class _WithAddon(Master):
    """A tool's master, which adds our addon when all options are read and nothing listens yet.

    A ``-s`` before the arguments would not work: it replaces the scripts of config.yaml, and scripts load after the
    ports are open.
    """

    def __init__(self, launch: Launch, slot: WorkerSlot | None, loop: str, opts: Options) -> None:
        super().__init__(opts)
        self.addons.__class__ = _Addons
        self._launch, self._slot, self._loop = launch, slot, loop
        if not {"--options", "--commands"}.isdisjoint(launch.arguments):
            # the tool ends before it runs, and the list includes our options and commands
            self.addons.register(AcmeAddon())  # type: ignore[no-untyped-call]

    async def run(self) -> None:
        logger.debug("the event loop is %s", self._loop)
        is_dump = self._launch.tool is Tool.DUMP
        if is_dump and self.options.termlog_verbosity != "debug" and not self.options.proxy_debug:
            # Two lines for each connection are a sixth of what a handshake costs (measured).
            logging.getLogger("mitmproxy.proxy.server").setLevel(logging.WARNING)
        self._apply_settings()
        self._drop_script()
        self._add_addon()
        await super().run()

    async def running(self) -> None:
        await super().running()
        # What the start has made stays: each full pass of the garbage collector stopped the loop for it (measured).
        gc.collect()
        gc.freeze()
        has_failed = self.addons.get("errorcheck").logger.has_errored  # type: ignore[no-untyped-call]
        if self._slot is not None and not has_failed:
            self._slot.report_ready()

    def _apply_settings(self) -> None:
        """Override the options of the files. Raises ``SystemExit`` with the code of a wrong ``--set``."""
        try:
            self.options.set(*self._launch.settings, defer=True)
        except exceptions.OptionsError as error:
            print(f"mitmproxy-acme {self._launch.command}: {error}", file=sys.stderr)
            sys.exit(1)

    def _drop_script(self) -> None:
        """Leave out our own script if config.yaml has it for mitmdump: mitmproxy refuses a second addon."""
        others = [script for script in self.options.scripts if Path(script.strip("'\" ")).name != _SCRIPT]
        if others != self.options.scripts:
            logger.info("%s in the option scripts is ignored: run loads the addon itself", _SCRIPT)
            self.options.update(scripts=others)  # type: ignore[no-untyped-call]

    def _add_addon(self) -> None:
        """Add the addon where ``-s`` would add it, before mitmproxy's own TLS."""
        is_first = self._slot is None or self._slot.number == 1
        addon = AcmeAddon(listens=is_first)
        scripts = self.addons.get("scriptloader")  # type: ignore[no-untyped-call]
        self.addons.register(addon)  # type: ignore[no-untyped-call]
        self.addons.chain.insert(self.addons.chain.index(scripts), addon)
        if self._launch.sites and is_first and self._launch.tool is not Tool.CONSOLE:
            self.addons.add(StartScreen(addon.runtime, self._launch.sites, partial(print, flush=True)))  # type: ignore[no-untyped-call]
        if self._slot is not None and (problem := _find_unshareable(self.options)):
            logger.error("%s", problem)  # an ERROR during the start ends it
            return
        self.addons.invoke_addon_sync(addon, hooks.ConfigureHook(set(self.options.keys())))  # type: ignore[no-untyped-call]


class _Addons(AddonManager):
    """mitmproxy's, which remembers which addons receive which event.

    For each of the ten events of a connection mitmproxy looks for a method in each of its thirty addons: a quarter of
    what a handshake costs (measured). An addon that contains others, such as the script loader, is asked each time.
    """

    _known_chain: Sequence[object] = ()
    _receivers: Mapping[str, Sequence[object]] = {}

    async def trigger_event(self, event: hooks.Hook) -> None:
        for addon in self._receivers_of(event.name):
            try:
                with safecall():
                    await self.invoke_addon(addon, event)
            except exceptions.AddonHalt:
                return

    def _receivers_of(self, event: str) -> Sequence[object]:
        if self._known_chain != self.chain:  # thirty comparisons, mostly of identical objects
            self._known_chain, self._receivers = list(self.chain), {}
        if event not in self._receivers:
            receivers = [addon for addon in self._known_chain if hasattr(addon, event) or hasattr(addon, "addons")]
            self._receivers = {**self._receivers, event: receivers}
        return self._receivers[event]


def _find_unshareable(opts: Options) -> str | None:
    """Return a sentence about an option that several workers cannot have in common, if there is one."""
    if opts.acme_storage.lower().startswith("memory:"):
        return "acme_storage: each worker would have its own certificates in memory:; use a storage that they share"
    for name in _ONE_WRITER:
        if getattr(opts, name):
            return f"{name}: several workers cannot write one file; remove the option, or run one worker"
    for mode in opts.mode:
        if isinstance(mode_specs.ProxyMode.parse(mode), _ALONE):
            return f"mode: {mode} cannot be shared by several workers; run one worker"
    return None


# Event loop


def _choose_loop() -> tuple[LoopFactory | None, str]:
    """Return uvloop's factory if uvloop is installed and works, else None; and the name of the loop."""
    if sys.platform == "win32":
        return None, "asyncio's own: uvloop does not exist for Windows"
    try:
        import uvloop
    except ImportError:
        return None, "asyncio's own: uvloop is not installed"

    version = metadata.version("uvloop")

    class Loop(uvloop.Loop):
        def set_task_factory(self, factory: Any) -> None:
            super().set_task_factory(None if factory is None else partial(_create_task, factory))

    try:
        _try(Loop)
    except Exception as error:  # any failure of a future version: a slower loop is better than none
        return None, f"asyncio's own: uvloop {version} does not work here ({error!r})"
    return Loop, f"uvloop {version}"


def _create_task(
    factory: Callable[..., asyncio.Task[Any]],
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Any],
    **options: Any,
) -> asyncio.Task[Any]:
    """Call mitmproxy's task factory, asyncio.eager_task_factory, without the ``eager_start=None`` that uvloop adds.

    CPython 3.13.0's factory does not know that argument (TypeError, seen), and a later one takes it as "not eager".
    """
    if options.get("eager_start", ...) is None:
        del options["eager_start"]
    return factory(loop, coroutine, **options)


def _try(factory: LoopFactory) -> None:
    """Do with a loop what mitmproxy does with it first. Raises what it raises."""
    loop, pause = factory(), asyncio.sleep(0)
    try:
        loop.set_task_factory(asyncio.eager_task_factory)
        loop.run_until_complete(pause)
    finally:
        pause.close()
        loop.close()


def _like(module: ModuleType, **replaced: object) -> Any:
    """Return a namespace with all names of a module, some of them replaced."""
    return SimpleNamespace(**vars(module) | replaced)


# Ports


def _share_ports(slot: WorkerSlot) -> None:
    """Listen on TCP with SO_REUSEPORT, and on UDP in the first worker only.

    mitmproxy's UDP sockets, made in Rust, cannot be shared. And when a client's address changes, the packets of its
    QUIC connection would go to another worker.
    """
    listen = _listen_first if slot.starts_alone else partial(asyncio.start_server, reuse_port=True)
    mode_servers.asyncio = _like(asyncio, start_server=listen)  # type: ignore[attr-defined]  # imported for itself
    if slot.number > 1:
        mode_servers.AsyncioServerInstance.start_udp_based_server = _no_udp  # type: ignore[method-assign, assignment]


async def _listen_first(serve: Any, host: str, port: int) -> asyncio.Server:
    """Listen so that other workers can listen too, after checking that no other proxy does.

    With SO_REUSEPORT the kernel would let two proxies share the port.
    """
    unshared = await asyncio.start_server(serve, host, port, start_serving=False)
    unshared.close()
    await unshared.wait_closed()
    return await asyncio.start_server(serve, host, port, reuse_port=True)


class _NoUdpServer:
    """What mitmproxy gets in the place of a UDP server."""

    sockets = ()

    def getsockname(self) -> tuple[str, int]:
        return "", 0

    def close(self) -> None:
        pass


async def _no_udp(_instance: object, _host: str, _port: int) -> _NoUdpServer:
    return _NoUdpServer()
