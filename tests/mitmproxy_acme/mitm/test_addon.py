"""mitmproxy's hooks, without sockets; end_to_end has them with sockets."""

import asyncio
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from mitmproxy import exceptions, optmanager
from mitmproxy.addons import block, script, tlsconfig
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.addons.view import View
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import mode_specs, server_hooks
from mitmproxy.test import taddons, tflow

from mitmproxy_acme.core.events import CertificateObtained
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.mitm.addon import AcmeAddon
from tests.mitmproxy_acme.fakes import make_certificate
from tests.servers.base import free_port
from tests.servers.listener import Listener


@pytest.fixture
def loaded() -> Iterator[tuple[AcmeAddon, Any]]:
    """The addon in a mitmproxy that does not run, and its test context."""
    addon = AcmeAddon()
    with taddons.context(Proxyserver(), addon) as tctx:  # type: ignore[no-untyped-call]  # mitmproxy's own test tool
        yield addon, tctx


ACTIVE = {"acme_domains": ["a.test"], "acme_tos_accepted": True, "acme_storage": "memory:test_addon"}


@pytest.mark.parametrize(
    ("mode", "protocol"), [("reverse:https://up.test", "tcp"), ("reverse:http3://up.test", "udp"), ("regular", "udp")]
)
async def test_http3_reaches_a_tcp_upstream_in_reverse_https_only(
    loaded: tuple[AcmeAddon, Any], mode: str, protocol: str
) -> None:
    """reverse:https means an upstream that speaks TCP; only reverse:http3 means QUIC."""
    addon, tctx = loaded
    tctx.configure(addon, **ACTIVE)
    flow = tflow.tflow()
    flow.client_conn.transport_protocol = flow.server_conn.transport_protocol = "udp"
    flow.client_conn.proxy_mode = mode_specs.ProxyMode.parse(mode)
    flow.server_conn.state = ConnectionState.CLOSED
    addon._traffic_hooks.requestheaders(flow)
    assert flow.server_conn.transport_protocol == protocol


