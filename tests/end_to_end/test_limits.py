"""A CA's limits, known before they hit: what the proxy does not even ask for."""

import json
from collections.abc import Callable

from tests.end_to_end.client import handshake, is_trusted
from tests.end_to_end.conftest import StartProxy
from tests.servers.base import fetch, free_port
from tests.servers.pebble import Pebble


def test_orders_stop_at_the_edge_and_renewals_do_not(
    proxy: StartProxy, pebble: Pebble, root: str, fresh_name: Callable[[], str]
) -> None:
    """The third new name of two in an hour costs the CA nothing; the overview and the log say why."""
    port = free_port()
    running = proxy(acme_ca=[f"{pebble.directory};orders=2/1h"], acme_admin_listen=f"127.0.0.1:{port}")
    names = [fresh_name() for _ in range(3)]
    old = [handshake(running.https_port, name, root) for name in names[:2]]
    before = pebble.seen()

    assert not is_trusted(running.https_port, names[2], root)

    assert (pebble.seen() - before).orders == 0
    assert f"{names[2]}: not ordered: 2 new orders in 60 min are used up at {pebble.directory}" in running.log_text()
    status = json.loads(fetch(f"http://127.0.0.1:{port}/acme/status").body)
    (budget,) = status["cas"][0]["budgets"]
    assert (budget["limit"], budget["scope"], budget["left"], budget["capacity"]) == ("orders", "", 0, 2)
    assert [failure["host"] for failure in status["failing"]] == [names[2]]

    renewed = fetch(f"http://127.0.0.1:{port}/acme/certificates/{names[0]}/renew", body={})

    assert renewed.status == 200, renewed.text
    assert handshake(running.https_port, names[0], root).leaf != old[0].leaf
