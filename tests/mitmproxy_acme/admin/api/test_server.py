"""The admin API's port follows the options of a running proxy."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import exceptions
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.test import taddons

from mitmproxy_acme.admin.api import server as admin_module
from mitmproxy_acme.mitm.addon import AcmeAddon
from tests.costs import loop_seconds
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

    with pytest.raises(exceptions.OptionsError, match=f"cannot listen on 127.0.0.1:{taken} "):
        tctx.configure(addon, acme_admin_listen=f"127.0.0.1:{taken}")

    assert tctx.options.acme_admin_listen == f"127.0.0.1:{port}"
    assert await _status(port, _TOKENS["FIRST"]) == 200
    server.close()


async def test_forwarding_mode_needs_a_token(running: tuple[AcmeAddon, Any, int]) -> None:
    """At run time too: changing either option shows the sentence in the editor, and the change is undone."""
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
    """When mitmproxy ends, nothing listens any more."""
    addon, _, port = running
    addon.done()
    assert not is_open(port)


async def test_watcher_that_leaves_is_forgotten_at_once(running: tuple[AcmeAddon, Any, int]) -> None:
    """And not only when the next event cannot be written."""
    addon, _, port = running
    service = addon._runtime
    assert service is not None
    assert service._admin is not None
    watchers = service._admin._context.stream._watchers
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
    assert addon._runtime is not None
    asked, troubles = asyncio.Event(), list[object]()

    async def slowly(within: float) -> bool:
        asked.set()
        await asyncio.sleep(within)
        return True

    addon._runtime.inventory.loaded = slowly  # type: ignore[method-assign]
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


async def _said(port: int, request: bytes) -> bytes:
    """Send a request, which may be half of one, and return the reply to its end; nothing where none came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


async def test_stranger_is_refused_before_the_body_comes(running: tuple[AcmeAddon, Any, int]) -> None:
    """By the head alone, and nothing is kept for what would follow; with the token the body is waited for."""
    _, _, port = running
    head = b"POST /acme HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n"

    refused = await _said(port, head + b"\r\n")

    assert refused.startswith(b"HTTP/1.1 401 ")
    assert b"WWW-Authenticate: Bearer\r\n" in refused
    assert b"Connection: close\r\n" in refused
    assert b"a token is needed" in refused
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_said(port, head + f"Authorization: Bearer {_TOKENS['FIRST']}\r\n\r\n".encode()), 0.1)


