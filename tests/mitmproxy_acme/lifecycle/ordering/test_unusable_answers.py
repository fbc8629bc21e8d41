"""A control node finds good what a data node cannot use: their clocks or options differ."""

import asyncio
import logging
from typing import Any

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import BackingOff
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.lifecycle.ordering.order_request import OrderRequest, Requester
from mitmproxy_acme.lifecycle.ordering.unusable_answers import UnusableAnswers
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import EPOCH, Clock, FakeIssuer, make_certificate, manager_on
from tests.mitmproxy_acme.lifecycle.test_cluster_sync import answered

_DAY = 86_400.0
_NAME = ServerName("a.example.test")
_SUBJECT = Subject((_NAME,))
_REQUEST = OrderRequest(_SUBJECT, Requester.OPERATOR)


class Counted(Memory):
    """A storage that counts the requests of data nodes."""

    requests = 0

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        self.requests += key.startswith("requests/")
        return super().swap(key, old, new, ttl=ttl)


@pytest.fixture
def memory(clock: Clock) -> Counted:
    return Counted(now=clock)


async def served(manager: Manager, name: ServerName = _NAME) -> Certificate:
    certificate = await manager.certificate_for(name, on_demand=True)
    assert certificate is not None
    return certificate


async def test_node_whose_clock_is_ahead_asks_no_more_than_a_few_times(
    make_manager: MakeManager, memory: Counted, clock: Clock, issuer: FakeIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    """The visitor is told at once, the log has one line for all names, and another visit does not ask again."""
    caplog.set_level(logging.WARNING)
    control, ahead = make_manager(acme_role="control"), Clock(clock() + 91 * _DAY)
    data, feed, names = manager_on(memory, ahead, acme_role="data"), control.make_cluster_sync(), (_NAME, f"b.{_NAME}")
    for name in names:
        await served(control, ServerName(name))
    await feed.sync()
    for name in names:
        with pytest.raises(BackingOff, match="valid, which ended 24 h ago by the clock of this node; set the clock"):
            await answered(feed, served(data, ServerName(name)))
    asked = memory.requests
    assert asked <= 8
    for _ in range(5):
        ahead.advance(11)  # longer than a refusal is repeated from memory
        with pytest.raises(BackingOff, match="set the clock that is wrong"):
            await served(data)
    assert memory.requests == asked
    assert [record.acme["event"] for record in caplog.records] == ["clocks_differ"]  # type: ignore[attr-defined]
    assert len(issuer.orders) == 2
    await feed.close()
    await data.close()


async def test_certificate_is_served_as_soon_as_the_clock_is_right(
    make_manager: MakeManager, memory: Counted, clock: Clock
) -> None:
    """What was put off by the wrong clock is not waited for."""
    control, wrong = make_manager(acme_role="control"), Clock(clock() + 91 * _DAY)
    data, feed, stored = manager_on(memory, wrong, acme_role="data"), control.make_cluster_sync(), await served(control)
    await feed.sync()
    with pytest.raises(BackingOff):
        await answered(feed, served(data))
    asked = memory.requests
    wrong.time = clock()
    assert (await served(data)).fingerprint == stored.fingerprint
    assert memory.requests == asked
    await feed.close()
    await data.close()


async def test_certificate_that_replaces_it_is_served_at_once(
    make_manager: MakeManager, memory: Counted, clock: Clock
) -> None:
    """The control node's clock was behind: once it is right, it renews, and no one has to ask."""
    behind = clock
    control, right = make_manager(acme_role="control"), Clock(clock() + 91 * _DAY)
    data, feed = manager_on(memory, right, acme_role="data"), control.make_cluster_sync()
    old = await served(control)
    await feed.sync()
    with pytest.raises(BackingOff):
        await answered(feed, served(data))
    asked = memory.requests
    behind.time = right()
    new = await control.ensure(_SUBJECT)
    right.advance(11)
    assert (await served(data)).fingerprint == new.fingerprint != old.fingerprint
    assert memory.requests == asked
    await feed.close()
    await data.close()


async def test_person_has_it_asked_for_though_it_is_put_off(
    make_manager: MakeManager, memory: Counted, clock: Clock
) -> None:
    """The answer is the same, with the same reason."""
    control, data = make_manager(acme_role="control"), manager_on(memory, Clock(clock() + 91 * _DAY), acme_role="data")
    feed = control.make_cluster_sync()
    await served(control)
    await feed.sync()
    with pytest.raises(BackingOff):
        await answered(feed, served(data))
    asked = memory.requests
    with pytest.raises(BackingOff, match="set the clock that is wrong"):
        await answered(feed, data.issue(_SUBJECT))
    assert memory.requests > asked
    await feed.close()
    await data.close()


async def test_names_that_differ_are_said(
    make_manager: MakeManager, memory: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    """A data node that lists more names than its control node serves none of them, and does not ask on and on."""
    control = make_manager(acme_role="control", acme_certificates=("m.test",))
    data = make_manager(acme_role="data", acme_certificates=("m.test,www.m.test",))
    feed = control.make_cluster_sync()
    await feed.sync()
    with pytest.raises(BackingOff, match="set the same acme_certificates on all nodes"):
        await answered(feed, served(data, ServerName("m.test")))
    assert memory.requests <= 4
    assert "options_differ" in [getattr(record, "acme", {}).get("event") for record in caplog.records]
    await feed.close()


async def test_kinds_of_keys_that_differ_are_said(
    make_manager: MakeManager, memory: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    """What the control node keeps is served: it is not wanted, but better than nothing."""
    control = make_manager(acme_role="control")
    data = make_manager(acme_role="data", acme_key_type=("rsa-2048", "ecdsa-p256"))
    feed, stored = control.make_cluster_sync(), await served(control)
    await feed.sync()
    assert (await answered(feed, served(data))).fingerprint == stored.fingerprint
    assert memory.requests <= 4
    assert "set the same acme_key_type on all nodes" in caplog.text
    await feed.close()


async def test_request_that_the_storage_has_lost_once_is_no_answer(
    make_manager: MakeManager, memory: Counted, clock: Clock
) -> None:
    """It came back as an older copy: the data node waits on, and gets what is ordered."""
    control, data = make_manager(acme_role="control"), make_manager(acme_role="data")
    await served(control)
    control.nodes.heartbeat(control.node, clock())
    clock.advance(91 * _DAY)
    control.nodes.heartbeat(control.node, clock())
    waiting = asyncio.ensure_future(served(data))
    while not memory.keys("requests/"):  # noqa: ASYNC110  # it comes from a thread
        await asyncio.sleep(0.01)
    memory.delete(f"requests/{_NAME}")
    await asyncio.sleep(0.6)
    assert not waiting.done()
    new = await control.ensure(_SUBJECT)
    assert (await waiting).fingerprint == new.fingerprint


class TestUnusableAnswers:
    """How long asking is put off, and what is logged."""

    @pytest.fixture
    def monotonic(self) -> Clock:
        return Clock(0.0)

    @pytest.fixture
    def answers(self, monotonic: Clock) -> UnusableAnswers:
        return UnusableAnswers("n-1", Clock(EPOCH + 91 * _DAY), monotonic)

    @pytest.fixture
    def stored(self) -> Certificate:
        return make_certificate([_NAME])

    def test_asking_is_put_off_for_a_minute(
        self, answers: UnusableAnswers, stored: Certificate, monotonic: Clock
    ) -> None:
        """By a clock that is never set; the refusal ends with it."""
        assert _NAME not in answers
        refusal = answers.remember(_REQUEST, stored)
        assert refusal.until == EPOCH + 91 * _DAY + 60
        monotonic.advance(59)
        assert _NAME in answers
        with pytest.raises(BackingOff) as caught:
            answers.repeat(_REQUEST, stored)
        assert caught.value.until == EPOCH + 91 * _DAY + 1
        monotonic.advance(1)
        assert _NAME not in answers
        answers.repeat(_REQUEST, stored)

    @pytest.mark.parametrize("other", [None, make_certificate([_NAME])])
    def test_other_certificate_ends_it(
        self, answers: UnusableAnswers, stored: Certificate, other: Certificate | None
    ) -> None:
        """Or none: it was deleted."""
        answers.remember(_REQUEST, stored)
        answers.repeat(_REQUEST, other)
        assert _NAME not in answers

    def test_cause_is_logged_when_it_comes_up(
        self, answers: UnusableAnswers, stored: Certificate, monotonic: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Once while it lasts, though for many names; and again after an hour without it."""
        for _ in range(100):
            answers.remember(_REQUEST, stored)
            monotonic.advance(60)
        assert len(caplog.records) == 1
        monotonic.advance(3_600)
        answers.remember(_REQUEST, stored)
        assert len(caplog.records) == 2
        line: Any = caplog.records[1]
        assert line.acme == {"event": "clocks_differ", "name": _NAME, "node": "n-1", "seconds": round(_DAY)}
