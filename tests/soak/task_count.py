"""A mitmproxy script, for ``-s`` beside the addon: it writes how many asyncio tasks there are, once a second.

Into ``tasks-PID`` in the folder $ACME_SOAK_TASKS. Knows asyncio; must not know ACME.
"""

import asyncio
import os
from pathlib import Path


class TaskCount:
    """Counts from `running` to `done`."""

    def __init__(self) -> None:
        self._counting: asyncio.Task[None] | None = None

    def running(self) -> None:
        self._counting = asyncio.get_running_loop().create_task(self._count(), name="task count")

    def done(self) -> None:
        if self._counting:
            self._counting.cancel()

    async def _count(self) -> None:
        file = Path(os.environ["ACME_SOAK_TASKS"]) / f"tasks-{os.getpid()}"
        while True:
            file.write_text(str(len(asyncio.all_tasks())))
            await asyncio.sleep(1)


addons = [TaskCount()]
