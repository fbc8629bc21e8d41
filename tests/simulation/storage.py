"""A modelled storage server, and what one process of a node has of it.

Knows the contract of ``acme_storage`` and faults; must not know what any key means. The values are in ``Memory``, the
model for all stores. A call takes time before and after its effect, and so may fail, or its process may die, on either
side of it.
"""

from collections import Counter, deque
from collections.abc import Callable
from random import Random
from typing import Any

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory

from .threads import Life, pause

# Seconds after which a call to a silent server fails.
_PATIENCE = 2.0
# How many copies a server keeps, one in five seconds.
_COPIES = 16
_NO_NODE = -1


class StorageModel:
    """The server, for all nodes. Times to live are by its own clock, which is right."""

    def __init__(self, random: Random, true_time: Callable[[], float]) -> None:
        self.random = random
        self._true_time = true_time
        self.memory = Memory(true_time)
        self.down = False
        self.restarts = 0  # how many are under way
        self._copies: deque[tuple[float, Memory]] = deque(maxlen=_COPIES)
        self.unreachable_for: Counter[int] = Counter()
        self.latency = 0.001  # 0: each call is over before anything else happens
        self.flaky = 0.0  # the part of calls that fail
        self.calls = 0
        self.watch: Callable[[int, str, tuple[Any, ...], object], None] = lambda node, call, arguments, result: None

    def fails_for(self, node: int) -> bool:
        return self.down or self.restarts > 0 or self.unreachable_for[node] > 0

    def remember(self) -> None:
        """Keep a copy of all values, as a server does that writes its disk now and then."""
        if not self.fails_for(_NO_NODE):
            self._copies.append((self._true_time(), self._copy(self.memory)))

    def copy_of(self, moment: float) -> Memory | None:
        """Return what was stored at that time, or somewhat before; None if that is not known any more."""
        earlier = [copy for at, copy in self._copies if at <= moment]
        return self._copy(earlier[-1]) if earlier else None

    def lose(self, copy: Memory | None) -> None:
        """Come back with the values of an older copy, or with none."""
        self.memory = copy or Memory(self._true_time)

    def _copy(self, memory: Memory) -> Memory:
        copy = Memory(self._true_time)
        copy._values, copy._sorted, copy._expiries = dict(memory._values), [*memory._sorted], [*memory._expiries]
        return copy


class StorageClient:
    """A ``Storage``; ``before_call`` is told of each call, and may end the process."""

    def __init__(self, model: StorageModel, node: int, life: Life, before_call: Callable[[], None]) -> None:
        self._model = model
        self._node = node
        self._life = life
        self._before_call = before_call

    def get(self, key: str) -> bytes | None:
        return self._call("get", key)  # type: ignore[no-any-return]

    def put(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        self._call("put", key, value, ttl=ttl)

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        return bool(self._call("swap", key, old, new, ttl=ttl))

    def delete(self, key: str) -> None:
        self._call("delete", key)

    def keys(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[str]:
        return self._call("keys", prefix, after=after, limit=limit)  # type: ignore[no-any-return]

    def close(self) -> None:
        pass

    def _call(self, call: str, *arguments: Any, **options: Any) -> Any:
        model = self._model
        model.calls += 1
        self._before_call()
        self._pause()
        if model.fails_for(self._node):
            pause(_PATIENCE * model.random.random(), self._life)
            raise StorageUnavailable("the simulated storage cannot be reached")
        fails = model.flaky > 0 and model.random.random() < model.flaky
        if fails and model.random.random() < 0.5:
            raise StorageUnavailable("the simulated storage failed before it did anything")
        result = getattr(model.memory, call)(*arguments, **options)
        model.watch(self._node, call, arguments, result)
        self._pause()
        if fails or model.fails_for(self._node):
            raise StorageUnavailable("the simulated storage failed after it did what was asked")
        return result

    def _pause(self) -> None:
        if self._model.latency:
            pause(self._model.latency * self._model.random.random(), self._life)
