"""mitmdump as ``run`` starts it: with the addon, on uvloop, without its chatter, quicker in its hooks, and able to
share its ports.

This module knows mitmproxy's start and stands above ``addon``, as the shim does; only ``run`` imports it. mitmproxy
12.2 has no argument for the event loop or for SO_REUSEPORT, so two of its modules are shown another ``asyncio``.
"""

import asyncio
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
from mitmproxy.options import Options
from mitmproxy.proxy import mode_servers, mode_specs
from mitmproxy.tools import dump, main

from .addon import AcmeAddon
from .supervisor import WorkerSlot

logger = logging.getLogger(__name__)

_SCRIPT = "acme_addon.py"
_ONE_WRITER = ("save_stream_file", "hardump")
_ALONE = (mode_specs.WireGuardMode, mode_specs.LocalMode, mode_specs.TunMode, mode_specs.OsProxyMode)

type LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def start(arguments: Sequence[str], post: WorkerSlot | None = None) -> int:
    """Be mitmdump until a signal ends it; ``post`` is given to one of several that share the ports.

    Raises ``SystemExit`` with mitmdump's code where it cannot start. Changes modules of mitmproxy and ``sys.argv``: the
    process is mitmdump from here on.
    """
    sys.argv = ["mitmproxy-acme run", *arguments]  # mitmproxy names itself by it, and looks there for old options
    factory, loop = _choose_loop()
    if factory is not None:
        main.asyncio = _like(asyncio, run=partial(asyncio.run, loop_factory=factory))  # type: ignore[attr-defined]  # imported for itself
    if post is not None:
        _share_ports(post)
    listing = not {"--options", "--commands"}.isdisjoint(arguments)
    dump.DumpMaster = partial(_Master, post, loop, listing)  # type: ignore[assignment, misc]  # it is only ever called
    main.mitmdump(arguments)
    return 0


class _Master(dump.DumpMaster):
    """mitmdump's, which takes the addon in when all options are read and nothing listens yet.

    ``-s`` in front of the arguments would not do: it replaces the scripts of config.yaml, and scripts load after the
    ports are open.
    """

    def __init__(self, post: WorkerSlot | None, loop: str, listing: bool, opts: Options) -> None:
        super().__init__(opts)
        self.addons.__class__ = _Addons
        self._post, self._loop = post, loop
        if listing:  # mitmdump ends before it runs, and what the addon brings belongs to the list
            self.addons.register(AcmeAddon())  # type: ignore[no-untyped-call]

    async def run(self) -> None:
        logger.debug("the event loop is %s", self._loop)
        if self.options.termlog_verbosity != "debug" and not self.options.proxy_debug:
            # two lines for each connection, a sixth of what a handshake costs (measured)
            logging.getLogger("mitmproxy.proxy.server").setLevel(logging.WARNING)
        self._drop_script()
        self._add_addon()
        await super().run()

    async def running(self) -> None:
        await super().running()
        failed = self.addons.get("errorcheck").logger.has_errored  # type: ignore[no-untyped-call]
        if self._post is not None and not failed:
            self._post.say_up()

    def _drop_script(self) -> None:
        """Leave our own script out where config.yaml names it for mitmdump: mitmproxy refuses a second addon."""
        others = [script for script in self.options.scripts if Path(script.strip("'\" ")).name != _SCRIPT]
        if others != self.options.scripts:
            logger.info("%s of the option scripts is left out: run brings the addon", _SCRIPT)
            self.options.update(scripts=others)  # type: ignore[no-untyped-call]

    def _add_addon(self) -> None:
        """Put the addon where ``-s`` would put it, before mitmproxy's own TLS."""
        addon = AcmeAddon(listens=self._post is None or self._post.number == 1)
        scripts = self.addons.get("scriptloader")  # type: ignore[no-untyped-call]
        self.addons.register(addon)  # type: ignore[no-untyped-call]
        self.addons.chain.insert(self.addons.chain.index(scripts), addon)
        if self._post is not None and (refusal := _why_not_shared(self.options)):
            logger.error("%s", refusal)  # an ERROR during the start ends it
            return
        self.addons.invoke_addon_sync(addon, hooks.ConfigureHook(set(self.options.keys())))  # type: ignore[no-untyped-call]


