"""The nodes that are up, as each says it of itself."""

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.store.nodes import Node, Nodes
from tests.mitmproxy_acme.fakes import EPOCH, Clock

_CONTROL = Node("aa", "control", "1.0", "host-a", EPOCH)
_DATA = Node("bb", "data", "1.0", "host-b", EPOCH)


def test_nodes_are_seen_until_they_are_down_or_silent(memory: Memory, clock: Clock) -> None:
    """A node that signs off is gone at once; one that died is gone after four heartbeats."""
    nodes = Nodes(memory)
    for node in (_DATA, _CONTROL):
        nodes.heartbeat(node, EPOCH)
    assert nodes.list_up() == [_CONTROL, _DATA]
    assert nodes.control_is_up()

    clock.advance(4 * _CONTROL.heartbeat_interval + 1)
    assert nodes.list_up() == [_DATA]
    assert not nodes.control_is_up()

    nodes.sign_off(_DATA)
    assert nodes.list_up() == []


_BROKEN = [b"", b"{", b"[]", b"null", b'{"id": "x"}', b'{"since": "soon"}', b"\xff", b"[" * 60_000]
_WRONG = [
    *({"since": since} for since in ("NaN", "Infinity", "-Infinity", "1e300", "-1", '"1"', "true", "null", "1" * 400)),
    *({"since": since} for since in ("253402300800", "[]", "{}")),
    *({name: value} for name in ("id", "role", "version", "host") for value in ("1", "null", f'"{"x" * 256}"')),
]


def _with(change: dict[str, str]) -> bytes:
    fields = {"id": '"x"', "role": '"data"', "version": '"1"', "host": '"h"', "since": "1"} | change
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}").encode()


def test_record_of_a_node_is_read_whatever_wrote_it() -> None:
    """What the wrong records differ from."""
    assert Node.from_record(_with({})) == Node("x", "data", "1", "h", 1.0)


@pytest.mark.parametrize("record", [*_BROKEN, *map(_with, _WRONG)])
def test_broken_record_is_left_out(memory: Memory, record: bytes) -> None:
    """A record of an older node, or a foreign one, is skipped."""
    nodes = Nodes(memory)
    nodes.heartbeat(_CONTROL, EPOCH)
    memory.put("nodes/data/zz", record)
    assert nodes.list_up() == [_CONTROL]


def test_few_nodes_are_read(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many records a stranger has written there."""
    monkeypatch.setattr("mitmproxy_acme.store.nodes._MOST", 2)
    nodes = Nodes(memory)
    for number in range(4):
        nodes.heartbeat(Node(f"n{number}", "data", "1.0", "host", EPOCH), EPOCH + number)
    assert [node.id for node in nodes.list_up()] == ["n0", "n1"]
    assert nodes.clocks() == {"n0": EPOCH, "n1": EPOCH + 1}


def test_record_is_read_as_it_was_written() -> None:
    """Every field comes back."""
    assert Node.from_record(_DATA.to_record(EPOCH)) == _DATA
