"""One renewal pass in this process, on any store, with every call counted that it makes.

Knows the renewer and the protocol of stores; must not know how a store is filled.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from acme_storage import Storage
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.lifecycle.renewal.renewer import Renewer
from scripts.bench_hoard import LocalCA, put


class Counted:
    """A storage that counts its calls. Its ``close`` does nothing: another pass may follow."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.calls: Counter[str] = Counter()

    def get(self, key: str) -> bytes | None:
        self.calls["get"] += 1
        return self._storage.get(key)

    def put(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        self.calls["put"] += 1
        self._storage.put(key, value, ttl=ttl)

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        self.calls["swap"] += 1
        return self._storage.swap(key, old, new, ttl=ttl)

    def delete(self, key: str) -> None:
        self.calls["delete"] += 1
        self._storage.delete(key)

    def keys(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[str]:
        self.calls["keys"] += 1
        return self._storage.keys(prefix, after=after, limit=limit)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Pass:
    """What a pass cost."""

    calls: dict[str, int]
    seconds: float

    @property
    def total(self) -> int:
        return sum(self.calls.values())

    def __str__(self) -> str:
        return ", ".join(f"{name} {count}" for name, count in sorted(self.calls.items()))


async def passes(storage: Storage, ca: LocalCA, due: Sequence[Certificate], zone: str, now: float) -> tuple[Pass, Pass]:
    """One in which nothing is due, and one in which ``due`` are, and are renewed; the time is ``now``."""
    counted = Counted(storage)
    config = Config.from_options(
        {"acme_domains": (f"**.{zone}",), "acme_ca": (ca.directory,), "acme_tos_accepted": True}
    )
    # It signs at once: a CA's time is not what is measured.
    manager = Manager(config, counted, issuers=(ca,), now=lambda: now)  # type: ignore[arg-type]
    renewer = manager.make_renewer()
    try:
        await _pass(renewer, counted)  # the first one also looks for a wrong storage key
        idle = await _pass(renewer, counted)
        put(storage, due, [now - 1] * len(due))
        busy = await _pass(renewer, counted)
        stored = [(old, manager.store.slot(old.id).certificate) for old in due]
    finally:
        await renewer.close()
        await manager.close()
    assert all(new and new.not_before > old.not_before for old, new in stored), "a due one was not renewed"
    return idle, busy


async def _pass(renewer: Renewer, counted: Counted) -> Pass:
    """A round as ``run`` makes it again and again, and all that it begins."""
    counted.calls.clear()
    begun = time.perf_counter()
    await renewer._round()
    await renewer._checks.wait_idle()
    return Pass(dict(counted.calls), time.perf_counter() - begun)
