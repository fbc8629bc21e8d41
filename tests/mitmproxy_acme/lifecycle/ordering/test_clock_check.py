"""A node whose clock is wrong does not use up the CA's limits with certificates that are of no use to it."""

from dataclasses import dataclass, field

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import BackingOff, ClockDiffers, OfAnotherTime
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle.manager import Manager
from tests.mitmproxy_acme.fakes import EPOCH, Clock, FakeIssuer, make_certificate, manager_on

_A, _B = (Subject((ServerName(f"{letter}.example.test"),)) for letter in "ab")
_HOUR = 3_600.0


@pytest.fixture
def clock() -> Clock:
    """That of the node."""
    return Clock()


@pytest.fixture
def true() -> Clock:
    return Clock()


@dataclass
class Ca(FakeIssuer):
    """Issues by a clock of its own, dated back by ``backdated`` seconds; ``lifetime`` is counted from then on."""

    true: Clock = field(default_factory=Clock)
    backdated: float = _HOUR

    async def obtain(self, subject: Subject, replacing: Certificate | None = None) -> Certificate:
        self.orders.append(subject)
        return make_certificate(
            subject.names, now=self.true() - self.backdated, lifetime=self.lifetime, ca=self.directory
        )


@pytest.fixture
def ca(clock: Clock, true: Clock) -> Ca:
    return Ca(clock, true=true, clock=true, directory="https://private.test/dir", name="private")


@pytest.fixture
def manager(memory: Memory, clock: Clock, ca: Ca) -> Manager:
    return manager_on(memory, clock, ca)


def _issue_for(ca: Ca, life: float) -> None:
    """Let its certificates last so long from now on, whatever they are dated back by."""
    ca.backdated = _HOUR if life > _HOUR else 0.0
    ca.lifetime = life + ca.backdated


async def _renewed(manager: Manager, clock: Clock, off: float) -> None:
    """Obtain by a right clock, and replace that by one that is ``off``."""
    first = await manager.obtain(_A)
    clock.advance(off)
    await manager.obtain(_A, replacing=first)


@pytest.mark.parametrize(
    ("life", "off"),
    [(90 * DAY, 41 * DAY), (45 * DAY, 20 * DAY), (160 * _HOUR, 47 * _HOUR), (160 * _HOUR, -_HOUR), (120.0, 59.0)],
)
async def test_clock_that_leaves_enough_of_a_life_may_order(
    manager: Manager, ca: Ca, clock: Clock, life: float, off: float
) -> None:
    """By it, a new certificate is due after a fifth of its life at the earliest; or it is off by less than a minute."""
    _issue_for(ca, life)
    await _renewed(manager, clock, off)
    assert len(ca.orders) == 2


@pytest.mark.parametrize(
    ("life", "off", "words"),
    [
        (90 * DAY, 43 * DAY, r"43 days ahead of private's; set it: .* \(for 90 days\) would be due again too soon"),
        (160 * _HOUR, 50 * _HOUR, "2 days ahead of private's; set it: "),
        (160 * _HOUR, 200 * _HOUR, "8 days ahead of private's; set it: "),
        (60.0, 62.0, r"62 s ahead of private's; .* \(for 60 s\)"),
        (90 * DAY, -2 * _HOUR, "2 h behind private's; set it: .* would not be valid yet, so none is ordered"),
    ],
)
async def test_clock_that_does_not_orders_nothing(
    manager: Manager, ca: Ca, clock: Clock, life: float, off: float, words: str
) -> None:
    """And says what to do."""
    _issue_for(ca, life)
    with pytest.raises(ClockDiffers, match=words):
        await _renewed(manager, clock, off)
    assert len(ca.orders) == 1


@pytest.mark.parametrize("off", [89.99 * DAY, 100 * DAY, -2 * _HOUR])
async def test_first_delivery_tells_what_the_next_would_be(manager: Manager, ca: Ca, clock: Clock, off: float) -> None:
    """Nothing is stored: one certificate is refused, and no other is ordered, whatever the name, and however long."""
    clock.advance(off)
    with pytest.raises(OfAnotherTime, match="if that is wrong, the clock of this machine is wrong"):
        await manager.obtain(_A)
    for _ in range(5):
        clock.advance(2 * DAY)
        ca.true.advance(2 * DAY)
        with pytest.raises(ClockDiffers, match="so none is ordered"):
            await manager.obtain(_B)
    assert len(ca.orders) == 1


async def test_ca_that_does_not_date_back(manager: Manager, ca: Ca, clock: Clock) -> None:
    """Half an hour behind would do for others."""
    ca.backdated = 0.0
    clock.advance(-_HOUR / 2)
    with pytest.raises(OfAnotherTime, match=r"begins in 30 min"):
        await manager.obtain(_A)
    clock.advance(_HOUR / 6)
    ca.true.advance(_HOUR / 6)
    with pytest.raises(ClockDiffers, match="30 min behind private's"):
        await manager.obtain(_B)
    assert len(ca.orders) == 1


async def test_delivery_counts_by_the_clock_of_the_ca(manager: Manager, ca: Ca, clock: Clock) -> None:
    """How long its certificates last is not what a clock ten days ahead makes of it."""
    clock.advance(10 * DAY)
    await manager.obtain(_A)
    clock.advance(31 * DAY)
    await manager.obtain(_B)
    assert len(ca.orders) == 2


async def test_clock_that_is_set_right_orders(manager: Manager, ca: Ca, clock: Clock) -> None:
    """Within a minute: nothing waits for as long as it was ahead."""
    first = await manager.obtain(_A)
    clock.advance(60 * DAY)
    for _ in range(5):  # however often it was refused
        clock.advance(120.0)
        with pytest.raises(ClockDiffers):
            await manager.obtain(_A, replacing=first)
    with pytest.raises(BackingOff):
        await manager.obtain(_B)
    clock.time = EPOCH
    with pytest.raises(BackingOff):
        await manager.obtain(_B)
    clock.advance(60.0)
    await manager.obtain(_B)
    assert len(ca.orders) == 2


async def test_other_nodes_order(manager: Manager, memory: Memory, ca: Ca, true: Clock, clock: Clock) -> None:
    """The clock of one is its own affair."""
    with pytest.raises(ClockDiffers):
        await _renewed(manager, clock, 60 * DAY)
    other = manager_on(memory, true, ca)
    await other.obtain(_B)
    assert len(ca.orders) == 2


async def test_certificate_of_another_ca_tells_nothing(
    memory: Memory, manager: Manager, ca: Ca, clock: Clock, true: Clock
) -> None:
    """The other one issues for ten days, and this one for 90."""
    short = Ca(true, true=true, clock=true, directory="https://short.test/dir", name="short", lifetime=10 * DAY)
    await manager_on(memory, true, short).obtain(_A)
    clock.advance(20 * DAY)
    await manager.obtain(_A)
    assert len(ca.orders) == 1


async def test_ca_that_does_not_tell_the_time_is_asked(manager: Manager, ca: Ca, clock: Clock) -> None:
    """Only what it delivers shows that the clock is wrong."""
    first = await manager.obtain(_A)
    clock.advance(80 * DAY)
    ca.clock = None
    second = await manager.obtain(_A, replacing=first)
    assert second.not_before == first.not_before
    assert len(ca.orders) == 2
