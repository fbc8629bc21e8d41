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
    """The fifth name of four that visitors have costs the CA nothing, and the log says why; a person has the last."""
    port = free_port()
    running = proxy(acme_ca=[f"{pebble.directory};orders=5/1h"], acme_admin_listen=f"127.0.0.1:{port}")
    names = [fresh_name() for _ in range(5)]
    old = [handshake(running.https_port, name, root) for name in names[:4]]
    before = pebble.seen()

    assert not is_trusted(running.https_port, names[4], root)
    assert not is_trusted(running.https_port, fresh_name(), root)

    assert (pebble.seen() - before).orders == 0
    log = running.log_text()
    assert f"{names[4]}: not ordered: 4 of 5 new orders in 60 min (the rest is for managed certificates" in log
    assert log.count("not ordered: ") == 1
    status = json.loads(fetch(f"http://127.0.0.1:{port}/acme/status").body)
    (budget,) = status["cas"][0]["budgets"]
    assert (budget["limit"], budget["scope"], budget["left"], budget["capacity"]) == ("orders", "", 1, 5)
    assert status["failing"] == []

    assert fetch(f"http://127.0.0.1:{port}/acme", body={"host": names[4]}).status == 201
    assert is_trusted(running.https_port, names[4], root)

    renewed = fetch(f"http://127.0.0.1:{port}/acme/certificates/{names[0]}/renew", body={})

    assert renewed.status == 200, renewed.text
    assert handshake(running.https_port, names[0], root).leaf != old[0].leaf


def test_client_has_so_many_new_names_ordered(
    proxy: StartProxy, pebble: Pebble, root: str, fresh_name: Callable[[], str]
) -> None:
    """The third new name of a client costs the CA nothing and is said once; what it has is served on."""
    running = proxy(acme_orders_per_client="2/1h")
    names = [fresh_name() for _ in range(5)]
    assert [is_trusted(running.https_port, name, root) for name in names[:2]] == [True, True]
    before = pebble.seen()

    assert [is_trusted(running.https_port, name, root) for name in names] == [True, True, False, False, False]

    assert (pebble.seen() - before).orders == 0
    assert running.log_text().count("clients in 127.0.0.0/24 have brought 2 new names in 60 min") == 1