async def test_plain_text_to_another_machine_is_logged_at_the_start(
    loaded: tuple[AcmeAddon, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Once, before anything is connected; not for a store on this machine, and not without names."""
    addon, tctx = loaded
    tctx.configure(addon, acme_storage="redis://db.internal")
    assert "plain text" not in caplog.text
    tctx.configure(addon, **ACTIVE | {"acme_storage": "redis://db.internal"})
    assert caplog.text.count("reached in plain text; write rediss://, so") == 1
    tctx.configure(addon, **ACTIVE | {"acme_storage": "redis://127.0.0.1"})
    assert caplog.text.count("plain text") == 1


async def test_hooks_are_in_the_chain_while_a_name_may_have_a_certificate(loaded: tuple[AcmeAddon, Any]) -> None:
    """Those of challenges are first, the others behind the scripts; mitmproxy's own options do not change."""
    addon, tctx = loaded
    before = list(tctx.master.addons.chain)
    tctx.configure(addon, mode=["reverse:http://up.test"])
    assert tctx.master.addons.chain == before
    tctx.configure(addon, **ACTIVE)
    assert tctx.master.addons.chain == [addon._challenge_hooks, *before, addon._traffic_hooks]
    assert tctx.options.connection_strategy == "eager"
    addon.done()
    assert tctx.master.addons.chain == before


async def test_wrong_option_in_a_running_proxy_is_taken_back(loaded: tuple[AcmeAddon, Any]) -> None:
    """mitmproxy gets an OptionsError, and the runtime of before goes on."""
    addon, tctx = loaded
    tctx.configure(addon, **ACTIVE)
    addon.running()
    with pytest.raises(exceptions.OptionsError, match="acme_renew_before"):
        tctx.configure(addon, acme_renew_before="soon")
    assert tctx.options.acme_renew_before == "auto"
    addon.done()


async def test_misspelt_option_is_reported_with_the_one_meant(
    loaded: tuple[AcmeAddon, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """mitmproxy ignores an unknown option silently; the addon reports its own."""
    addon, tctx = loaded
    tctx.options.deferred["acme_domain"] = "a.test"
    addon.running()
    assert "acme_domain is not an option of this addon and has no effect; did you mean acme_domains?" in caplog.text


_NO_DNS, _BLOCKED = "this proxy has no dns mode; add --mode dns@53", "block_global is on: a public CA cannot reach"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": ["reverse:http://up.test@443"]}, {_BLOCKED}),
        ({"mode": ["reverse:http://up.test@443"], "block_global": False}, set()),
        ({"mode": ["regular"]}, set()),
        ({"mode": ["dns@53"]}, set()),
        ({"mode": ["regular"], "acme_challenges": ["dns-01"]}, {_NO_DNS}),
        ({"mode": ["dns@53"], "acme_challenges": ["dns-01"]}, {_BLOCKED}),
        ({"mode": ["dns@53"], "acme_challenges": ["dns-01"], "block_global": False}, set()),
        ({"mode": ["regular"], "acme_challenges": ["dns-01"], "acme_dns_provider": "powerdns"}, set()),
    ],
)
async def test_what_mitmproxys_options_lack_is_logged_at_the_start(
    loaded: tuple[AcmeAddon, Any], caplog: pytest.LogCaptureFixture, options: dict[str, Any], said: set[str]
) -> None:
    """Where the CA could not reach what it must, and nowhere else."""
    addon, tctx = loaded
    tctx.master.addons.add(block.Block())
    tctx.configure(addon, **ACTIVE | options)
    addon.running()
    assert {text for text in (_NO_DNS, _BLOCKED) if text in caplog.text} == said
    addon.done()


_ALWAYS = {"acme renewer", "acme client usage", "acme cluster sync"}
_WHERE_ORDERED = {"acme housekeeper", "acme revocation retrier"}


@pytest.mark.parametrize(
    ("options", "tasks"),
    [
        ({}, _ALWAYS | _WHERE_ORDERED),
        ({"acme_role": "control"}, _ALWAYS | _WHERE_ORDERED),
        ({"acme_role": "data"}, _ALWAYS),
        (
            {"acme_admin_listen": "127.0.0.1:PORT", "acme_admin_token": "the-token-of-this-test"},
            _ALWAYS | _WHERE_ORDERED | {"acme traffic history", "acme inventory"},
        ),
    ],
)
async def test_what_works_in_the_background_ends_with_the_runtime(
    loaded: tuple[AcmeAddon, Any], tmp_path: Path, options: dict[str, Any], tasks: set[str]
) -> None:
    """Each part once, of those that the role and the options need."""
    addon, tctx = loaded
    given = {name: value.replace("PORT", str(free_port())) for name, value in options.items()}
    tctx.configure(addon, **ACTIVE | {"acme_storage": f"file:{tmp_path}"} | given)
    addon.running()
    assert addon._runtime is not None
    running = addon._runtime._tasks
    assert sorted(task.get_name().partition(" [")[0] for task in running) == sorted(tasks)
    await asyncio.sleep(0)
    assert not any(task.done() for task in running)
    last = addon.done()
    assert last is not None
    await last
    await asyncio.wait(running, timeout=10)
    assert all(task.cancelled() for task in running)


@pytest.mark.parametrize("options", [{}, {"acme_webhook": "http://127.0.0.1:1/", "acme_deploy_hook": "true"}])
async def test_messages_and_commands_are_sent_where_they_are_set(
    loaded: tuple[AcmeAddon, Any], options: dict[str, Any]
) -> None:
    """A manager without a listener has nothing to tell."""
    addon, tctx = loaded
    tctx.configure(addon, **ACTIVE | options)
    assert addon._runtime is not None
    parts = addon._runtime._webhook, addon._runtime._deploy_hook, addon._runtime.nameserver, addon._runtime.router
    assert [part is not None for part in parts] == [bool(options), bool(options), False, False]
    addon.done()


async def test_option_dump_shows_references_and_no_secret(
    loaded: tuple[AcmeAddon, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What mitmproxy saves, and shows in its editors, is the reference: ``env:NAME``."""
    addon, tctx = loaded
    secrets = {"PW": "hunter2", "KEY": Fernet.generate_key().decode(), "MAC": "c2VjcmV0LW1hYy1rZXk"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    given = {"acme_storage": "redis://:env:PW@127.0.0.1:1/0", "acme_storage_key": "env:KEY"}
    given |= {"acme_eab_kid": "kid", "acme_eab_hmac_key": "env:MAC"}

    tctx.configure(addon, **ACTIVE | given)

    dump = io.StringIO()
    optmanager.serialize(tctx.options, dump, "")
    assert all(reference in dump.getvalue() for reference in given.values())
    shown = dump.getvalue() + repr(addon._runtime and addon._runtime.manager.config) + str(dict(tctx.options.items()))
    assert not [secret for secret in secrets.values() if secret in shown]
    addon.done()


async def test_inventory_is_read_before_the_first_command(loaded: tuple[AcmeAddon, Any]) -> None:
    """With a flow list there is a command bar, whose first acme.list should have its answer."""
    addon, tctx = loaded
    tctx.master.addons.add(View())
    tctx.configure(addon, **ACTIVE)
    addon.running()
    assert addon._runtime is not None
    assert "inventory" in vars(addon._runtime)
    assert await addon._runtime.inventory.loaded(10)
    addon.done()


@pytest.mark.parametrize("role", ["standalone", "control", "data"])
async def test_data_nodes_remove_nothing_and_note_what_clients_ask_for(
    loaded: tuple[AcmeAddon, Any], tmp_path: Path, role: str
) -> None:
    """Every node notes usage; only those that order run the housekeeper."""
    addon, tctx = loaded
    tctx.configure(addon, **ACTIVE | {"acme_role": role, "acme_storage": f"file:{tmp_path}"})
    addon.running()

    assert addon._runtime is not None
    names = {task.get_name().partition(" [")[0] for task in addon._runtime._tasks}
    assert ("acme housekeeper" in names) is (role != "data")
    assert "acme client usage" in names
    addon.done()


async def test_end_waits_for_webhook_and_deploy_hook_but_not_for_an_order(
    loaded: tuple[AcmeAddon, Any], tmp_path: Path
) -> None:
    """mitmproxy awaits what done returns: the last event is sent and the deploy hook ended, while an order hangs."""
    addon, tctx = loaded
    hook, pid = tmp_path / "hook", tmp_path / "pid"
    hook.write_text(f"#!/bin/sh\necho $$ > {pid}\nsleep 600")
    hook.chmod(0o700)
    with Listener(503) as listener:
        tctx.configure(addon, **ACTIVE, acme_webhook=listener.url, acme_deploy_hook=str(hook))
        addon.running()
        assert addon._runtime is not None
        manager, order = addon._runtime.manager, asyncio.Event()
        orders = manager._parts.obtainer._orders
        orders.start(ServerName("held.a.test"), order.wait)  # type: ignore[arg-type]  # any work will do
        name = ServerName("a.test")
        certificate = make_certificate([name])
        manager.events.publish(CertificateObtained(Subject((name,)), certificate, "ca", 1.0, renewal=False, node="n"))
        async with asyncio.timeout(10):
            while not (listener.received and pid.exists() and pid.read_text()):  # noqa: ASYNC110  # nothing wakes this task
                await asyncio.sleep(0.01)
        listener.answer_from_now_on(200)
        seen = len(listener.received)

        last = addon.done()

        assert last is not None
        await last
        assert not order.is_set()
        assert len(listener.received) == seen + 1
        assert pid.read_text().strip() not in os.listdir("/proc")
        order.set()
        await manager.wait_idle()


async def test_traffic_hooks_are_behind_all_scripts(loaded: tuple[AcmeAddon, Any]) -> None:
    """To mitmproxy the scripts are one addon: an exception in one keeps events from those behind it."""
    addon, tctx = loaded
    scripts, behind = script.ScriptLoader(), tlsconfig.TlsConfig()  # type: ignore[no-untyped-call]  # mitmproxy's
    tctx.master.addons.add(scripts, behind)
    tctx.configure(addon, **ACTIVE)
    chain = tctx.master.addons.chain
    place = chain.index(scripts)
    assert chain[place + 1 : place + 3] == [addon._traffic_hooks, behind]
    addon.done()
    assert addon._traffic_hooks not in tctx.master.addons.chain


async def test_replay_may_reach_the_admin_api(loaded: tuple[AcmeAddon, Any]) -> None:
    """A replayed connection has no handler in mitmproxy, and only the operator replays flows."""
    addon, tctx = loaded
    token = "a-token-of-the-test"
    tctx.configure(addon, **ACTIVE, acme_admin_listen="127.0.0.1:8008", acme_admin_token=token)
    server = tflow.tserver_conn()
    server.peername = ("127.0.0.1", 8008)
    addon._traffic_hooks.server_connected(
        server_hooks.ServerConnectionHookData(client=tflow.tclient_conn(), server=server)
    )
