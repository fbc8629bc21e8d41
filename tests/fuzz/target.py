"""What a target is, and the rules that each input must keep.

1. Only documented errors come out; a target catches those itself, and whatever else comes out is a failure.
2. Each call ends within a bound of CPU time: ``seconds``, whatever the input is.
3. Each call uses a bounded amount of memory: a fixed amount, and a multiple of the input.
4. What the target itself asserts: round trips, canonical forms, valid results.

This module knows the rules; it must not know what any target reads, or who makes inputs.
"""

import gc
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

type Mutator = Callable[[bytes, Random], bytes]

_LONGEST_MESSAGE = 20_000
# Of one call, three times: a machine that is busy with something else delays one of them, not all.
_TRIES = 3
# A traceback of a failure, a cache that fills: not what a stranger can multiply.
_MEMORY, _MEMORY_PER_BYTE = 8 * 1024 * 1024, 400


class RuleBroken(AssertionError):
    """An input took too long, or too much memory."""


@dataclass(frozen=True)
class Target:
    """One parser under test.

    ``run`` reads an input, and raises for one that shows a fault. ``seeds`` are made by code (valid ones, mostly).
    ``seconds`` bound the CPU time of a call; ``longest`` is the length of inputs that are tried. ``mutators`` know the
    form of the input; an engine also changes bytes. ``prepare`` makes what ``run`` needs, once for a process.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    mutators: Sequence[Mutator] = ()
    seconds: float = 0.5
    longest: int = 4_096
    words: Sequence[bytes] = field(default=(), repr=False)
    prepare: Callable[[], None] = lambda: None

    def mutate(self, data: bytes, random: Random) -> bytes:
        """Return the input, changed by one of the mutators."""
        return random.choice(self.mutators)(data, random) if self.mutators else data


def require_message(error: Exception) -> None:
    """Assert that a documented error says something that can be logged: a line of readable text."""
    text = str(error)
    assert text, type(error)
    assert len(text) < _LONGEST_MESSAGE, text[:200]
    text.encode("utf-8", "surrogateescape")


def check(target: Target, data: bytes) -> None:
    """Run an input, and raise if it breaks a rule."""
    for attempt in range(_TRIES):
        begun = time.thread_time()
        target.run(data)
        if (took := time.thread_time() - begun) <= target.seconds:
            return
        if attempt == _TRIES - 1:
            raise RuleBroken(
                f"{target.name} took {took:.2f} s of CPU for {len(data)} bytes; {target.seconds} s is allowed"
            )


def check_memory(target: Target, data: bytes) -> None:
    """Run an input, and raise if it allocates too much; this takes several times as long as the call alone."""
    target.run(data)  # what it imports and caches is not counted
    gc.collect()
    tracemalloc.start()
    try:
        target.run(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    allowed = _MEMORY + _MEMORY_PER_BYTE * len(data)
    if peak > allowed:
        raise RuleBroken(f"{target.name} took {peak:,} bytes of memory for {len(data)} bytes; {allowed:,} are allowed")
