"""How many TLS contexts are kept, and for how long; test_handshakes has what is in one."""

from types import SimpleNamespace
from typing import Any

import pytest

from mitmproxy_acme.mitm.tls.contexts import TlsContexts
from tests.mitmproxy_acme.fakes import Clock, make_certificate


class Contexts(TlsContexts):
    """Counts what it builds."""

    def __init__(self, size: int, clock: Clock, draw: float = 0.0) -> None:
        self.built = 0
        options: Any = SimpleNamespace()
        super().__init__(options, "intermediate", size, lambda: None, clock=clock, draw=lambda: draw)

    def _build(self, *_: object) -> Any:
        self.built += 1
        return object()


@pytest.mark.parametrize(("size", "kept"), [(1, 1), (1_023, 1_023), (1_024, 1_024), (10_000, 1_024)])
def test_no_more_contexts_than_certificates_and_never_many(clock: Clock, size: int, kept: int) -> None:
    """One takes 23 KiB."""
    assert Contexts(size, clock)._contexts.maxsize == kept


@pytest.mark.parametrize(("draw", "hours"), [(0.0, 3.0), (0.5, 3.5)])
def test_context_is_built_again_after_some_hours(clock: Clock, draw: float, hours: float) -> None:
    """Not all at the same moment; each certificate and each list of ciphers has its own."""
    contexts, certificate = Contexts(10, clock, draw), make_certificate(["a.test"])
    first = contexts.get(certificate)
    clock.advance(hours * 3_600 - 1)
    assert contexts.get(certificate) is first
    assert contexts.get(certificate, ("AES",)) is not first
    assert contexts.get(make_certificate(["a.test"])) is not first
    assert contexts.built == 3
    clock.advance(1)
    assert contexts.get(certificate) is not first


def test_changed_option_builds_all_again(clock: Clock) -> None:
    contexts, certificate = Contexts(10, clock), make_certificate(["a.test"])
    first = contexts.get(certificate)
    contexts.clear()
    assert contexts.get(certificate) is not first
