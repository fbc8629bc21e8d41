"""The pools that blocking work runs in."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mitmproxy_acme.core.thread_pools import ThreadPools

ADDONS = Path(__file__).resolve().parents[3] / "addons"


async def test_call_runs_in_a_thread_of_its_kind() -> None:
    """Results and errors come back; neither kind of work runs on the loop or in the other's threads."""
    threads = ThreadPools()
    names = [await pool(lambda: threading.current_thread().name) for pool in (threads.issuer, threads.storage)]
    assert [name.rpartition("-")[0] for name in names] == ["acme-issuer", "acme-storage"]
    with pytest.raises(ZeroDivisionError):
        await threads.issuer(lambda: 1 / 0)
    assert await threads.storage(int, "ff", base=16) == 255
    threads.close()
    with pytest.raises(RuntimeError, match="closed"):
        await threads.storage(int)


def test_exit_does_not_wait_for_a_silent_ca() -> None:
    """The interpreter ends while a call hangs: Ctrl-C is not held up by a CA that does not answer."""
    program = (
        "import asyncio, time\n"
        "from mitmproxy_acme.core.thread_pools import ThreadPools\n"
        "async def main():\n"
        "    asyncio.ensure_future(ThreadPools().issuer(time.sleep, 60))\n"
        "    await asyncio.sleep(0)\n"
        "asyncio.run(main())\n"
    )
    environment = {"PYTHONPATH": f"{ADDONS}:{ADDONS.parent / 'storage'}"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=30)
