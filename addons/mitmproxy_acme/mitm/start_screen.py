"""What ``serve`` prints once its names are served: the URLs, the certificates, the status page.

This module knows what to print, and when; it must not know how a certificate is obtained.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from mitmproxy import ctx
from mitmproxy.utils import asyncio_utils

from acme_storage import StorageError

from ..config.admin_settings import AdminAddress
from ..config.config import Config
from ..core.events import CertificateFailed, CertificateObtained
from ..core.names import ServerName
from ..core.text import one_line
from .launch import ServedSite
from .runtime import Runtime

# Seconds. Let's Encrypt takes 1 to 10 for a name; who waits longer wants to know that nothing is stuck.
_WITHIN = 30.0


class StartScreen:
    """An addon that prints the screen when every managed certificate is there or has failed, or after 30 s."""

    name = "acme_start_screen"

    def __init__(
        self, runtime: Callable[[], Runtime | None], sites: Sequence[ServedSite], write: Callable[[str], None]
    ) -> None:
        self._runtime, self._sites, self._write = runtime, sites, write
        self._changed = asyncio.Event()

    def running(self) -> None:
        asyncio_utils.create_task(self._show(), name="acme start screen", keep_ref=True)

    def acme_certificate_obtained(self, event: CertificateObtained) -> None:
        self._changed.set()

    def acme_certificate_failed(self, event: CertificateFailed) -> None:
        self._changed.set()

    async def _show(self) -> None:
        runtime = self._runtime()
        if runtime is None:
            return
        try:
            async with asyncio.timeout(_WITHIN):
                states = await self._settled(runtime)
        except TimeoutError:
            states = await self._states(runtime)
        self._write("\n".join(self._lines(runtime.manager.config, states)))

    async def _settled(self, runtime: Runtime) -> dict[str, str]:
        while True:
            self._changed.clear()
            states = await self._states(runtime)
            if all(states.values()):
                return states
            await self._changed.wait()

    async def _states(self, runtime: Runtime) -> dict[str, str]:
        """Return a text for each managed name; empty while its certificate is on its way."""
        names = [site.name for site in self._sites if site.managed]
        try:
            await runtime.inventory.read_failures()
            return {name: await _state(runtime, ServerName(name)) for name in names}
        except StorageError as error:
            return dict.fromkeys(names, f"not known: {error}")

    def _lines(self, config: Config, states: dict[str, str]) -> Iterator[str]:
        yield "\nmitmproxy-acme serves these sites. Ctrl-C ends it.\n"
        for site in self._sites:
            yield f"  {site.url}"
            yield f"    upstream     {site.upstream}"
            if site.managed:
                yield f"    certificate  {states[site.name] or 'still being obtained; the log says more'}"
            else:
                yield "    certificate  one for each name, obtained when a client first asks for it"
        yield f"\n  status page    {_status_page(config)}"
        if web_url := getattr(ctx.master, "web_url", ""):
            yield f"  traffic        {web_url}"
        if staging := [entry.ca for entry in config.issuers if entry.ca.endswith("-staging")]:
            yield f"  CA             {staging[0]}, for tests: clients do not trust its certificates"
        yield ""


async def _state(runtime: Runtime, name: ServerName) -> str:
    """Return a text for one name; empty while a certificate of a configured CA is on its way."""
    manager, inventory = runtime.manager, runtime.inventory
    if (subject := manager.config.subject(name)) is None:
        return ""
    row, slot = await inventory.read(subject.id), await manager.threads.storage(manager.store.slot, subject.id)
    # of the name, on any node; or of all CAs
    failure = inventory.failure_of(subject.id) or manager.backoffs.stopped()
    valid = ""
    if row is not None and row.details is not None and row.is_valid(manager.now()):
        details = row.details
        valid = f"valid until {_day(details.not_after)}, by {details.issuer}; renewal about {_day(details.renew_at)}"
        if slot.certificate is not None and manager.is_wanted(subject, slot.certificate):
            return valid
    if failure is None:
        return ""
    failed = f"{one_line(failure.reason)}; next attempt at {_day(failure.until)}"
    return f"{valid}; a new one failed: {failed}" if valid else f"none: {failed}"


def _status_page(config: Config) -> str:
    match config.admin:
        case None:
            return "none; --status 127.0.0.1:8008 opens it"
        case AdminAddress():
            return f"http://{config.admin}/"
    return str(config.admin)


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