async def test_health_and_metrics_are_told_however_much_is_worked_on(
    running: tuple[AcmeAddon, Any, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other requests are refused with 503, which leaves room for these."""
    _, _, port = running
    monkeypatch.setattr(admin_module, "_MOST_REQUESTS", 0)
    own = f"Host: x\r\nConnection: close\r\nAuthorization: Bearer {_TOKENS['FIRST']}\r\n\r\n".encode()

    replies = {path: await _said(port, b"GET %s HTTP/1.1\r\n" % path + own) for path in (b"/health", b"/metrics", b"/")}
    refused = await _said(port, b"GET /acme/status HTTP/1.1\r\n" + own)

    assert [reply[9:12] for reply in replies.values()] == [b"200"] * 3
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1\r\n" in refused


def _get(path: bytes, *headers: bytes) -> bytes:
    return b"GET %s HTTP/1.1\r\n" % path + b"".join((b"Host: localhost\r\nConnection: close\r\n", *headers, b"\r\n"))


def _post(body: bytes, kind: bytes = b"application/json", *headers: bytes) -> bytes:
    head = b"Content-Type: %s\r\nContent-Length: %d\r\n" % (kind, len(body))
    return _get(b"/acme", head, *headers).replace(b"GET", b"POST", 1) + body


_TOKEN = b"Authorization: Bearer the-first-token-of-the-test\r\n"
_HOSTILE = {
    "many headers": _get(b"/health", *(b"a%d:\r\n" % number for number in range(1_000))),
    "folded header": _get(b"/health", b"a:\r\n" + b" b\r\n" * 1_900),
    "header without end": _get(b"/health", b"a: " + b"x" * 200_000),
    "query of many fields": _get(b"/acme/certificates?" + b"&a=b" * 1_900),
    "query of 1 MB": _get(b"/acme/certificates?search=" + b"%41" * 350_000),
    "long path": _get(b"/acme/certificates/" + b"%C3%A4." * 1_000, _TOKEN),
    "path of slashes": _get(b"/" * 7_000),
    "long host": b"GET /health HTTP/1.1\r\nHost: " + b"[:" * 3_500 + b"\r\nConnection: close\r\n\r\n",
    "two hosts": _get(b"/health", b"Host: b\r\n"),
    "no such size": _get(b"/acme/certificates?size=-1", _TOKEN),
    "long offset": _get(b"/acme/certificates?offset=" + b"z" * 7_000, _TOKEN),
    "many states": _get(b"/acme/certificates?" + b"state=valid&" * 500, _TOKEN),
    "long token": _get(b"/acme/status", b"Authorization: Bearer " + b"x" * 7_000 + b"\r\n"),
    "long accept": _get(b"/metrics", _TOKEN, b"Accept: " + b"a/b;q=0.1," * 700 + b"\r\n"),
    "long length": _get(b"/acme", b"Content-Length: " + b"1" * 7_000 + b"\r\n"),
    "odd length": _get(b"/acme", b"Content-Length: \xb2\r\n"),
    "deep JSON": _post(b"[" * 65_000, b"application/json", _TOKEN),
    "deep objects": _post(b'{"a":' * 13_000, b"application/json", _TOKEN),
    "long number": _post(b"1" * 65_000, b"application/json", _TOKEN),
    "long name": _post(b'{"host": "' + "\u00e4.".encode() * 20_000 + b'"}', b"application/json", _TOKEN),
    "form of many fields": _post(b"a=b&" * 16_000, b"application/x-www-form-urlencoded", _TOKEN),
    "form of many parts": _post(b"--x\r\n\r\n" * 9_000, b"multipart/form-data; boundary=x", _TOKEN),
    "no request line": b"\0 / \r\n\r\n",
}


@pytest.mark.parametrize("request_", _HOSTILE.values(), ids=_HOSTILE)
async def test_hostile_request_is_cheap(
    running: tuple[AcmeAddon, Any, int], request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It keeps the loop for some ms at most (the worst: 5), and leaves no line in the log; the API answers on."""
    _, _, port = running
    caplog.set_level("INFO")

    seconds = await loop_seconds(lambda: _said(port, request_), times=3)

    assert seconds < 0.05
    # mitmproxy shows tornado's from WARNING on
    lines = [line for line in caplog.records if line.levelname != "INFO" or not line.name.startswith("tornado")]
    assert [line.getMessage() for line in lines if line.name != "mitmproxy_acme.admin.auth"] == []
    assert await _status(port, _TOKENS["FIRST"]) == 200


async def _head(port: int, request: str, body: bytes = b"") -> str:
    """Return the head of the reply, in lower case."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    headers = f"Host: x\r\nAuthorization: Bearer {_TOKENS['FIRST']}\r\nContent-Type: application/json\r\n"
    writer.write(f"{request} HTTP/1.1\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    writer.close()
    return head


async def test_no_other_site_can_frame_the_page(running: tuple[AcmeAddon, Any, int]) -> None:
    """A click on what lies under another page's picture would revoke a certificate."""
    _, _, port = running
    assert "frame-ancestors 'none'" in await _head(port, "GET /")


async def test_deeply_nested_json_is_a_bad_request(running: tuple[AcmeAddon, Any, int]) -> None:
    """And no fault of the server's."""
    _, _, port = running
    assert " 400 " in (await _head(port, "POST /acme", b"[" * 20_000)).partition("\r\n")[0]