class _Addons(AddonManager):
    """mitmproxy's, which remembers who takes which event.

    For each of the ten events of a connection mitmproxy looks for a method in each of its thirty addons: a quarter of
    what a handshake costs (measured). An addon that holds others, as the one of the scripts, is asked each time.
    """

    _known: Sequence[object] = ()
    _takers: Mapping[str, Sequence[object]] = {}

    async def trigger_event(self, event: hooks.Hook) -> None:
        for addon in self._who_takes(event.name):
            try:
                with safecall():
                    await self.invoke_addon(addon, event)
            except exceptions.AddonHalt:
                return

    def _who_takes(self, event: str) -> Sequence[object]:
        if self._known != self.chain:  # thirty comparisons of what is mostly identical
            self._known, self._takers = list(self.chain), {}
        if event not in self._takers:
            takers = [addon for addon in self._known if hasattr(addon, event) or hasattr(addon, "addons")]
            self._takers = {**self._takers, event: takers}
        return self._takers[event]


def _why_not_shared(opts: Options) -> str | None:
    """Return one sentence on what several workers cannot do with these options, if there is something."""
    if opts.acme_storage.lower().startswith("memory:"):
        return "acme_storage: each worker would have certificates of its own in memory:; name a storage that they share"
    for name in _ONE_WRITER:
        if getattr(opts, name):
            return f"{name}: several workers cannot write one file; leave it out, or run one worker"
    for mode in opts.mode:
        if isinstance(mode_specs.ProxyMode.parse(mode), _ALONE):
            return f"mode: {mode} cannot be shared by several workers; run it with one worker"
    return None


# Event loop


def _choose_loop() -> tuple[LoopFactory | None, str]:
    """Return uvloop's factory where uvloop is installed and works, else None; and the loop in words."""
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
    except Exception as error:  # whatever a future version does, a slower loop is better than none
        return None, f"asyncio's own: uvloop {version} does not work here ({error!r})"
    return Loop, f"uvloop {version}"


def _create_task(
    factory: Callable[..., asyncio.Task[Any]],
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Any],
    **how: Any,
) -> asyncio.Task[Any]:
    """Call mitmproxy's task factory, asyncio.eager_task_factory, without the ``eager_start=None`` that uvloop adds.

    CPython 3.13.0's does not know that argument (TypeError, seen), and to a later one it means not eager.
    """
    if how.get("eager_start", ...) is None:
        del how["eager_start"]
    return factory(loop, coroutine, **how)


def _try(factory: LoopFactory) -> None:
    """Do with a loop what mitmproxy does first."""
    loop, pause = factory(), asyncio.sleep(0)
    try:
        loop.set_task_factory(asyncio.eager_task_factory)
        loop.run_until_complete(pause)
    finally:
        pause.close()
        loop.close()


def _like(module: ModuleType, **others: object) -> Any:
    """Return what has all names of a module, some of them with another meaning."""
    return SimpleNamespace(**vars(module) | others)


# Ports


def _share_ports(post: WorkerSlot) -> None:
    """Listen on TCP with SO_REUSEPORT, and on UDP in the first worker only.

    mitmproxy's UDP sockets, made in Rust, cannot be shared; and the packets of one QUIC connection would not stay with
    one worker when the client's address changes.
    """
    listen = _listen_first if post.early else partial(asyncio.start_server, reuse_port=True)
    mode_servers.asyncio = _like(asyncio, start_server=listen)  # type: ignore[attr-defined]  # imported for itself
    if post.number > 1:
        mode_servers.AsyncioServerInstance.start_udp_based_server = _no_udp  # type: ignore[method-assign, assignment]


async def _listen_first(serve: Any, host: str, port: int) -> asyncio.Server:
    """Listen so that other workers can, after a look whether anybody does: the kernel would let two of us share too."""
    alone = await asyncio.start_server(serve, host, port, start_serving=False)
    alone.close()
    await alone.wait_closed()
    return await asyncio.start_server(serve, host, port, reuse_port=True)


class _Silence:
    """A UDP server that is none, with what mitmproxy asks of one."""

    sockets = ()

    def getsockname(self) -> tuple[str, int]:
        return "", 0

    def close(self) -> None:
        pass


async def _no_udp(_instance: object, _host: str, _port: int) -> _Silence:
    return _Silence()
