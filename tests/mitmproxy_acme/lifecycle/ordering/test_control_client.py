"""What a data node asks of control nodes, and what it says where there is none."""

import logging

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.errors import BackingOff, NoControlNode
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle.ordering.control_client import ControlClient
from mitmproxy_acme.lifecycle.ordering.order_request import OrderRequest, Requester
from mitmproxy_acme.lifecycle.ordering.unusable_answers import UnusableAnswers
from mitmproxy_acme.store.issuance_requests import IssuanceRequests
from mitmproxy_acme.store.nodes import Node, Nodes
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import EPOCH, UNSEALED, Clock, make_certificate

SUBJECT = Subject((ServerName("a.example.test"),))
CONTROL = Node("c-1", "control", "1", "host", EPOCH)


@pytest.fixture
def requests(memory: Memory) -> IssuanceRequests:
    return IssuanceRequests(memory, UNSEALED)


@pytest.fixture
def client(memory: Memory, requests: IssuanceRequests, make_manager: MakeManager) -> ControlClient:
    manager, now = make_manager(), Clock()
    gate, unusable = manager._parts.obtainer.gate, UnusableAnswers("this", now)
    return ControlClient(requests, Nodes(memory), manager.store, manager.threads, gate, unusable, now)


async def test_absence_of_control_nodes_is_said_once_and_so_is_their_return(
    client: ControlClient, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    """Not for each visitor; and a start with one of them up is no news."""
    caplog.set_level(logging.WARNING)
    nodes = Nodes(memory)
    nodes.heartbeat(CONTROL, EPOCH)
    await client.ask(SUBJECT)
    assert caplog.messages == []
    for _ in range(2):
        nodes.sign_off(CONTROL)
        for _ in range(3):
            with pytest.raises(NoControlNode, match="no control node is up to order it"):
                await client.ask(SUBJECT)
        nodes.heartbeat(CONTROL, EPOCH)
        for _ in range(3):
            await client.ask(SUBJECT)
    down = "no control node is up, so nothing is ordered; start one with acme_role=control on this storage"
    assert caplog.messages == [down, "a control node is up again"] * 2


async def test_refusal_of_a_control_node_is_passed_on(
    client: ControlClient, memory: Memory, requests: IssuanceRequests
) -> None:
    """With its end; a person's request is written all the same."""
    Nodes(memory).heartbeat(CONTROL, EPOCH)
    requests.refuse(SUBJECT.id, Backoff(1, EPOCH + 60, "no route"), 60, for_person=False)
    with pytest.raises(BackingOff, match="the control node has no certificate: no route") as caught:
        await client.ask(SUBJECT)
    assert caught.value.until == EPOCH + 60
    assert requests.pending(EPOCH) == []
    await client.ask(SUBJECT, for_person=True)
    assert requests.pending(EPOCH) == [SUBJECT.id]
    assert requests.is_for_person(SUBJECT.id)


async def test_data_node_does_not_ask_for_ever(
    client: ControlClient, memory: Memory, requests: IssuanceRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No control node answers: the visitor is told."""
    monkeypatch.setattr("mitmproxy_acme.lifecycle.ordering.control_client._TOO_LONG", -1.0)
    Nodes(memory).heartbeat(CONTROL, EPOCH)
    with pytest.raises(NoControlNode, match="no control node has answered for"):
        await client.obtain(OrderRequest(SUBJECT, Requester.PERSON))
    assert requests.is_for_person(SUBJECT.id)


async def test_answer_that_is_usable_by_now_is_taken_and_not_asked_for(
    client: ControlClient, memory: Memory, requests: IssuanceRequests, make_manager: MakeManager
) -> None:
    """Its name was put off because of what was stored before: no control node need be up."""
    request = OrderRequest(SUBJECT, Requester.VISITOR)
    expired, valid = (make_certificate(SUBJECT.names, now=EPOCH - age) for age in (91 * DAY, 0.0))
    client._unusable.remember(request, expired)
    memory.put(f"certificates/{SUBJECT.id}", expired.to_record())
    with pytest.raises(BackingOff, match="set the clock that is wrong"):
        await client.obtain(request)
    memory.put(f"certificates/{SUBJECT.id}", valid.to_record())
    assert (await client.obtain(request)).fingerprint == valid.fingerprint
    assert memory.keys("requests/") == []
