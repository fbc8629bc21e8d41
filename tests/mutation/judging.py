"""Runs for each mutant the tests that reach it, until one fails.

Knows which tests a mutant needs and how it is put into a process; must not know how mutants are made.
"""

import ast
import contextlib
import functools
import importlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .children import Ended, Task, run_all, run_one
from .importing import import_wrong, libraries
from .mutants import Mutant, read, sources
from .patching import Found, Functions, function_of
from .reach import Reach
from .running import Collected, with_collected

# Seconds; and how many tests of a file run before some of the next one do.
_QUICK, _AT_ONCE = 0.5, 5
# They read constants of all modules.
_NUMBERS = ("tests/mitmproxy_acme/test_promised_numbers.py", "tests/mitmproxy_acme/test_numbers.py")


@dataclass(frozen=True)
class Case:
    """A mutant, the tests that may kill it with their usual seconds, and how many more reach it."""

    mutant: Mutant
    tests: dict[str, float]
    left_out: int = 0
    function: Found | None = None


@dataclass(frozen=True)
class Verdict:
    """``killer``: a test, or how it ended; empty if the mutant lives."""

    case: Case
    killer: str
    ran: int


def case_of(mutant: Mutant, reach: Reach, most_seconds: float) -> Case:
    """Choose the tests: no more than take so many seconds."""
    function = function_of(mutant)
    reaching = reach.of(mutant.path, _lines(mutant)) if function else set[str]()
    if not function or (not reaching and _runs_in_import(mutant.path, function.place.name)):
        function, reaching = None, _reaching_import(mutant, reach)
    tests, seconds = dict[str, float](), 0.0
    for test in _in_order(mutant.path, reaching, reach):
        if seconds <= most_seconds:
            tests[test] = reach.seconds[test]
            seconds += reach.seconds[test]
    return Case(mutant, tests, len(reaching) - len(tests), function)


def _in_order(path: str, tests: set[str], reach: Reach) -> list[str]:
    """Return those of all numbers, then the quick ones: the module's own file, then a few of each other one in turn.

    Specific are those of which the module is a large part: a test that only makes an object of it tells nothing.
    """
    taken, ranked = Counter[str](), list[tuple[int, int, int]]()
    ordered = sorted(tests, key=lambda test: (-reach.share(path, test), reach.breadth(test), test))
    for number, test in enumerate(ordered):
        file = test.partition("::")[0]
        turn = 0 if _is_mirror(path, file) else 1 + taken[file] // _AT_ONCE
        is_slow = reach.seconds[test] > _QUICK
        ranked.append((-1, 0, number) if file in _NUMBERS else (int(is_slow), turn, number))
        taken[file] += 1
    return [ordered[number] for *_, number in sorted(ranked)]


def _is_mirror(path: str, file: str) -> bool:
    return Path(file).stem == f"test_{Path(path).stem}"


def _lines(mutant: Mutant) -> set[int]:
    """The lines of a mutant, and those of the smallest statement around it if that is a simple one."""
    lines = set(mutant.lines)
    for node in ast.walk(ast.parse(read(mutant.path))):
        if isinstance(node, ast.stmt) and not hasattr(node, "body") and not isinstance(node, ast.Match | ast.Try):
            around = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            if lines & set(around):
                lines |= set(around)
    return lines


def _reaching_import(mutant: Mutant, reach: Reach) -> set[str]:
    """Return the tests that may notice: those of its package may read a constant, or what is made of it, by no line."""
    package = Path("tests", *Path(mutant.path).parent.parts[1:])
    files = {test: Path(test.partition("::")[0]) for test in reach.seconds}
    own = {test for test, file in files.items() if file.parent == package or file.as_posix() in _NUMBERS}
    return own | _reaching_name(mutant, reach)


def _reaching_name(mutant: Mutant, reach: Reach) -> set[str]:
    """Return the tests that reach a line with the name of this constant or field, or else any of its module."""
    tree = ast.parse(read(mutant.path))
    if name := _assigned(tree, mutant.lines.start):
        paths = [mutant.path] if name.startswith("_") else sources()
        found = set[str]().union(*(reach.of(path, _lines_with(path, name)) for path in paths))
        if found:
            return found
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and mutant.lines.start in _range(node):
            return reach.of(mutant.path, _range(node)) or _reaching_module(mutant.path, tree, reach)
    return _reaching_module(mutant.path, tree, reach)


