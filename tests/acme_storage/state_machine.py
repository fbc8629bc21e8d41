"""Any adapter against ``Memory``: hypothesis invents calls and time, and both must answer alike.

An adapter's test makes a subclass with ``open`` and takes its ``TestCase``. This module knows no adapter but the model.
"""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from acme_storage import Storage
from acme_storage.memory import Memory
from tests.acme_storage.contract import GOOD_KEYS, SORTED_KEYS, ManualClock

LONG = ["x" * length + tail for length in (83, 84, 85, 168, 200) for tail in ("", "-", "/", "/y", "y/z", "0")]
KEYS = sorted({*SORTED_KEYS, *GOOD_KEYS, *(key for key in LONG if not key.endswith("/"))})
PREFIXES = ["", *sorted({f"{key}/" for key in KEYS if len(key) < 512} | {key for key in LONG if key.endswith("/")})]

keys = st.sampled_from(SORTED_KEYS) | st.sampled_from(KEYS)
prefixes = st.sampled_from(["", "", "a/", "a/b/"]) | st.sampled_from(PREFIXES)
values = st.sampled_from([b"", b"x", b"y", b"\0" * 9]) | st.binary(max_size=40)
ttls = st.none() | st.integers(1, 20)


class StorageMachine(RuleBasedStateMachine):
    """The rules; a subclass gives ``open``: an empty store, whose clock is the one given."""

    def open(self, clock: ManualClock) -> Storage:
        raise NotImplementedError("the subclass gives its store")

    @initialize()
    def start(self) -> None:
        self.clock = ManualClock()
        self.model = Memory(self.clock)
        self.store = self.open(self.clock)

    @rule(key=keys)
    def get(self, key: str) -> None:
        assert self.store.get(key) == self.model.get(key)

    @rule(key=keys, value=values, ttl=ttls)
    def put(self, key: str, value: bytes, ttl: int | None) -> None:
        self.store.put(key, value, ttl=ttl)
        self.model.put(key, value, ttl=ttl)

    @rule(key=keys, old=st.none() | values, new=st.none() | values, ttl=ttls)
    def swap(self, key: str, old: bytes | None, new: bytes | None, ttl: int | None) -> None:
        assert self.store.swap(key, old, new, ttl=ttl) == self.model.swap(key, old, new, ttl=ttl)

    @rule(key=keys, new=st.none() | values, ttl=ttls)
    def swap_current(self, key: str, new: bytes | None, ttl: int | None) -> None:
        self.swap(key, self.model.get(key), new, ttl)

    @rule(key=keys)
    def delete(self, key: str) -> None:
        self.store.delete(key)
        self.model.delete(key)

    @rule(prefix=prefixes, after=st.just("") | keys | prefixes, limit=st.none() | st.integers(0, 5))
    def list_keys(self, prefix: str, after: str, limit: int | None) -> None:
        assert self.store.keys(prefix, after=after, limit=limit) == self.model.keys(prefix, after=after, limit=limit)

    @rule(seconds=st.sampled_from([1, 5, 19, 4000]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @invariant()
    def same(self) -> None:
        if hasattr(self, "store"):
            found = self.store.keys("")
            assert found == self.model.keys("")
            assert [self.store.get(key) for key in found] == [self.model.get(key) for key in found]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
