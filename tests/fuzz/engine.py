"""Runs one target with atheris (libFuzzer, guided by coverage).

``load`` imports all targets with instrumented code, once; ``fuzz`` runs one in a process of its own, which was forked
from that, and never returns. This module knows atheris; it must not know any target.
"""

import hashlib
import importlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from random import Random

import atheris

from .minimizer import minimize
from .target import Target, check, check_memory

CORPUS = Path(__file__).parent / "corpus"
# Our own code, and libraries that parse for us in Python.
_INSTRUMENTED = ["mitmproxy_acme", "acme_storage", "acme", "josepy", "idna"]
_MEMORY_EVERY = 500  # of how many inputs the memory of one is measured
_FAILED = 1
_DEADLINE = 20  # seconds: a call that never returns
_MOST_MEMORY = 3_000  # MiB of the process


def load() -> Mapping[str, Target]:
    """Import everything that is fuzzed, instrumented; it must not have been imported before."""
    logging.getLogger().addHandler(logging.NullHandler())  # otherwise each warning is printed
    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=_INSTRUMENTED):
        targets: tuple[Target, ...] = importlib.import_module("tests.fuzz.targets").TARGETS
    return {target.name: target for target in targets}


def fuzz(target: Target, seconds: int, seed: int, folder: Path) -> None:
    """Fuzz for so many seconds, and end the process: with 1 if an input broke a rule.

    The first such input is minimized, written to the folder's ``failures``, and shown on stderr.
    """
    target.prepare()
    found, seeds, failures = (folder / kind / target.name for kind in ("found", "seeds", "failures"))
    for made in (found, seeds, failures):
        made.mkdir(parents=True, exist_ok=True)
    for data in target.seeds():
        (seeds / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    limits = [f"-max_total_time={seconds}", f"-timeout={_DEADLINE}", f"-rss_limit_mb={_MOST_MEMORY}"]
    settings = [*limits, f"-max_len={target.longest}", f"-seed={seed}", "-print_final_stats=1", "-verbosity=0"]
    folders = [str(path) for path in (found, seeds, CORPUS / target.name) if path.is_dir()]
    runner = _Runner(target, failures)
    atheris.Setup(
        ["fuzz", *settings, *_dictionary(target, seeds), f"-artifact_prefix={failures}/", *folders],
        runner.run,
        custom_mutator=runner.mutate if target.mutators else None,
    )
    atheris.Fuzz()


def _dictionary(target: Target, folder: Path) -> list[str]:
    if not target.words:
        return []
    file = folder.with_suffix(".words")
    file.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.words))
    return [f"-dict={file}"]


class _Runner:
    """Runs inputs of one target, until one breaks a rule."""

    def __init__(self, target: Target, failures: Path) -> None:
        self._target = target
        self._failures = failures
        self._count = 0

    def run(self, data: bytes) -> None:
        self._count += 1
        try:
            check(self._target, data)
            if self._count % _MEMORY_EVERY == 0:
                check_memory(self._target, data)
        except Exception as error:
            self._report(data, error)

    def mutate(self, data: bytes, longest: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.4:
            return bytes(atheris.Mutate(data, longest))
        return self._target.mutate(data, random)[:longest]

    def _report(self, data: bytes, error: Exception) -> None:
        kind = _kind(error)
        smallest = minimize(data, lambda shorter: self._fails_so(shorter, kind))
        file = self._failures / hashlib.sha256(smallest).hexdigest()[:12]
        file.write_bytes(smallest)
        traceback.print_exception(error, file=sys.stderr)
        print(f"\n{kind}\ninput ({len(smallest)} bytes): {smallest[:1_000]!r}", file=sys.stderr)
        print(f"replay: scripts/fuzz --replay {self._target.name} {file}", file=sys.stderr, flush=True)
        os._exit(_FAILED)

    def _fails_so(self, data: bytes, kind: str) -> bool:
        try:
            check(self._target, data)
        except Exception as error:
            return _kind(error) == kind
        return False


def _kind(error: Exception) -> str:
    """Return the class of an error, and where it was raised: two inputs with the same kind show the same fault."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} in {Path(frames[-1].filename).name}:{frames[-1].name}"
