"""Clock check: order nothing by a clock that makes the new certificate useless.

By a clock that is far ahead, a certificate is over when it is delivered, or due again at once; by one that is behind,
it has not begun. Such orders use up limits of the CA that all nodes share. This module knows how far the clock may be
off; it must not know how a CA tells the time, or how an order is placed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ...ca.delivery import CLOCK_SKEW
from ...core.certificate import Certificate
from ...core.errors import ClockDiffers
from ...core.renewal import RenewBefore, describe_duration
from ..configured_ca import ConfiguredCa

# The part of its life after which a new certificate may be due again by our clock. At Let's Encrypt, those of 160 hours
# are then ordered five times a week, which is its limit for a name.
_LEAST_INTERVAL = 1 / 5
# Seconds. Clocks that differ by less are right: Date has whole seconds, and a reply takes time.
_LEAST_DIFFERENCE = 60.0
# Seconds by which public CAs date their certificates back.
_DATED_BACK = 3_600.0


@dataclass(frozen=True, slots=True)
class _Validity:
    """When certificates of a CA begin and end, in seconds from when they are ordered, by its clock."""

    begins: float
    ends: float

    @property
    def most_ahead(self) -> float:
        """By how many seconds our clock may be ahead."""
        due = self.ends - RenewBefore().margin(self.ends)
        return max(due - self.ends * _LEAST_INTERVAL, _LEAST_DIFFERENCE)

    @property
    def most_behind(self) -> float:
        """By how many seconds it may be behind."""
        return max(CLOCK_SKEW - self.begins, _LEAST_DIFFERENCE)


class ClockCheck:
    """Compares the clock of this node with that of each CA. Use it from one event loop.

    What a CA delivers is known from the certificate that is replaced, and then from its last delivery. Before both, it
    lets every order pass: those that are under way until the first delivery may be lost.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._delivered: dict[str, _Validity] = {}

    async def require(self, ca: ConfiguredCa, replacing: Certificate | None) -> float | None:
        """Return the time by the CA's clock (Unix seconds); None if it does not tell its time.

        Raises ``ClockDiffers`` where nothing should be ordered at ``ca``, and ``IssuanceError``.
        """
        ahead = await ca.issuer.clock_ahead(self._now, _LEAST_DIFFERENCE)
        if ahead is None:
            return None
        validity = self._validity(ca, replacing)
        if validity is not None and ahead > validity.most_ahead:
            raise ClockDiffers(
                f"the clock of this machine is {describe_duration(ahead)} ahead of {ca.name}'s; set it: by this clock, "
                f"a new certificate (for {describe_duration(validity.ends)}) would be due again too soon, so none is "
                "ordered"
            )
        if validity is not None and -ahead > validity.most_behind:
            raise ClockDiffers(
                f"the clock of this machine is {describe_duration(-ahead)} behind {ca.name}'s; set it: by this clock, "
                "a new certificate would not be valid yet, so none is ordered"
            )
        return self._now() - ahead

    def note(self, ca: ConfiguredCa, delivered: Certificate, ordered_at: float | None) -> None:
        """Note what ``ca`` delivers, accepted or not; ``ordered_at`` is what ``require`` returned.

        What has ended by the CA's own clock tells nothing of its next delivery.
        """
        if ordered_at is not None and delivered.not_after > ordered_at:
            self._delivered[ca.directory] = _Validity(
                delivered.not_before - ordered_at, delivered.not_after - ordered_at
            )

    def _validity(self, ca: ConfiguredCa, replacing: Certificate | None) -> _Validity | None:
        known = self._delivered.get(ca.directory)
        if known is None and replacing is not None and replacing.ca == ca.directory:
            return _Validity(-_DATED_BACK, replacing.lifetime)
        return known
