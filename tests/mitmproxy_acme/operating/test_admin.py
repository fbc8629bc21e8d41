"""The admin API's port follows the options of a running proxy."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import exceptions
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.test import taddons

from mitmproxy_acme.addon import AcmeAddon
from tests.servers.base import free_port, is_open

_TOKENS = {"FIRST": "the-first-token-of-the-test", "SECOND": "the-second-token-of-the-test"}


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[AcmeAddon, Any, int]]:
    """The addon with its API, its test context, and the port."""
    for name, token in _TOKENS.items():
        monkeypatch.setenv(name, token)
    addon, port = AcmeAddon(), free_port()
    with taddons.context(Proxyserver(), addon) as tctx:  # type: ignore[no-untyped-call]  # mitmproxy's own test tool
        options = {"acme_domains": ["a.test"], "acme_tos_accepted": True, "acme_storage": f"file:{tmp_path}"}
        tctx.configure(addon, **options, acme_admin_listen=f"127.0.0.1:{port}", acme_admin_token="env:FIRST")
        addon.running()
        yield addon, tctx, port
        addon.done()


async def _status(port: int, token: str) -> int:
    """Return the status of ``/acme/status``, asked for by a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    headers = f"Host: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    writer.write(f"GET /acme/status HTTP/1.1\r\n{headers}".encode())
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


async def test_other_token_holds_at_once(running: tuple[AcmeAddon, Any, int]) -> None:
    """On the same port; connections that were open with the old one are closed."""
    addon, tctx, port = running
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200" in await reader.readuntil(b"}")
    assert await _status(port, _TOKENS["FIRST"]) == 200

    tctx.configure(addon, acme_admin_token="env:SECOND")

    assert await _status(port, _TOKENS["FIRST"]) == 401
    assert await _status(port, _TOKENS["SECOND"]) == 200
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()


async def test_port_moves_and_closes(running: tuple[AcmeAddon, Any, int]) -> None:
    """Another address is listened at instead; none closes it; other options leave it where it is."""
    addon, tctx, port = running
    other = free_port()
    tctx.configure(addon, acme_admin_listen=f"127.0.0.1:{other}")
    assert (is_open(port), await _status(other, _TOKENS["FIRST"])) == (False, 200)
    tctx.configure(addon, acme_domains=["b.test"])
    assert await _status(other, _TOKENS["FIRST"]) == 200
    tctx.configure(addon, acme_admin_listen="")
    assert not is_open(other)


async def test_address_that_is_taken_is_taken_back(running: tuple[AcmeAddon, Any, int]) -> None:
    """The editor gets the sentence, and the API goes on where it was."""
    addon, tctx, port = running
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", free_port())
    taken = server.sockets[0].getsockname()[1]

    with pytest.raises(exceptions.OptionsError, match=f"127.0.0.1:{taken} cannot be had"):
        tctx.configure(addon, acme_admin_listen=f"127.0.0.1:{taken}")

    assert tctx.options.acme_admin_listen == f"127.0.0.1:{port}"
    assert await _status(port, _TOKENS["FIRST"]) == 200
    server.close()


async def test_forwarding_mode_needs_a_token(running: tuple[AcmeAddon, Any, int]) -> None:
    """At run time too: the editor gets the sentence, whichever of the two is changed, and the change is taken back."""
    addon, tctx, port = running
    tctx.configure(addon, mode=["reverse:http://127.0.0.1:1@8443", "socks5@1080"])
    with pytest.raises(exceptions.OptionsError, match="clients of mode socks5@1080 may ask for any address"):
        tctx.configure(addon, acme_admin_token="")
    assert await _status(port, _TOKENS["FIRST"]) == 200
    tctx.configure(addon, mode=["reverse:http://127.0.0.1:1@8443"])
    tctx.configure(addon, acme_admin_token="")

    with pytest.raises(exceptions.OptionsError, match="clients of mode regular may ask for any address"):
        tctx.configure(addon, mode=["regular"])

    assert tctx.options.mode == ["reverse:http://127.0.0.1:1@8443"]


async def test_done_closes_it(running: tuple[AcmeAddon, Any, int]) -> None:
    """When mitmproxy ends, nobody listens any more."""
    addon, _, port = running
    addon.done()
    assert not is_open(port)


async def test_watcher_that_leaves_is_forgotten_at_once(running: tuple[AcmeAddon, Any, int]) -> None:
    """And not only when the next event cannot be written."""
    addon, _, port = running
    service = addon._service
    assert service is not None
    assert service._admin is not None
    watchers = service._admin._desk.live._watchers
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = f"GET /acme/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {_TOKENS['FIRST']}\r\n\r\n"
    writer.write(request.encode())
    await reader.readuntil(b"event: status")
    assert len(watchers) == 1

    writer.close()

    async with asyncio.timeout(5):
        while watchers:  # noqa: ASYNC110  # what it waits for has no event
            await asyncio.sleep(0.01)


async def test_request_that_is_under_way_at_the_end_is_no_error(running: tuple[AcmeAddon, Any, int]) -> None:
    """mitmproxy cancels every task when it ends: a page that asks at this moment brings no traceback to the log."""
    addon, _, port = running
    assert addon._service is not None
    asked, troubles = asyncio.Event(), list[object]()

    async def slowly(within: float) -> bool:
        asked.set()
        await asyncio.sleep(within)
        return True

    addon._service.inventory.loaded = slowly  # type: ignore[method-assign]
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    headers = f"Host: x\r\nAuthorization: Bearer {_TOKENS['FIRST']}"
    writer.write(f"GET /acme/certificates HTTP/1.1\r\n{headers}\r\n\r\n".encode())
    await asyncio.wait_for(asked.wait(), 10)

    under_way = [task for task in asyncio.all_tasks() if "_execute" in repr(task.get_coro())]
    for task in under_way:
        task.cancel()
    await asyncio.wait(under_way)
    await asyncio.sleep(0)

    assert len(under_way) == 1
    assert troubles == []
    writer.close()
