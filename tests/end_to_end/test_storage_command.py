"""``mitmproxy-acme storage`` on the storage of a proxy that obtains certificates meanwhile."""

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from acme_storage import Storage
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.renewal_schedule import RenewalSchedule
from tests.end_to_end.client import handshake
from tests.end_to_end.conftest import StartProxy
from tests.servers import forked
from tests.servers.mitmdump import Mitmdump
from tests.servers.pebble import Pebble

type FreshName = Callable[[], str]


def inspect(running: Mitmdump, *flags: str) -> tuple[int, Any]:
    program = str(Path(sys.executable).with_name("mitmproxy-acme"))
    words = [program, "storage", "--json", *flags, "--set", f"acme_storage={running.options['acme_storage']}"]
    done = forked.run(words, timeout=120)
    return done.returncode, json.loads(done.stdout)


def test_repair_while_certificates_are_obtained(
    proxy: StartProxy, pebble: Pebble, store: Storage, fresh_name: FreshName
) -> None:
    """It mends what was broken, and nothing that the proxy is just writing: each name has its record and its entry."""
    running, root, first = proxy(), pebble.root(), fresh_name()
    handshake(running.https_port, first, root)
    for entry in RenewalSchedule(store).due_by(2**33):
        RenewalSchedule(store).remove(entry)
    store.put("usage/gone.example.test", b"{")
    code, document = inspect(running)
    assert code == 1
    assert {trouble["trouble"] for trouble in document["troubles"]} == {"broken", "unlisted"}
    assert document["proxies"] == 1

    names = [fresh_name() for _ in range(40)]
    with ThreadPoolExecutor(2) as pool:
        visits = pool.map(lambda name: handshake(running.https_port, name, root), names)
        repairs = [inspect(running, "--repair", "--yes")[1]["repaired"] for _ in range(3)]
        assert [served.names for served in visits] == [[name] for name in names]

    assert repairs[0]["removed"] == 1
    assert all(set(repaired) <= {"removed", "scheduled"} for repaired in repairs)
    assert {entry.id for entry in RenewalSchedule(store).due_by(2**33)} >= {
        ServerName(name) for name in (first, *names)
    }
    code, document = inspect(running)
    assert (code, document["troubles"]) == (0, [])
    assert "Traceback" not in running.log_text()
