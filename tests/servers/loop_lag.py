"""A mitmproxy script, for ``-s`` with the addon: it measures how late the event loop runs what is due.

Every 5 ms it records the time and by how many seconds the loop was late; when mitmproxy ends, the list goes to
$ACME_LOOP_LAG as JSON. Knows asyncio; must not know ACME.
"""

import asyncio
import json
import os
import time
from pathlib import Path

EVERY = 0.005


class LoopLag:
    """Samples from `running` to `done`."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, float]] = []  # time.monotonic(), the same clock in every process of Linux
        self._sampling: asyncio.Task[None] | None = None

    def running(self) -> None:
        self._sampling = asyncio.get_running_loop().create_task(self._sample(), name="loop lag")

    def done(self) -> None:
        if self._sampling:
            self._sampling.cancel()
        Path(os.environ["ACME_LOOP_LAG"]).write_text(json.dumps(self._samples))

    async def _sample(self) -> None:
        while True:
            due = time.monotonic() + EVERY
            await asyncio.sleep(EVERY)
            self._samples.append((due, max(time.monotonic() - due, 0.0)))


addons = [LoopLag()]
