"""Deploy hook: the operator's command (``acme_deploy_hook``), run with each certificate that this node obtains.

This module knows processes; it must not know what the command does. The command gets its files as certbot gives them
(``RENEWED_LINEAGE``, ``RENEWED_DOMAINS``), in a folder that only this user can read and that is removed when it ends.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Collection
from pathlib import Path

from ...config.config import Config
from ...config.options import OPTIONS
from ...core.events import CertificateObtained, Event, Events
from ...core.names import ServerName
from ...core.operating_system import Command, end_group, kill_group, start_group
from ...core.structured_logging import fields
from ...core.thread_pools import ThreadPools
from . import files as deploy_files
from .output import HookOutput

logger = logging.getLogger(__name__)

_TIMEOUT = 120.0
_AT_ONCE = 4
_GRACE = 2.0
# Seconds. A process that the command leaves in the background may keep its output open; nothing waits for that.
_LAST_LINES = 0.5
_CHUNK = 4_096
# What the stores and dns-lexicon read from the environment, and the names that the documentation gives to the options'
# secrets. The command needs none of them, and may log or pass on what it finds.
_SECRET_VARIABLES = frozenset(
    {
        *("PGPASSWORD", "REDISCLI_AUTH", "CONSUL_HTTP_TOKEN", "CONSUL_HTTP_AUTH", "VAULT_TOKEN"),
        *(option.name.upper() for option in OPTIONS),
    }
)
_LEXICON = "LEXICON_"


class DeployHook:
    """Runs the command for the certificates of one node: one at a time for a name, a few in all.

    Of several certificates of a name that wait, only the newest is deployed. Use it from one event loop; ``timeout``
    and ``grace``, the seconds from SIGTERM to SIGKILL, are arguments for tests.
    """

    def __init__(
        self,
        config: Config,
        threads: ThreadPools,
        events: Events,
        *,
        timeout: float = _TIMEOUT,
        grace: float = _GRACE,
    ) -> None:
        self._command = config.deploy_hook
        self._secrets = _SECRET_VARIABLES | config.secret_variables
        self._threads = threads
        self._timeout, self._grace = timeout, grace
        self._waiting: dict[ServerName, CertificateObtained] = {}
        self._tasks: dict[ServerName, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._sweeping: asyncio.Task[None] | None = None
        events.subscribe(self._happened)

    def start(self) -> None:
        """Begin to remove the files, with their keys, of processes that were killed while their command ran."""
        # Started on the loop itself: the reference that must be kept is the one here.
        sweep = self._threads.background(deploy_files.sweep)
        self._sweeping = asyncio.get_running_loop().create_task(sweep, name="acme deploy sweep")

    async def wait_idle(self) -> None:
        """Wait until every command has ended."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def close(self) -> None:
        """End the commands that run, with all that they started; forget those that wait."""
        self._waiting.clear()
        for task in self._tasks.values():
            task.cancel()
        await self.wait_idle()

    def _happened(self, event: Event) -> None:
        if not isinstance(event, CertificateObtained):
            return
        id = event.subject.id
        self._waiting[id] = event
        if id not in self._tasks:
            self._begin(id)

    def _begin(self, id: ServerName) -> None:
        # Started on the loop itself: the reference that must be kept is the one in the dict.
        task = asyncio.get_running_loop().create_task(self._in_turn(id), name=f"acme deploy {id}")
        self._tasks[id] = task
        task.add_done_callback(lambda _: self._ended(id))

    def _ended(self, id: ServerName) -> None:
        del self._tasks[id]
        if id in self._waiting:  # it came while the one before ran
            self._begin(id)

    async def _in_turn(self, id: ServerName) -> None:
        async with self._slots:
            try:
                await self._deploy(event := self._waiting.pop(id))
            except OSError as error:
                logger.warning(
                    "%s: the deploy hook cannot be run: %s; acme.renew runs it again (node %s)",
                    id,
                    error,
                    event.node,
                    extra=fields("deploy_failed", name=id, node=event.node, reason=str(error)),
                )

    async def _deploy(self, event: CertificateObtained) -> None:
        id, begun = event.subject.id, time.monotonic()
        with deploy_files.make_folder() as deployed:
            files = await self._threads.background(deploy_files.write_files, deployed.folder, event.certificate)
            environment = _environment(event, files, self._secrets)
            # Its files stay locked even if this process is killed and another one started.
            trouble = await self._run(event, Command(self._command, environment, deployed.inherited))
        seconds = time.monotonic() - begun
        circumstances: dict[str, str | float] = {"name": id, "node": event.node, "seconds": round(seconds, 3)}
        if trouble:
            logger.warning(
                "%s: the deploy hook %s after %.1f s; fix it, then acme.renew runs it again (node %s)",
                id,
                trouble,
                seconds,
                event.node,
                extra=fields("deploy_failed", reason=trouble, **circumstances),
            )
        else:
            logger.info(
                "%s: the deploy hook succeeded in %.1f s (node %s)",
                id,
                seconds,
                event.node,
                extra=fields("deploy_succeeded", **circumstances),
            )

    async def _run(self, event: CertificateObtained, command: Command) -> str:
        """Run the command to its end, or kill it; return what went wrong."""
        id = event.subject.id
        output = HookOutput(f"{id}: deploy hook", event.certificate.key_pem, name=id, node=event.node)
        async with self._process(command) as (process, reader):
            try:
                async with asyncio.timeout(self._timeout):
                    await _read_to_the_end(process, reader, output)
            except TimeoutError:
                return f"was killed because it did not end within {self._timeout:g} s,"
            finally:
                output.close()
        return f"failed with exit code {process.returncode}" if process.returncode else ""

    @contextlib.asynccontextmanager
    async def _process(
        self, command: Command
    ) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
        """Run the command in a process group of its own; leaving the block before its end kills the group."""
        async with start_group(command) as (process, reader):
            try:
                yield process, reader
            finally:
                if process.returncode is None:
                    await self._kill(process)

    async def _kill(self, process: asyncio.subprocess.Process) -> None:
        end_group(process)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), self._grace)
        kill_group(process)  # the rest of the group, too
        await process.wait()


async def _read_to_the_end(
    process: asyncio.subprocess.Process, reader: asyncio.StreamReader, output: HookOutput
) -> None:
    reading = asyncio.ensure_future(_read(reader, output))
    try:
        await process.wait()
        await asyncio.wait([reading], timeout=_LAST_LINES)
    finally:
        reading.cancel()
        await asyncio.wait([reading])


async def _read(reader: asyncio.StreamReader, output: HookOutput) -> None:
    while chunk := await reader.read(_CHUNK):
        output.add(chunk)


def _environment(event: CertificateObtained, files: Path, secrets: Collection[str]) -> dict[str, str]:
    """Return the environment of the command: that of this process without ``secrets``, and the certificate's data."""
    kept = {name: value for name, value in os.environ.items() if name not in secrets and not name.startswith(_LEXICON)}
    return kept | {
        "ACME_EVENT": "renewed" if event.renewal else "obtained",
        "ACME_NAMES": ",".join(event.subject.names),
        "ACME_CA": event.ca,
        "ACME_CERT_FILE": str(files / "cert.pem"),
        "ACME_CHAIN_FILE": str(files / "chain.pem"),
        "ACME_FULLCHAIN_FILE": str(files / "fullchain.pem"),
        "ACME_KEY_FILE": str(files / "privkey.pem"),
        "RENEWED_LINEAGE": str(files),
        "RENEWED_DOMAINS": " ".join(event.subject.names),
    }
