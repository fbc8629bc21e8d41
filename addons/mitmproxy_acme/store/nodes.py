"""The nodes of the cluster: each announces itself in the storage, and the others list them.

    nodes/ROLE/NODE  one node that is up (JSON); expires some seconds after its last heartbeat

This module knows these records; it must not know what a node does.
"""

import json
from dataclasses import asdict, dataclass
from typing import Self

from acme_storage import Storage, StorageCorrupt

from ..core.renewal import is_time
from .keys import node_key, node_prefix

# How often a node announces itself (seconds): data nodes wait for a control node, and should not wait for a dead one.
_HEARTBEAT = {"control": 5.0}
_HEARTBEAT_DEFAULT = 20.0
_BEATS = 4
# Longer than any valid text (a host name: 253), and more nodes than a storage serves.
_LONGEST, _MOST = 255, 1_000


@dataclass(frozen=True, slots=True)
class Node:
    """One process: ``id`` is its own, ``host`` is the machine's name, ``since`` its start (Unix seconds)."""

    id: str
    role: str
    version: str
    host: str
    since: float

    @property
    def heartbeat_interval(self) -> float:
        """The seconds between two heartbeats."""
        return _HEARTBEAT.get(self.role, _HEARTBEAT_DEFAULT)

    def to_record(self, now: float) -> bytes:
        """Return the record of a heartbeat at ``now`` (Unix seconds)."""
        return json.dumps(asdict(self) | {"now": now}).encode()

    @classmethod
    def from_record(cls, record: bytes) -> Self | None:
        """Read what ``to_record`` wrote; None for anything else: people read it, and metrics have it as labels."""
        try:
            fields = json.loads(record)
            texts = [fields[name] for name in ("id", "role", "version", "host")]
            since = fields["since"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        if not all(isinstance(text, str) and len(text) <= _LONGEST and text.isprintable() for text in texts):
            return None
        if isinstance(since, bool) or not isinstance(since, int | float) or not is_time(since):
            return None
        id, role, version, host = texts
        return cls(id, role, version, host, float(since))


class Nodes:
    """The nodes in one storage. Every method blocks, is safe from any thread, and raises ``StorageError``."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def heartbeat(self, node: Node, now: float) -> None:
        """Announce that ``node`` is up, and the time of its clock (Unix seconds)."""
        self._storage.put(node_key(node.role, node.id), node.to_record(now), ttl=_BEATS * node.heartbeat_interval)

    def sign_off(self, node: Node) -> None:
        self._storage.delete(node_key(node.role, node.id))

    def control_is_up(self) -> bool:
        return bool(self._storage.keys(node_prefix("control"), limit=1))

    def list_up(self) -> list[Node]:
        """Return all nodes that are up, by role, without broken records."""
        found = [self._read(key) for key in self._storage.keys(node_prefix(), limit=_MOST)]
        return [node for node in found if node is not None]

    def clocks(self) -> dict[str, float]:
        """Return the times (Unix seconds) of the last heartbeats, by node; those of earlier releases tell none."""
        keys = self._storage.keys(node_prefix(), limit=_MOST)
        told = {_id_in(key): _clock_in(self._record(key)) for key in keys}
        return {id: at for id, at in told.items() if at is not None}

    def _read(self, key: str) -> Node | None:
        record = self._record(key)
        return Node.from_record(record) if record is not None else None

    def _record(self, key: str) -> bytes | None:
        try:
            return self._storage.get(key)
        except StorageCorrupt:
            return None


def _id_in(key: str) -> str:
    return key.rpartition("/")[2]


def _clock_in(record: bytes | None) -> float | None:
    try:
        told = json.loads(record or b"")["now"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if isinstance(told, bool) or not isinstance(told, int | float) or not is_time(told):
        return None
    return float(told)
