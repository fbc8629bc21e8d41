"""``acme_ask``: a real server answers."""

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.core.errors import NameNotAllowed
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.thread_pools import ThreadPools
from mitmproxy_acme.lifecycle.ordering.ask import AskClient
from tests.mitmproxy_acme.fakes import Clock, manager_on
from tests.servers.base import free_port

GOOD, BAD = ServerName("good.test"), ServerName("bad.test")


class _Ask(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []
    mended: ClassVar[list[str]] = []
    open_now: ClassVar[list[str]] = []
    most_open: ClassVar = 0
    silenced: ClassVar = threading.Semaphore(0)
    spoken: ClassVar = threading.Event()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.open_now.append(self.path)
        _Ask.most_open = max(_Ask.most_open, len(self.open_now))
        try:
            self._answer()
        finally:
            self.open_now.remove(self.path)

    def _answer(self) -> None:
        if "slow" in self.path:
            self.silenced.release()
            self.spoken.wait(20)
        allowed = any(name in self.path for name in ("good", *self.mended))
        status = 302 if "moved" in self.path else 204 if allowed else 403
        self.send_response(status)
        self.send_header("Location", "/?domain=good.test")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """A server that allows names with ``good`` in them; its URL, and what it was asked."""
    _Ask.asked, _Ask.silenced, _Ask.spoken = [], threading.Semaphore(0), threading.Event()
    _Ask.open_now, _Ask.most_open, _Ask.mended = [], 0, []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Ask) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/check?token=x", _Ask.asked
        server.shutdown()
        thread.join()


async def test_answer_decides_and_is_remembered(
    asked: tuple[str, list[str]], threads: ThreadPools, clock: Clock
) -> None:
    """A 2xx allows, anything else refuses; both are remembered, and asked again in time."""
    url, questions = asked
    permission = AskClient(url, threads, clock)
    for _ in range(3):
        await permission.require(GOOD)
        with pytest.raises(NameNotAllowed, match="acme_ask answered 403"):
            await permission.require(BAD)
    assert questions == ["/check?token=x&domain=good.test", "/check?token=x&domain=bad.test"]
    clock.advance(300)
    await permission.require(GOOD)
    assert len(questions) == 3
    clock.advance(-3_600)
    await permission.require(GOOD)
    assert len(questions) == 4


async def test_refusal_is_asked_for_anew_for_a_person(
    asked: tuple[str, list[str]], memory: Memory, clock: Clock
) -> None:
    """A person who has just allowed the name does not wait for a remembered refusal; visits do not ask each time."""
    manager = manager_on(memory, clock, acme_ask=asked[0], acme_allow_any_domain=True)
    for visits in range(3):
        with pytest.raises(NameNotAllowed, match="acme_ask answered 403"):
            await manager.certificate_for(BAD, on_demand=True)
        assert len(asked[1]) == 1, visits
    _Ask.mended.append("bad.test")
    subject = manager.config.subject(BAD)
    assert subject is not None
    assert (await manager.issue(subject)).covers(BAD)
    await manager.close()


async def test_redirect_is_no_permission(asked: tuple[str, list[str]], threads: ThreadPools, clock: Clock) -> None:
    """A login page that the question is sent to allows nothing."""
    with pytest.raises(NameNotAllowed, match="302"):
        await AskClient(asked[0], threads, clock).require(ServerName("moved.test"))


async def test_nobody_there_is_no_permission(threads: ThreadPools, clock: Clock) -> None:
    """While the operator's service is down nothing is ordered."""
    with pytest.raises(NameNotAllowed, match="does not answer"):
        await AskClient(f"http://127.0.0.1:{free_port()}/", threads, clock).require(GOOD)


async def test_silent_service_holds_up_nothing_else(
    asked: tuple[str, list[str]], threads: ThreadPools, clock: Clock
) -> None:
    """While eight names wait for it, one that was allowed before is, and the CA is talked to."""
    permission = AskClient(asked[0], threads, clock)
    await permission.require(GOOD)
    waiting = [asyncio.create_task(permission.require(ServerName(f"slow{number}.test"))) for number in range(8)]
    for _ in range(4):
        await asyncio.to_thread(_Ask.silenced.acquire)

    await permission.require(GOOD)
    await threads.issuer(lambda: None)

    assert not [task for task in waiting if task.done()]
    _Ask.spoken.set()
    assert len(await asyncio.gather(*waiting, return_exceptions=True)) == 8


async def test_invented_names_ask_few_questions_at_once_and_leave_few_answers(
    asked: tuple[str, list[str]], threads: ThreadPools, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four requests are open at a time, and the oldest answers are dropped."""
    monkeypatch.setattr("mitmproxy_acme.lifecycle.ordering.ask._ANSWERS", 50)
    permission = AskClient(asked[0], threads, clock)
    names = [ServerName(f"bad{number}.test") for number in range(200)]
    answers = await asyncio.gather(*(permission.require(name) for name in names), return_exceptions=True)
    assert {type(answer) for answer in answers} == {NameNotAllowed}
    assert _Ask.most_open <= 4
    assert len(permission._answers) == 50
