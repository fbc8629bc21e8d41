"""What data nodes ask of control nodes: how long it holds, how much comes at once, and what a kill leaves."""

from typing import Any

import pytest
from cryptography.fernet import Fernet

from acme_storage import StorageCorrupt
from acme_storage.memory import Memory
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.issuance_requests import IssuanceRequests
from mitmproxy_acme.store.keys import refusal_key, request_key
from tests.mitmproxy_acme.fakes import EPOCH, UNSEALED, Clock

_A = ServerName("a.example.test")
_REFUSAL = Backoff(1, EPOCH + 60, "dns: no such host")


@pytest.fixture
def requests(memory: Memory) -> IssuanceRequests:
    return IssuanceRequests(memory, UNSEALED)


@pytest.mark.parametrize("for_person", [False, True])
def test_request_ends_by_itself(requests: IssuanceRequests, clock: Clock, for_person: bool) -> None:
    """A data node that is gone leaves no request behind: after half a minute none is pending."""
    requests.ask(_A, for_person)
    clock.advance(29)
    assert requests.pending(clock()) == [_A]
    clock.advance(2)
    assert requests.pending(clock()) == []


def test_many_requests_come_in_parts(requests: IssuanceRequests, clock: Clock) -> None:
    """A control node reads a thousand at once, however many strangers asked for."""
    names = [ServerName(f"n{number:04}.example.test") for number in range(1_200)]
    for name in names:
        requests.ask(name)
    assert requests.pending(clock()) == names[:1_000]


_NEW, _OLD = (Fernet.generate_key().decode() for _ in range(2))


@pytest.mark.parametrize("persons", [(True, False), (False, True), (False, False), (True, True)])
def test_person_who_asks_with_any_key_counts(memory: Memory, persons: tuple[bool, bool]) -> None:
    """While keys are exchanged two requests for a name may be there, one by each; both go together."""
    control = IssuanceRequests(memory, RecordCipher([_NEW, _OLD]))
    for key, for_person in zip((_NEW, _OLD), persons, strict=True):
        IssuanceRequests(memory, RecordCipher([key])).ask(_A, for_person)
    assert control.is_for_person(_A) is any(persons)
    assert set(control.pending(EPOCH)) == {_A}
    control.fulfil(_A)
    assert control.pending(EPOCH) == []


@pytest.mark.parametrize("for_person", [False, True])
def test_refusal_waits_for_a_person_who_has_asked_since(
    requests: IssuanceRequests, clock: Clock, for_person: bool
) -> None:
    """What the person asks for comes next; what was refused to a person ends the request."""
    requests.ask(_A, True)
    requests.refuse(_A, _REFUSAL, 60, for_person=for_person)
    assert requests.pending(clock()) == ([] if for_person else [_A])


@pytest.mark.parametrize(("after", "refusal"), [(59.9, _REFUSAL), (60.0, None)])
def test_refusal_is_repeated_for_its_time(
    requests: IssuanceRequests, clock: Clock, after: float, refusal: Backoff | None
) -> None:
    requests.ask(_A)
    requests.refuse(_A, _REFUSAL, 60, for_person=False)
    clock.advance(after)
    assert requests.ask(_A).refusal == refusal


def test_refusal_that_cannot_be_read_counts_as_none(
    requests: IssuanceRequests, memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate is asked for again."""
    requests.refuse(_A, _REFUSAL, 60, for_person=False)

    def corrupt(key: str) -> bytes:
        raise StorageCorrupt(key)

    with monkeypatch.context() as patch:
        patch.setattr(memory, "get", corrupt)
        assert requests.ask(_A).refusal is None
    assert requests.pending(clock()) == [_A]
    assert requests.ask(_A).refusal == _REFUSAL


def test_refusal_is_there_before_the_request_goes(
    requests: IssuanceRequests, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a data node could ask again in between."""
    order: list[str] = []

    def note(call: str) -> Any:
        real = getattr(memory, call)

        def noted(key: str, *arguments: Any, **named: Any) -> Any:
            order.append(f"{call} {key}")
            return real(key, *arguments, **named)

        return noted

    requests.ask(_A)
    for call in ("put", "delete"):
        monkeypatch.setattr(memory, call, note(call))
    requests.refuse(_A, _REFUSAL, 60, for_person=False)
    assert order == [f"put {refusal_key(_A)}", f"delete {request_key(_A)}"]


@pytest.mark.parametrize("record", [b"{}", b"[", b'{"sealed": 2}'])
def test_refusal_that_is_broken_is_none(memory: Memory, record: bytes) -> None:
    """The control node is asked, as if it had said nothing."""
    for cipher in (UNSEALED, RecordCipher([Fernet.generate_key().decode()])):
        requests = IssuanceRequests(memory, cipher)
        memory.put(refusal_key(ServerName("a.test")), record)
        assert requests.ask(ServerName("a.test")).refusal is None


def test_person_who_asks_ends_an_earlier_refusal(requests: IssuanceRequests) -> None:
    """Else the node that asks for him would find it, and tell him so while a control node orders."""
    requests.refuse(_A, _REFUSAL, 60, for_person=False)
    assert requests.ask(_A).refusal == _REFUSAL
    requests.ask(_A, for_person=True)
    assert requests.ask(_A).refusal is None
