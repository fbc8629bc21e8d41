"""Every input of the corpus, and every seed, keeps the rules of its target: what was mended once stays mended."""

import hashlib
import warnings
from pathlib import Path

import pytest

from .minimizer import minimize
from .target import RuleBroken, Target, check, check_memory
from .targets import TARGETS

_CORPUS = Path(__file__).parent / "corpus"
_MOST_BYTES = 300_000


def _inputs(target: Target) -> list[bytes]:
    folder = _CORPUS / target.name
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [*target.seeds(), *(file.read_bytes() for file in files)]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_corpus_keeps_the_rules(target: Target) -> None:
    target.prepare()
    inputs = _inputs(target)
    assert inputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hostile input is warned of by libraries
        for data in inputs:
            check(target, data)
        largest = max(inputs, key=len)
        check_memory(target, largest)


def test_corpus_is_small_and_belongs_to_targets() -> None:
    """It is copied with each checkout."""
    files = [file for file in _CORPUS.rglob("*") if file.is_file()]
    assert files
    assert sum(file.stat().st_size for file in files) < _MOST_BYTES
    assert {file.parent.name for file in files} <= {target.name for target in TARGETS}


def _spend(data: bytes) -> None:
    """Take 20 ms for each letter a."""
    for _ in range(data.count(b"a")):
        hashlib.pbkdf2_hmac("sha256", b"", b"", 30_000)


def test_slow_inputs_break_a_rule() -> None:
    slow = Target("slow", _spend, list, seconds=0.05)
    check(slow, b"")
    with pytest.raises(RuleBroken, match=r"slow took \d\.\d\d s of CPU for 30 bytes"):
        check(slow, b"a" * 30)


def _allocate(data: bytes) -> None:
    """Take 100 kB for each byte."""
    assert len(bytearray(len(data) * 100_000)) == len(data) * 100_000


def test_large_allocations_break_a_rule() -> None:
    large = Target("large", _allocate, list)
    check_memory(large, b"a")
    with pytest.raises(RuleBroken, match="for 1000 bytes"):
        check_memory(large, b"a" * 1_000)


def test_minimizer_keeps_what_fails() -> None:
    smallest = minimize(b"\xff" * 400 + b"needle" + b"\xff" * 99, lambda data: b"needle" in data)
    assert smallest == b"needle"
