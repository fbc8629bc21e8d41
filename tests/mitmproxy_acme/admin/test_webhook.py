"""The webhook against a real HTTP server that takes, fails, hangs and redirects."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from mitmproxy_acme.admin.webhook import Webhook
from mitmproxy_acme.core.events import (
    CertificateExpiring,
    CertificateFailed,
    CertificateObtained,
    CertificateRemoved,
    ChangedElsewhere,
)
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.lifecycle.manager import Manager
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import EPOCH, make_certificate
from tests.servers.listener import Listener, Received

NAME = ServerName("a.example.test")
SUBJECT = Subject((NAME, ServerName("b.example.test")))
CERTIFICATE = make_certificate(SUBJECT.names)
SECRET = "a-secret-of-some-length"

type Start = Callable[..., tuple[Manager, Webhook]]


@pytest.fixture
def start(make_manager: MakeManager) -> Start:
    """Start a webhook at a URL; its waits are no waits."""

    def start_webhook(url: str, *, secret: str = "", **arguments: Any) -> tuple[Manager, Webhook]:
        manager = make_manager(acme_webhook=url, acme_webhook_secret=secret)
        webhook = Webhook(manager, **{"waits": (0.0, 0.0), "timeouts": (2.0, 2.0)} | arguments)
        webhook.start()
        return manager, webhook

    return start_webhook


async def arrived(listener: Listener, count: int) -> list[Received]:
    async with asyncio.timeout(10):
        while len(listener.received) < count:  # noqa: ASYNC110  # another thread's list wakes no task
            await asyncio.sleep(0.01)
    return listener.received


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, object]]:
    """Return the fields of the lines of this event in the structured log."""
    lines = [record.acme for record in caplog.records if hasattr(record, "acme")]
    return [
        {name: value for name, value in line.items() if name != "event"} for line in lines if line["event"] == event
    ]


def removed(number: int) -> CertificateRemoved:
    return CertificateRemoved(ServerName(f"n{number}.example.test"), None, "node-1")


def hosts(received: list[Received]) -> list[str]:
    return [json.loads(request.body)["host"].partition(".")[0] for request in received]


async def test_each_event_is_a_document_without_a_key(start: Start) -> None:
    """All four events are sent, in order, with their certificate's facts; what is between nodes is not."""
    with Listener() as listener:
        manager, webhook = start(listener.url)
        manager.events.publish(ChangedElsewhere(frozenset({NAME})))
        manager.events.publish(CertificateObtained(SUBJECT, CERTIFICATE, "fake-ca", 1.25, renewal=True, node="node-1"))
        manager.events.publish(CertificateFailed(SUBJECT, "fake-ca", "dns", "no such name", 2, EPOCH + 60, "node-1"))
        manager.events.publish(CertificateExpiring(SUBJECT, CERTIFICATE, "no such name", "node-1"))
        manager.events.publish(CertificateRemoved(NAME, "superseded", "node-1"))
        received = await arrived(listener, 4)
        await webhook.close()
    obtained, failed, expiring, gone = (json.loads(request.body) for request in received)
    assert {d["event"]: d["host"] for d in (obtained, failed, expiring, gone)} == {
        "certificate_obtained": NAME,
        "certificate_failed": NAME,
        "certificate_expiring": NAME,
        "certificate_removed": NAME,
    }
    assert (obtained["at"], obtained["node"], obtained["ca"]) == ("2027-01-15T08:00:00Z", "node-1", "fake-ca")
    assert obtained["certificate"]["names"] == ["a.example.test", "b.example.test"]
    assert (failed["reason"], failed["retry_at"]) == ("no such name", "2027-01-15T08:01:00Z")
    assert expiring["certificate"]["state"] == "valid"
    assert (gone["revocation"], gone["replaced"]) == ("superseded", False)
    assert len({document["id"] for document in (obtained, failed, expiring, gone)}) == 4
    assert all(b"PRIVATE" not in request.body for request in received)
    assert all("webhook-signature" not in request.headers for request in received)


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        (SECRET, SECRET.encode()),
        (f"whsec_{base64.b64encode(b'24 bytes, and no fewer..').decode()}", b"24 bytes, and no fewer.."),
    ],
    ids=["text", "whsec_"],
)
async def test_signature_is_the_hmac_of_id_time_and_body(start: Start, secret: str, key: bytes) -> None:
    """A receiver that follows Standard Webhooks can tell that it is ours, and when it was sent."""
    with Listener() as listener:
        manager, webhook = start(listener.url, secret=secret)
        manager.events.publish(removed(1))
        (request,) = await arrived(listener, 1)
        await webhook.close()
    headers = request.headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + request.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-id"] == json.loads(request.body)["id"]
    assert headers["webhook-timestamp"] == str(int(EPOCH))


