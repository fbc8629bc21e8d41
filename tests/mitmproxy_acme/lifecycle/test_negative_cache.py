"""Which refusals are repeated from memory, and for how long."""

import gc
import weakref

import pytest

from acme_storage import StorageUnavailable
from mitmproxy_acme.core.errors import (
    BackingOff,
    ChallengeFailed,
    IssuanceError,
    LimitReached,
    NameNotAllowed,
    NoControlNode,
    Problem,
)
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.lifecycle.negative_cache import NegativeCache, Refusal
from tests.mitmproxy_acme.fakes import Clock

NAME = ServerName("a.test")


@pytest.mark.parametrize("step", [10.0, -3_600.0], ids=["seconds later", "the clock set back"])
def test_refusal_is_repeated_for_seconds(clock: Clock, step: float) -> None:
    """Nor is it repeated for an hour where the clock was set back."""
    refusals = NegativeCache(clock)
    refusals.remember(NAME, ChallengeFailed("no route"))
    for _ in range(2):
        with pytest.raises(ChallengeFailed, match="no route"):
            refusals.repeat(NAME)
    clock.advance(step)
    refusals.repeat(NAME)


class _Held:
    """Something that a frame holds."""


def test_refusal_holds_nothing_but_its_words(clock: Clock) -> None:
    """Its traceback and its causes hold the frames of a handshake and of an order, some 7 KB for each refused name."""

    def fail() -> weakref.ref[_Held]:
        held = _Held()
        try:
            raise KeyError(held)
        except KeyError as cause:
            try:
                raise BackingOff("not now", until=clock() + 60) from cause
            except BackingOff as error:
                refusals.remember(NAME, error)
        return weakref.ref(held)

    refusals = NegativeCache(clock)
    held = fail()
    gc.collect()
    assert held() is None
    for _ in range(2):
        with pytest.raises(BackingOff, match="not now") as caught:
            refusals.repeat(NAME)
        assert caught.value.until == clock() + 60
        assert caught.value.__cause__ is caught.value.__context__ is None
        assert len(caught.traceback) == 2


@pytest.mark.parametrize(
    "error",
    [
        IssuanceError("a", problem=Problem("dns"), retry_after=7.0),
        LimitReached("b", until=1.0),
        StorageUnavailable("c"),
        NameNotAllowed("d"),
    ],
)
def test_refusal_is_repeated_as_it_was(clock: Clock, error: Refusal) -> None:
    """With the same class, message and fields: policy reads the class."""
    refusals = NegativeCache(clock)
    refusals.remember(NAME, error)
    with pytest.raises(type(error)) as caught:
        refusals.repeat(NAME)
    assert (type(caught.value), str(caught.value), vars(caught.value)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(ChallengeFailed("no route"), 10.0), (StorageUnavailable("down"), 1.0), (NoControlNode("none is up"), 1.0)],
)
def test_trouble_that_ends_sooner_is_forgotten_sooner(clock: Clock, error: Refusal, seconds: float) -> None:
    """A storage that is back, or a control node, is not kept from visitors for ten seconds."""
    refusals = NegativeCache(clock)
    refusals.remember(NAME, error)
    clock.advance(seconds - 0.1)
    with pytest.raises(type(error)):
        refusals.repeat(NAME)
    clock.advance(0.2)
    refusals.repeat(NAME)


def test_refusal_ends_with_its_backoff(clock: Clock) -> None:
    """And not later."""
    refusals = NegativeCache(clock)
    refusals.remember(NAME, ChallengeFailed("no route"), until=clock() + 3)
    clock.advance(2.9)
    with pytest.raises(ChallengeFailed):
        refusals.repeat(NAME)
    clock.advance(0.2)
    refusals.repeat(NAME)


@pytest.mark.parametrize(("until", "seconds"), [(3_600.0, 10.0), (4.0, 4.0)])
def test_refusal_of_a_long_backoff_is_repeated_for_seconds(clock: Clock, until: float, seconds: float) -> None:
    """Another node may have made up for it meanwhile; of a short one not beyond its end."""
    refusals = NegativeCache(clock)
    refusals.remember(NAME, ChallengeFailed("no route"), until=clock() + until)
    clock.advance(seconds - 0.5)
    with pytest.raises(ChallengeFailed):
        refusals.repeat(NAME)
    clock.advance(0.5)
    refusals.repeat(NAME)
