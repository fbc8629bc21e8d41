"""What is measured on the way, as calls.

This module knows what can be counted and timed; it must not know what becomes of it (``operating.metrics`` does).
"""

from typing import Literal

from .errors import IssuanceError

type Handshake = Literal["cached", "obtained", "fallback", "refused", "not_ours"]
"""How a handshake went on: our certificate from memory, or obtained meanwhile; without one mitmproxy's, or closed; or
a name that is none of ours."""


class Instrumentation:
    """Measures nothing, for whoever does not look. Every method is quick, and raises nothing.

    ``cache`` and ``handshake`` are for the event loop, where a cached handshake must meet no lock; the others are safe
    from any thread. Durations are in seconds.
    """

    def cache(self, *, hit: bool) -> None:
        """A certificate was looked for in memory."""

    def handshake(self, result: Handshake) -> None:
        """A handshake of a name got what ``result`` says."""

    def held(self, seconds: float) -> None:
        """A handshake was held for a certificate that was not in memory."""

    def order(self, ca: str, seconds: float, error: IssuanceError | None) -> None:
        """An order at ``ca`` (as ``acme_ca`` has it) ended, with a certificate or with ``error``."""

    def lease_wait(self, seconds: float) -> None:
        """An order had to wait for another node."""

    def challenge(self, *, known: bool) -> None:
        """A challenge was answered, or its token was nobody's."""

    def storage(self, operation: str, seconds: float, *, failed: bool) -> None:
        """A call of the storage ended."""