async def test_failed_message_is_sent_again_under_its_id(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """Trouble is said once, and so is its end; the message after it waits for its turn."""
    caplog.set_level("INFO")
    with Listener(500, 503, 200) as listener:
        manager, webhook = start(listener.url)
        manager.events.publish(removed(1))
        manager.events.publish(removed(2))
        received = await arrived(listener, 4)
        await webhook.close()
    assert hosts(received) == ["n1", "n1", "n1", "n2"]
    assert len({request.headers["webhook-id"] for request in received}) == 2
    assert caplog.text.count("it replies 500; retrying for some minutes") == 1
    assert caplog.text.count("works again") == 1
    assert told(caplog, "webhook_down") == [{"node": manager.node.id, "reason": "it replies 500"}]
    assert told(caplog, "webhook_up") == [{"node": manager.node.id}]


async def test_message_that_nobody_takes_is_given_up(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """After the last wait it is said which message is lost, and the next one is sent."""
    with Listener(500, 500, 500, 200) as listener:
        manager, webhook = start(listener.url)
        manager.events.publish(removed(1))
        manager.events.publish(removed(2))
        received = await arrived(listener, 4)
        await webhook.close()
    assert hosts(received) == ["n1", "n1", "n1", "n2"]
    lost = json.loads(received[0].body)["id"]
    assert f"certificate_removed ({lost}) was not delivered: it replies 500" in caplog.text
    assert told(caplog, "webhook_lost") == [
        {"node": manager.node.id, "name": "n1.example.test", "id": lost, "reason": "it replies 500"}
    ]


async def test_message_after_a_rest_is_sent(start: Start) -> None:
    """The queue was empty in between, for however long."""
    with Listener() as listener:
        manager, webhook = start(listener.url)
        for number in (1, 2, 3):
            manager.events.publish(removed(number))
            assert hosts(await arrived(listener, number))[-1] == f"n{number}"
            await asyncio.sleep(0.05)  # the reply comes, and the queue is empty then
        await webhook.close()
    assert len(listener.received) == 3


async def test_redirect_is_not_followed(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """A signed message goes where the operator said, and nowhere else."""
    with Listener() as other, Listener(302, location=other.url) as listener:
        manager, webhook = start(listener.url, waits=())
        manager.events.publish(removed(1))
        await arrived(listener, 1)
        await webhook.close()
        assert other.received == []
    assert "it replies 302; set the URL that it redirects to" in caplog.text


async def test_silent_webhook_holds_up_nobody_else(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """While a message waits for an answer, every other kind of work has its threads, and the loop is free."""
    with Listener(0) as listener:
        manager, webhook = start(listener.url, timeouts=(1.0, 1.0), waits=())
        manager.events.publish(removed(1))
        await arrived(listener, 1)
        for pool in (manager.threads.background, manager.threads.storage, manager.threads.issuer):
            assert await pool(lambda: "done") == "done"
        assert "was not delivered" not in caplog.text  # all of that happened meanwhile
        await webhook.close(within=0.0)
    assert "1 messages are dropped at the end of the process" in caplog.text
    assert told(caplog, "webhook_lost") == [{"node": manager.node.id}]


async def test_silent_webhook_is_given_up_after_its_timeout(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """A server that accepts and says nothing counts as one that failed."""
    with Listener(0) as listener:
        manager, webhook = start(listener.url, timeouts=(0.2, 0.2), waits=())
        manager.events.publish(removed(1))
        async with asyncio.timeout(10):
            while "was not delivered" not in caplog.text:  # noqa: ASYNC110  # the log wakes no task
                await asyncio.sleep(0.01)
        await webhook.close()


async def test_full_queue_drops_the_oldest_and_says_so_once(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """However long the webhook is gone, memory is bounded, and the latest events are those that are kept."""
    with Listener(0) as listener:
        manager, webhook = start(listener.url, most_queued=3)
        manager.events.publish(removed(0))
        await arrived(listener, 1)
        for number in range(1, 7):
            manager.events.publish(removed(number))
        listener.answer_from_now_on(200)
        await webhook.close()
        received = list(listener.received)
    assert hosts(received) == ["n0", "n0", "n5", "n6"]
    assert caplog.text.count("3 messages are queued, so the oldest are dropped") == 1
    assert told(caplog, "webhook_full") == [{"node": manager.node.id}]


async def test_what_is_queued_at_the_end_is_tried_once(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """An end in the middle of a wait does not wait it out, and does not forget."""
    with Listener(500) as listener:
        manager, webhook = start(listener.url, waits=(3600.0,))
        manager.events.publish(removed(1))
        manager.events.publish(removed(2))
        await arrived(listener, 1)
        listener.answer_from_now_on(200)
        await webhook.close()
        assert hosts(listener.received) == ["n1", "n1", "n2"]
        await webhook.close()
        assert len(listener.received) == 3


async def test_log_does_not_show_the_url(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """Who knows the path of many a webhook can write to it."""
    with Listener() as listener:
        port = listener.port
    manager, webhook = start(f"http://127.0.0.1:{port}/s3cret-path", waits=())
    manager.events.publish(removed(1))
    await webhook.close()
    assert "the webhook at 127.0.0.1" in caplog.text
    assert "s3cret-path" not in caplog.text


async def test_proxy_of_the_environment_is_not_used(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may well be this very proxy."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with Listener() as listener:
        manager, webhook = start(listener.url)
        manager.events.publish(removed(1))
        await arrived(listener, 1)
        await webhook.close()


async def test_message_that_came_while_the_only_other_was_sent_is_sent(start: Start) -> None:
    """A queue of one: the newer message takes the place of the one on its way, and is not taken for that."""
    with Listener() as listener:
        manager, webhook = start(listener.url, most_queued=1)
        manager.events.publish(removed(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        manager.events.publish(removed(2))
        assert "n2" in hosts(await arrived(listener, 2))
        await webhook.close()


async def test_reply_that_comes_byte_by_byte_is_given_up(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The time for each read does not end it: the message counts as not delivered, and the next one is sent."""
    done = threading.Event()

    def drip(*_: object) -> str:
        done.wait(20)
        return ""

    monkeypatch.setattr(Webhook, "_post", drip)
    manager, webhook = start("http://127.0.0.1:1/", timeouts=(0.01, 0.02), waits=())
    try:
        manager.events.publish(removed(1))
        async with asyncio.timeout(5):
            while "was not delivered: no reply in time" not in caplog.text:  # noqa: ASYNC110  # the log wakes no task
                await asyncio.sleep(0.005)
    finally:
        done.set()
        await webhook.close()


async def test_nothing_is_delivered_by_its_task_after_the_end(start: Start) -> None:
    """The task has ended when ``close`` returns: who closes the loop then leaves none behind."""
    _, webhook = start("http://127.0.0.1:1/")
    await webhook.close()
    assert [task for task in asyncio.all_tasks() if task.get_name() == "acme webhook"] == []


async def test_body_of_a_reply_is_not_read(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """The status says all: a body that never ends fills no memory and delays nothing."""
    asked = list[bytes]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nsome of it")
        await writer.drain()
        await reader.read()  # until the client hangs up
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    manager, webhook = start(f"http://127.0.0.1:{port}/", timeouts=(5.0, 5.0), waits=())
    manager.events.publish(removed(1))
    manager.events.publish(removed(2))
    async with asyncio.timeout(4):  # sooner than the reading of a body would be given up
        while len(asked) < 2:  # noqa: ASYNC110  # another thread's request wakes no task
            await asyncio.sleep(0.01)
    await webhook.close()
    server.close()
    assert caplog.messages == []
