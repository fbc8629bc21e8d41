"""Proofs: what nobody waits for is remembered for seconds, and then looked for anew."""

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.keeping.store import Store
from mitmproxy_acme.proof import Proof
from mitmproxy_acme.serving.proofs import Proofs
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import UNSEALED, Clock

PROOF = Proof("http-01", "token", "value")


@pytest.mark.parametrize("step", [10.0, -3_600.0], ids=["seconds later", "the clock set back"])
async def test_unknown_is_remembered_for_seconds(
    make_manager: MakeManager, memory: Memory, clock: Clock, step: float
) -> None:
    """And not until an hour has come again, where the clock was set back: another node's order may wait for it."""
    proofs = Proofs(make_manager())
    assert await proofs.find(PROOF.type, PROOF.place) is None
    Store(memory, UNSEALED).publish(PROOF)
    assert await proofs.find(PROOF.type, PROOF.place) is None
    clock.advance(step)
    assert await proofs.find(PROOF.type, PROOF.place) == PROOF.value
