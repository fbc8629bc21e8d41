"""The commands of mitmproxy's command bar and mitmweb's, which other addons can execute too.

This module knows mitmproxy's commands and how their results are shown; ``CertificateService`` decides about
certificates. Commands run on the event loop and return at once: they show what is in memory, and log the outcome of
longer work at ALERT, which mitmproxy highlights in the event log.
"""

import logging
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import mitmproxy.types
from mitmproxy import command, ctx, exceptions
from mitmproxy.log import ALERT
from mitmproxy.utils import asyncio_utils

from acme_storage import StorageError

from ..admin import documents
from ..admin.certificate_rows import CertificateRow
from ..admin.certificate_service import CertificateService, Issued
from ..admin.event_history import EventHistory
from ..admin.inventory import Inventory
from ..core.errors import AcmeError, ConfigError, NameNotAllowed, WrongNode
from ..core.names import ServerName, parse_id
from ..core.revocation import REASONS, Revoked
from ..core.thread_pools import ThreadPools
from ..diagnostics.finding import Finding, Severity
from ..diagnostics.preflight import inspect
from ..lifecycle.manager import Manager

logger = logging.getLogger(__name__)

# A longer table is hard to read, and blocks the interface.
_MOST_ROWS = 200
_MOST_COMPLETIONS = 200
_HEADER = ("name", "state", "expires", "renewal", "issuer")
_EVENTS_HEADER = ("time", "event", "name", "node", "details")


class Serving(Protocol):
    """What runs while the options allow certificates for any name."""

    @property
    def manager(self) -> Manager: ...
    @property
    def inventory(self) -> Inventory: ...
    @property
    def history(self) -> EventHistory: ...


class Name(str):
    """An argument that is the name of a certificate; the command bar completes it."""

    __slots__ = ()


class _NameType(mitmproxy.types._BaseType):
    """How mitmproxy parses and completes a ``Name``; it has no public API for new types."""

    typ = Name
    display = "name"

    def completion(self, manager: command.CommandManager, t: Any, s: str) -> Sequence[str]:
        commands = manager.master.addons.get(CommandBar.name)
        return commands.names(s) if commands is not None else []

    def parse(self, manager: command.CommandManager, typ: Any, s: str) -> Name:
        try:
            return Name(parse_id(s, "name"))
        except ConfigError as error:
            raise ValueError(str(error)) from None

    def is_valid(self, manager: command.CommandManager, typ: Any, val: Any) -> bool:
        return isinstance(val, str)


mitmproxy.types.CommandTypes.typemap[Name] = _NameType()


