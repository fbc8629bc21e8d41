"""Instrumentation: the calls by which code reports what it does.

This module knows what can be counted and timed; it must not know who counts (``admin.metrics`` does).
"""

from typing import Literal

from .errors import IssuanceError

type Handshake = Literal["cached", "obtained", "fallback", "refused", "not_ours"]
"""How a handshake went on. With our certificate: from memory, or obtained meanwhile. Without one: mitmproxy's
certificate, or closed; or the name is not ours."""


class Instrumentation:
    """Measures nothing; subclasses do. Every method is quick and raises nothing.

    Call ``cache`` and ``handshake`` on the event loop only, where a cached handshake must meet no lock; the others are
    safe from any thread. Durations are in seconds.
    """

    def cache(self, *, hit: bool) -> None:
        """A certificate was looked up in memory."""

    def handshake(self, result: Handshake) -> None:
        """A handshake ended with ``result``."""

    def held(self, seconds: float) -> None:
        """A handshake waited for a certificate that was not in memory."""

    def order(self, ca: str, seconds: float, error: IssuanceError | None) -> None:
        """An order at ``ca`` (as ``acme_ca`` writes it) ended, with a certificate or with ``error``."""

    def lease_wait(self, seconds: float) -> None:
        """An order had to wait for another node."""

    def challenge(self, *, known: bool) -> None:
        """A challenge was answered, or its token was unknown."""

    def storage(self, operation: str, seconds: float, *, failed: bool) -> None:
        """A storage call ended."""