def _reaching_module(path: str, tree: ast.Module, reach: Reach) -> set[str]:
    return reach.of_module(path) or _using(path, tree, reach)


def _runs_in_import(path: str, function: str) -> bool:
    """Say whether a module calls a function of its own while it is imported, which no test is seen to reach."""
    made = [node for node in ast.parse(read(path)).body if isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr)]
    return any(isinstance(node, ast.Name) and node.id == function for each in made for node in ast.walk(each))


def _using(path: str, tree: ast.Module, reach: Reach) -> set[str]:
    """Return the tests that reach a line with a name that a module without code of its own gives to others."""
    given = {_assigned(tree, node.lineno) for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)}
    others = [other for other in sources() if other != path]
    lines = ((other, _lines_with(other, name)) for other in others for name in given if name and name[0] != "_")
    return set[str]().union(*(reach.of(other, numbers) for other, numbers in lines if numbers))


def _range(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def _assigned(tree: ast.Module, line: int) -> str:
    """Return the name that is assigned in this line of a module or a class."""
    bodies = [tree.body, *(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    for statement in (statement for body in bodies for statement in body):
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                if line in _range(statement):
                    return name
    return ""


@functools.cache
def _lines_with(path: str, name: str) -> frozenset[int]:
    return frozenset(number for number, line in enumerate(read(path).decode().splitlines(), 1) if name in line)


def judge(cases: Sequence[Case], jobs: int, tell: Callable[[Verdict], None]) -> None:
    """Run each mutant in a process of its own; ``tell`` hears what became of it, not in order."""
    for case in cases:
        if not case.tests:
            tell(Verdict(case, "", 0))
    chosen = [case for case in cases if case.tests]
    if imported := [case for case in chosen if case.function is None]:
        _judge_imported(imported, jobs, tell)
    if patched := [case for case in chosen if case.function is not None]:
        with_collected(_files(patched), lambda collected: _judge_patched(collected, patched, jobs, tell))


def _judge_patched(collected: Collected, cases: Sequence[Case], jobs: int, tell: Callable[[Verdict], None]) -> None:
    functions = Functions()
    tasks = (Task(case, functools.partial(_patch_and_run, collected, functions, case)) for case in cases)
    for ended in run_all(tasks, jobs):
        tell(_verdict(ended))


def _patch_and_run(collected: Collected, functions: Functions, case: Case, folder: Path) -> dict[str, Any]:
    if case.function is None or not functions.patch(case.mutant, case.function):
        raise RuntimeError(f"{case.mutant} is in no function that these tests import")
    return collected.run(case.tests, folder)


def _judge_imported(cases: Sequence[Case], jobs: int, tell: Callable[[Verdict], None]) -> None:
    """For each of these, a process imports all of the project anew; only the libraries are there."""
    for name in run_one(functools.partial(_imported_libraries, _files(cases))):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    tasks = (Task(case, functools.partial(_import_and_run, case)) for case in cases)
    for ended in run_all(tasks, jobs):
        tell(_verdict(ended))


def _imported_libraries(files: Sequence[str], folder: Path) -> list[str]:
    with_collected(files, lambda _: None)
    return libraries()


def _import_and_run(case: Case, folder: Path) -> dict[str, Any]:
    import_wrong(case.mutant)
    results = list[dict[str, Any]]()
    try:
        with_collected(_files([case]), lambda collected: results.append(collected.run(case.tests, folder)))
    except RuntimeError:
        return {"failed": "the import", "ran": 0}
    return results[0]


def _files(cases: Iterable[Case]) -> list[str]:
    return sorted({test.partition("::")[0] for case in cases for test in case.tests})


def _verdict(ended: Ended[Case]) -> Verdict:
    if ended.result is not None:
        return Verdict(ended.name, ended.result["failed"], ended.result["ran"])
    if ended.was_killed:
        return Verdict(ended.name, "a test that did not end", 0)
    raise RuntimeError(f"{ended.name.mutant}: the tests could not be run:\n{ended.log}")
