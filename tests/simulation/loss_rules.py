"""What must hold after the storage has lost values, or has come back as an older copy.

Knows certificates and when they were lost; must not know how, or what else goes wrong.
"""

from collections.abc import Callable, Mapping

from mitmproxy_acme.core.certificate import Certificate

# Seconds after which a node that holds what is lost has stored it again. It reads every three.
_STORED_AGAIN = 15.0
# Seconds after a deletion in which a new certificate may count as deleted too, because clocks differ.
_CLOCKS_DIFFER = 600.0

type Holders = Callable[[str, Certificate], list[int]]


class Losses:
    """What the storage has lost and does not have again. ``holders`` are the nodes that order, and hold it."""

    def __init__(self) -> None:
        self.holders: Holders = lambda id, certificate: []
        self._lost: dict[str, Certificate] = {}
        self._deleted_at: dict[str, float] = {}
        self._at = -1e9

    def note(self, before: Mapping[str, Certificate], after: Mapping[str, Certificate], now: float) -> set[str]:
        """Compare what was stored with what is; return the ids that differ."""
        self._at = now
        changed = {id for id in {*before, *after} if _print(before.get(id)) != _print(after.get(id))}
        self._lost |= {id: before[id] for id in changed if id in before}
        return changed

    def deleted(self, id: str, now: float) -> None:
        self._deleted_at[id] = now

    def stored(self, id: str) -> None:
        """Another one is stored, or the same again: what was lost counts no longer."""
        self._lost.pop(id, None)

    def has(self, id: str, certificate: Certificate) -> bool:
        """Say whether this is what was lost: it is served until something else is stored."""
        return _print(self._lost.get(id)) == certificate.fingerprint

    def needless(self, node: int, id: str, now: float, fresh: float, storage_trouble_at: float) -> str:
        """Say why a node need not order a name whose fresh certificate is lost; empty where it must.

        One that holds it stores it again at once, and the others wait until it has.
        """
        lost = self._lost.get(id)
        if lost is None or lost.not_after <= now or now - lost.not_before > fresh:
            return ""
        if lost.not_before <= self._deleted_at.get(id, -1e9) + _CLOCKS_DIFFER:
            return ""
        holders = self.holders(id, lost)
        if node in holders:
            return "which it holds"
        if holders and now - self._at > _STORED_AGAIN and storage_trouble_at <= self._at:
            return f"which node {holders[0]} has held since it was lost, {now - self._at:.0f} s ago"
        return ""


def _print(certificate: Certificate | None) -> bytes | None:
    return certificate.fingerprint if certificate is not None else None
