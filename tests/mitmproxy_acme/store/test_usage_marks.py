"""Whether a client has asked for a certificate: one mark for each, that no process takes from another."""

import json

import pytest

from acme_storage import StorageCorrupt
from acme_storage.memory import Memory
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.keys import usage_key
from mitmproxy_acme.store.usage_marks import Usage, UsageMark, UsageMarks
from tests.mitmproxy_acme.fakes import EPOCH

_A = ServerName("a.example.test")
_UNUSED, _USED = UsageMark(EPOCH, Usage.UNUSED), UsageMark(EPOCH, Usage.USED)
_IDLE = UsageMark(EPOCH, Usage.IDLE, EPOCH + 5)


@pytest.fixture
def marks(memory: Memory) -> UsageMarks:
    return UsageMarks(memory)


def put(memory: Memory, mark: UsageMark | None) -> None:
    if mark is not None:
        memory.put(usage_key(_A), mark.to_record())


@pytest.mark.parametrize(
    ("before", "begun", "after"),
    [
        (None, EPOCH, _UNUSED),
        (_USED, EPOCH, _USED),
        (_IDLE, EPOCH, _IDLE),
        (_USED, EPOCH + 1, UsageMark(EPOCH + 1, Usage.UNUSED)),
        (_USED, EPOCH - 1, UsageMark(EPOCH - 1, Usage.UNUSED)),
    ],
)
def test_new_certificate_is_unused(
    marks: UsageMarks, memory: Memory, before: UsageMark | None, begun: float, after: UsageMark
) -> None:
    """Unless it has its mark already."""
    put(memory, before)
    marks.note_obtained(_A, begun)
    assert marks.get(_A) == after


@pytest.mark.parametrize(
    ("before", "begun", "after", "revived"),
    [
        (None, EPOCH, EPOCH, False),
        (_UNUSED, EPOCH, EPOCH, False),
        (_USED, EPOCH, EPOCH, False),
        (_USED, EPOCH - 1, EPOCH, False),
        (_USED, EPOCH + 1, EPOCH + 1, False),
        (_UNUSED, EPOCH - 1, EPOCH, False),
        (_IDLE, EPOCH, EPOCH, True),
        (_IDLE, EPOCH - 1, EPOCH, True),
        (_IDLE, EPOCH + 1, EPOCH + 1, False),
    ],
)
def test_client_counts_for_the_newest_certificate(
    marks: UsageMarks, memory: Memory, before: UsageMark | None, begun: float, after: float, revived: bool
) -> None:
    """An idle one is to be checked again, which its mark tells once."""
    put(memory, before)
    assert marks.note_used(_A, begun) == (_IDLE if revived else None)
    assert marks.get(_A) == UsageMark(after, Usage.USED)
    assert marks.note_used(_A, begun) is None


@pytest.mark.parametrize(
    ("before", "begun", "passed_over"),
    [
        (None, EPOCH, False),
        (_UNUSED, EPOCH, True),
        (_UNUSED, EPOCH + 1, False),
        (_USED, EPOCH, False),
        (_IDLE, EPOCH, True),
    ],
)
def test_only_an_unused_certificate_is_passed_over(
    marks: UsageMarks, memory: Memory, before: UsageMark | None, begun: float, passed_over: bool
) -> None:
    """What is not known may be used. One that is idle stays as it is."""
    put(memory, before)
    assert marks.pass_over(_A, begun, EPOCH + 5) is passed_over
    assert marks.get(_A) == (_IDLE if passed_over else before)
    assert marks.is_idle(_A, EPOCH) is passed_over
    assert not marks.is_idle(_A, EPOCH + 1)


def test_client_between_the_look_and_the_mark_wins(
    marks: UsageMarks, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(memory, _UNUSED)
    swap = memory.swap

    def late(key: str, old: bytes | None, new: bytes | None) -> bool:
        memory.put(key, _USED.to_record())
        return swap(key, old, new)

    monkeypatch.setattr(memory, "swap", late)
    assert not marks.pass_over(_A, EPOCH, EPOCH + 5)
    assert marks.get(_A) == _USED


@pytest.mark.parametrize(
    "changes", [{"begun": "soon"}, {"begun": -1}, {"usage": "often"}, {"check_at": None}, {"check_at": 1e300}]
)
def test_other_record_is_none(changes: dict[str, object]) -> None:
    fields = json.loads(_IDLE.to_record())
    assert UsageMark.from_record(json.dumps(fields).encode()) == _IDLE
    assert UsageMark.from_record(json.dumps(fields | changes).encode()) is None


@pytest.mark.parametrize("record", [None, b"", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_record_that_is_no_object_is_none(record: bytes | None) -> None:
    assert UsageMark.from_record(record) is None


def test_corrupt_record_is_replaced(marks: UsageMarks, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise no mark could ever be written."""
    put(memory, _IDLE)
    get = memory.get

    def corrupt(key: str) -> bytes | None:
        if get(key) is not None:
            raise StorageCorrupt(key)
        return None

    monkeypatch.setattr(memory, "get", corrupt)
    marks.note_obtained(_A, EPOCH)
    monkeypatch.undo()
    assert marks.get(_A) == _UNUSED
    marks.delete(_A)
    assert memory.keys("") == []
