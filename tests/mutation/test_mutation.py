"""What `scripts/mutate` makes wrong, and that the grave ones among the mutants that once lived are killed."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation import listed
from tests.mutation.importing import import_wrong, libraries
from tests.mutation.mutants import Mutant, named
from tests.mutation.operators import edits_of, mutants_of
from tests.mutation.patching import function_of

ROOT = Path(__file__).resolve().parents[2]


def mutate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.mutation", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_each_listed_mutant_is_one_place_of_the_code() -> None:
    """Else the code has changed, and the list must follow; what is grave names the test that kills it."""
    for each in listed.load():
        mutant = each.mutant()
        compile(mutant.source, mutant.path, "exec", dont_inherit=True)
        assert bool(each.tests) == each.grave, each.name
        assert not (each.equivalent and each.grave), each.name


def test_grave_mutants_are_killed() -> None:
    """Each by the test that was written for it."""
    done = mutate("--grave")
    assert done.returncode == 0, done.stdout + done.stderr
    count = sum(1 for each in listed.load() if each.grave)
    assert f"{count} of {count} mutants are killed (100.0 %)" in done.stdout


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        (
            "if a < b: pass",
            {"if a <= b: pass", "if a >= b: pass", "if not (a < b): pass", "if False: pass", "if True: pass"},
        ),
        ("x = a and b", {"x = a or b", "x = ((b))", "x = ((a))"}),
        ("x = 10", {"x = 5", "x = 11", "x = 200"}),
        ("x = 1_000", {"x = 500", "x = 20000"}),
        ("x = min(a, 1)", {"x = max(a, 1)", "x = (a)", "x = (1)", "x = min(a, 0)", "x = min(a, 2)", "x = min(a, 20)"}),
        ("await f()", {"pass"}),
        ("f()\ng()", {"pass\ng()", "f()\npass", "g()\nf()"}),
        ("logger.info('%d', 1)", set[str]()),
        ("x = time.monotonic() >= y", {"x = time.monotonic() < y"}),
        ("f(g(), name='x')", {"pass", "f(g(), )"}),
        ("create_task(g(), name='x')", {"pass"}),
        ("x: int = y", set[str]()),
        ("raise Wrong('text')", {"pass", 'raise RuntimeError("mutant")'}),
        ("def f():\n    return x", {"def f():\n    return None"}),
        ("def f():\n    return ''", set[str]()),  # its truth is the same
        ("with suppress(Wrong): pass", {"with suppress(): pass"}),
        ("x = y[1:]", {"x = y[:]", "x = y[0:]", "x = y[2:]", "x = y[20:]"}),
    ],
)
def test_lines_are_made_wrong_where_they_run(code: str, wrong: set[str]) -> None:
    """Not in texts for people, nor in types."""
    made = {code[: edit.start] + edit.text + code[edit.end :] for edit in edits_of(code.encode())}
    assert made - {code} == wrong


def test_function_of_a_mutant_is_what_can_be_patched() -> None:
    """A line in a function is changed in the running process, a constant of a module in its import."""
    (path,) = named("store/lease")
    found = {mutant.old: function_of(mutant) for mutant in mutants_of(path)}
    function = found["self.storage.swap(self.key, self.owner, None)"]
    assert function is not None
    assert function.place.name == "Lease.release"
    assert found["10.0"] is None


@pytest.mark.parametrize("name", ["mitmproxy_acme.core.renewal", "acme_storage", "scripts.fleet", "tests.mutation"])
def test_module_of_the_checkout_is_no_library(name: str) -> None:
    """Whatever is there before a mutant's process is forked was imported right, and so was all that it imports."""
    for each in (name, "cryptography"):
        importlib.import_module(each)
    assert name not in libraries()
    assert {"cryptography", "json"} <= set(libraries())


def test_mutant_is_not_put_into_an_import_that_is_over() -> None:
    """It would live, whatever the tests ask."""
    importlib.import_module("mitmproxy_acme.core.renewal")
    (path,) = named("core/renewal")
    with pytest.raises(RuntimeError, match=r"core\.renewal is imported already"):
        import_wrong(mutants_of(path)[0])


def test_diff_shows_what_differs() -> None:
    (path,) = named("store/lease")
    whole = (ROOT / path).read_text()
    text = "LEASE_TTL = 10.0"
    mutant = Mutant(path, len(whole[: whole.index(text)].encode()), text, "LEASE_TTL = 200.0", "constant")
    assert mutant.diff() == "    -LEASE_TTL = 10.0\n    +LEASE_TTL = 200.0"
    assert mutant.module == "mitmproxy_acme.store.lease"


def test_mutant_without_the_class_of_super_is_put_into_an_import() -> None:
    """A function has a cell for it, and cannot be given code with no such cell."""
    (path,) = named("api/base_handler")
    (mutant,) = (each for each in mutants_of(path) if each.old == "super().write_error(status_code, **kwargs)")
    assert (mutant.new, function_of(mutant)) == ("pass", None)
