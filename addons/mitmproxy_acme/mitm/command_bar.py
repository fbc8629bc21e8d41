"""Commands: what a person types in mitmproxy's command bar, in mitmweb's, or another addon executes.

This module knows mitmproxy's commands and how their results are shown; it must not decide anything about certificates.
Commands run on the event loop and return at once: what is shown comes from memory, and what takes long is begun and
tells its outcome in the event log, where ALERT draws a person's eye.
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
from ..admin.inventory import Inventory
from ..core.certificate import Certificate
from ..core.errors import AcmeError, ConfigError
from ..core.names import ServerName, Subject, is_address, name_of, options_for, parse_id
from ..core.revocation import REASONS
from ..core.thread_pools import ThreadPools
from ..diagnostics.finding import Finding, Severity
from ..diagnostics.preflight import inspect
from ..lifecycle.manager import Manager

logger = logging.getLogger(__name__)

# A table of more is no help to a person, and holds up the interface.
_MOST_ROWS = 200
_MOST_COMPLETIONS = 200
_HEADER = ("name", "state", "expires", "renewal", "issuer")


class Serving(Protocol):
    """What is running while the options let any name have a certificate."""

    @property
    def manager(self) -> Manager: ...
    @property
    def inventory(self) -> Inventory: ...


class Name(str):
    """An argument that is a name of a certificate; the command bar completes it."""

    __slots__ = ()


class _NameType(mitmproxy.types._BaseType):
    """How mitmproxy reads and completes a ``Name``; it has no public way to say so."""

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
    """An addon within ours. ``serving`` returns what runs at the moment, None while nothing does."""

    name = "acme_commands"

    def __init__(self, serving: Callable[[], Serving | None]) -> None:
        self._serving = serving

    @command.command("acme.list")
    def list(self, search: str = "") -> mitmproxy.types.Data:
        """List the certificates that are stored; with a part of a name, those that have it."""
        serving = self._require()
        rows, more = serving.inventory.select(search=search.lower(), size=_MOST_ROWS)
        trouble = self._still_unread(serving)
        if not rows:  # one cell, for a sentence is too long for a column
            return cast(mitmproxy.types.Data, [[trouble or "no such certificate is stored"]])
        table = [list(_HEADER), *(self._line(row, serving.manager.now()) for row in rows)]
        if more:
            left = "more" if search else f"{len(serving.inventory) - len(rows)} more"
            table.append(_note(f"… {left}: acme.list PART"))
        if trouble:
            table.append(_note("… and maybe others"))
        return cast(mitmproxy.types.Data, table)

    @command.command("acme.show")
    def show(self, name: Name) -> mitmproxy.types.Data:
        """Show all that there is to say of one stored certificate."""
        serving = self._require()
        id = serving.manager.config.id_of(ServerName(name))
        row = serving.inventory.get(id)
        if row is None:
            raise _error(self._still_unread(serving) or f"no certificate is stored for {id}")
        manager = serving.manager
        document = documents.certificate(row, manager.config, manager.now(), serving.inventory.failure_of(id))
        return cast(mitmproxy.types.Data, [[field, _shown(value)] for field, value in document.items()])

    @command.command("acme.issue")
    def issue(self, name: Name) -> None:
        """Obtain the certificate for a name, unless it is stored. The outcome is told in the event log."""
        serving, subject = self._subject(name)
        self._begin(f"acme.issue {subject}", self._issue(serving.manager, subject))

    @command.command("acme.renew")
    def renew(self, name: Name) -> None:
        """Order the certificate for a name anew, due or not. The outcome is told in the event log."""
        serving, subject = self._subject(name)
        self._require_orders(serving)
        self._begin(f"acme.renew {subject}", self._renew(serving.manager, subject))

    @command.command("acme.revoke")
    @command.argument("reason", type=mitmproxy.types.Choice("acme.revoke.reasons"))
    def revoke(self, name: Name, reason: str = "unspecified") -> None:
        """Have the CA revoke a certificate, and delete it on all nodes; keyCompromise replaces it, if that can be done.

        The outcome is told in the event log.
        """
        serving = self._require()
        self._require_orders(serving)
        id = serving.manager.config.id_of(ServerName(name))
        self._begin(f"acme.revoke {id}", self._revoke(serving.manager, id, reason))

    @command.command("acme.revoke.reasons")
    def reasons(self) -> Sequence[str]:
        """List the reasons that acme.revoke takes."""
        return [*REASONS]

    @command.command("acme.check")
    def check(self) -> None:
        """Look for what would keep certificates from coming. The findings are told in the event log."""
        self._begin("acme.check", self._check())

    def names(self, begin: str) -> Sequence[str]:
        """Return names to complete, some of those that sort behind ``begin``."""
        serving = self._serving()
        if serving is None:
            return []
        listed = [name for subject in serving.manager.config.managed for name in subject.names]
        rows, _ = serving.inventory.select(after=begin, size=_MOST_COMPLETIONS)
        exact = serving.inventory.get(ServerName(begin))
        return sorted({*listed, *(row.id for row in rows), *([exact.id] if exact else [])})

    def _require(self) -> Serving:
        serving = self._serving()
        if serving is None:
            raise _error("no name may have a certificate; set acme_domains or acme_certificates")
        return serving

    def _subject(self, name: Name) -> tuple[Serving, Subject]:
        serving = self._require()
        config = serving.manager.config
        subject = config.subject(ServerName(name))
        if subject is None and config.subject(name_of(ServerName(name))) is not None:
            raise _error(f"{name} is of a second kind of key; add that kind to acme_key_type")
        if subject is None:
            option = options_for(ServerName(name))[0]
            right = f"set {option}" if is_address(name_of(ServerName(name))) else f"add it to {option}"
            raise _error(f"{name} is no name that the options let have a certificate; {right}")
        return serving, subject

    def _require_orders(self, serving: Serving) -> None:
        if not serving.manager.config.orders:
            raise _error("this is a data node, which never talks to a CA; ask a control node")

    def _still_unread(self, serving: Serving) -> str:
        if down := serving.manager.health.trouble_now:
            return f"storage is down: {down}"
        return "" if serving.inventory.complete else "the storage is still being read; ask again in a moment"

    def _line(self, row: CertificateRow, now: float) -> Sequence[str]:
        facts = row.facts
        if facts is None:
            return [row.id, row.state(now).value, row.trouble, "", ""]
        times = (documents.timestamp(facts.not_after), documents.timestamp(facts.renew_at))
        return [row.id, row.state(now).value, *times, facts.issuer]

    def _begin(self, what: str, work: Coroutine[Any, Any, str]) -> None:
        asyncio_utils.create_task(_told(what, work), name=what, keep_ref=True)

    async def _issue(self, manager: Manager, subject: Subject) -> str:
        return _valid(await manager.issue(subject))

    async def _renew(self, manager: Manager, subject: Subject) -> str:
        return _valid(await manager.renew(subject))

    async def _revoke(self, manager: Manager, id: ServerName, reason: str) -> str:
        return str(await manager.revoke(id, reason))

    async def _check(self) -> str:
        settings = {name: getattr(ctx.options, name) for name in ctx.options.keys()}  # noqa: SIM118  # no mapping
        threads = ThreadPools()  # of its own: it is asked for most where nothing runs, and a CA may be silent
        try:
            confdir = Path(ctx.options.confdir)
            found = await threads.issuer(lambda: [*inspect(settings, confdir.expanduser())])
        finally:
            threads.close()
        for finding in found:
            level = logging.INFO if finding.outcome is Severity.PASS else logging.WARNING
            logger.log(level, "acme.check: %-4s  %s", finding.outcome.value, finding.what)
        return _counted(found)


async def _told(what: str, work: Coroutine[Any, Any, str]) -> None:
    try:
        logger.log(ALERT, "%s: %s", what, await work)
    except (AcmeError, StorageError) as error:
        logger.warning("%s: %s", what, error)


def _valid(certificate: Certificate) -> str:
    return f"valid until {documents.timestamp(certificate.not_after)}, by {certificate.issuer_name}"


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