class CommandBar:
    """An addon within ours. ``serving`` returns what runs now, None while nothing does."""

    name = "acme_commands"

    def __init__(self, serving: Callable[[], Serving | None]) -> None:
        self._serving = serving

    @command.command("acme.list")
    def list(self, search: str = "") -> mitmproxy.types.Data:
        """List the stored certificates, or those whose names contain a text."""
        service = self._require()
        rows, more = service.inventory.select(search=search.lower(), size=_MOST_ROWS)
        trouble = self._trouble(service)
        if not rows:  # one cell: a sentence is too long for a column
            return cast(mitmproxy.types.Data, [[trouble or "no such certificate is stored"]])
        table = [list(_HEADER), *(self._line(row, service.manager.now()) for row in rows)]
        if more:
            left = "more" if search else f"{len(service.inventory) - len(rows)} more"
            table.append(_note(f"… {left}: acme.list PART"))
        if trouble:
            table.append(_note("… and maybe more"))
        return cast(mitmproxy.types.Data, table)

    @command.command("acme.show")
    def show(self, name: Name) -> mitmproxy.types.Data:
        """Show the details of one stored certificate."""
        service = self._require()
        id = service.manager.config.id_of(ServerName(name))
        row = service.inventory.get(id)
        if row is None:
            raise _error(self._trouble(service) or str(service.not_found(id)))
        return cast(mitmproxy.types.Data, [[field, _shown(value)] for field, value in service.describe(row).items()])

    @command.command("acme.events")
    def events(self) -> mitmproxy.types.Data:
        """Show the last events of all nodes, the newest first."""
        self._require()
        serving = cast(Serving, self._serving())
        # Other nodes' events are in memory as they were last read, and those of now at the next call.
        asyncio_utils.create_task(serving.history.read(), name="acme.events", keep_ref=True)
        events = [documents.logged_event(event) for event in serving.history.known()]
        if not events:
            return cast(mitmproxy.types.Data, [["nothing has happened yet"]])
        return cast(mitmproxy.types.Data, [list(_EVENTS_HEADER), *map(_event_line, events)])

    @command.command("acme.issue")
    def issue(self, name: Name) -> None:
        """Obtain the certificate for a name unless it is stored. The event log shows the outcome."""
        service = self._require_allowed(name)
        self._begin(f"acme.issue {name}", service.issue(ServerName(name)))

    @command.command("acme.renew")
    def renew(self, name: Name) -> None:
        """Order a new certificate for a name, due or not. The event log shows the outcome."""
        service = self._require_orders()
        self._begin(f"acme.renew {name}", service.renew(ServerName(name)))

    @command.command("acme.revoke")
    @command.argument("reason", type=mitmproxy.types.Choice("acme.revoke.reasons"))
    def revoke(self, name: Name, reason: str = "unspecified") -> None:
        """Have the CA revoke a certificate, and delete it on all nodes; for keyCompromise, replace it first.

        The event log shows the outcome.
        """
        service = self._require_orders()
        self._begin(f"acme.revoke {name}", service.revoke(ServerName(name), reason))

    @command.command("acme.revoke.reasons")
    def reasons(self) -> Sequence[str]:
        """List the reasons that acme.revoke takes."""
        return [*REASONS]

    @command.command("acme.check")
    def check(self) -> None:
        """Find what would prevent certificates from being issued. The event log shows the findings."""
        self._begin("acme.check", self._check())

    def names(self, begin: str) -> Sequence[str]:
        """Return names to complete: some of those that sort after ``begin``."""
        serving = self._serving()
        if serving is None:
            return []
        managed = [name for subject in serving.manager.config.managed for name in subject.names]
        rows, _ = serving.inventory.select(after=begin, size=_MOST_COMPLETIONS)
        exact = serving.inventory.get(ServerName(begin))
        return sorted({*managed, *(row.id for row in rows), *([exact.id] if exact else [])})

    def _require(self) -> CertificateService:
        serving = self._serving()
        if serving is None:
            raise _error("the options allow no certificates; set acme_domains or acme_certificates")
        return CertificateService(serving.manager, serving.inventory)

    def _require_allowed(self, name: Name) -> CertificateService:
        service = self._require()
        try:
            service.subject(ServerName(name))
        except NameNotAllowed as error:
            raise _error(str(error)) from None
        return service

    def _require_orders(self) -> CertificateService:
        service = self._require()
        try:
            service.require_orders()
        except WrongNode as error:
            raise _error(str(error)) from None
        return service

    def _trouble(self, service: CertificateService) -> str:
        """Say why certificates may be missing from memory; empty if all have been read."""
        if down := service.manager.health.trouble_now:
            return f"storage is down: {down}"
        return "" if service.inventory.complete else "the storage is still being read; try again in a moment"

    def _line(self, row: CertificateRow, now: float) -> Sequence[str]:
        details = row.details
        if details is None:
            return [row.id, row.state(now).value, row.trouble, "", ""]
        due = "no client asks" if details.idle_since is not None else documents.timestamp(details.renew_at)
        times = (documents.timestamp(details.not_after), due)
        return [row.id, row.state(now).value, *times, details.issuer]

    def _begin(self, command: str, work: Coroutine[Any, Any, Issued | Revoked | str]) -> None:
        asyncio_utils.create_task(_log_outcome(command, work), name=command, keep_ref=True)

    async def _check(self) -> str:
        settings = {name: getattr(ctx.options, name) for name in ctx.options.keys()}  # noqa: SIM118  # no mapping
        threads = ThreadPools()  # its own: most people check while nothing runs yet, and a CA may be silent
        try:
            confdir = Path(ctx.options.confdir)
            found = await threads.issuer(lambda: [*inspect(settings, confdir.expanduser())])
        finally:
            threads.close()
        for finding in found:
            level = logging.INFO if finding.outcome is Severity.PASS else logging.WARNING
            logger.log(level, "acme.check: %-4s  %s", finding.outcome.value, finding.what)
        return _counted(found)


async def _log_outcome(command: str, work: Coroutine[Any, Any, Issued | Revoked | str]) -> None:
    try:
        logger.log(ALERT, "%s: %s", command, await work)
    except (AcmeError, StorageError) as error:
        logger.warning("%s: %s", command, error)


def _event_line(event: documents.Document) -> Sequence[str]:
    host = f"{event['host']} and {event['more']} more" if event["more"] else event["host"]
    return [event["at"], event["event"], host, event["machine"] or event["node"], documents.event_details(event)]


def _counted(found: Sequence[Finding]) -> str:
    counts = {outcome: sum(finding.outcome is outcome for finding in found) for outcome in Severity}
    return ", ".join(f"{outcome.value} {count}" for outcome, count in counts.items())


def _note(text: str) -> Sequence[str]:
    return [text, *[""] * (len(_HEADER) - 1)]


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _error(message: str) -> exceptions.CommandError:
    return exceptions.CommandError(message)
