"""Puts a mutant into functions that are imported already.

Knows code objects; must not know tests. What runs while a module is imported (constants, defaults, classes, decorators)
cannot be changed afterwards, nor what a function closes over, such as the class of ``super()``: ``function_of`` returns
None for these.
"""

import ast
import gc
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType

from .mutants import ROOT, Mutant, read


@dataclass(frozen=True)
class Place:
    """A function as its code object knows it: the line of its first decorator or of ``def``."""

    path: str
    name: str
    line: int


@dataclass(frozen=True)
class Found:
    """The outermost function around a mutant, and the lines of its body."""

    place: Place
    body: range


def function_of(mutant: Mutant) -> Found | None:
    """Return the outermost function whose body holds the mutant, if it can have the mutant's code."""
    start = mutant.start - (read(mutant.path).rfind(b"\n", 0, mutant.start) + 1)
    where = (mutant.lines.start, start)
    for names, function in _outermost(ast.parse(read(mutant.path)), ()):
        first, last = function.body[0], function.body[-1]
        begins = (first.lineno, first.col_offset)
        if begins <= where < (last.end_lineno or 0, last.end_col_offset or 0):
            line = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
            place = Place(mutant.path, ".".join([*names, function.name]), line)
            found = Found(place, range(first.lineno, (last.end_lineno or 0) + 1))
            return found if _closes_over(read(mutant.path), place) == _closes_over(mutant.source, place) else None
    return None


def _closes_over(source: bytes, place: Place) -> tuple[str, ...]:
    return _code_at(source, place).co_freevars


def _code_at(source: bytes, place: Place) -> CodeType:
    whole = compile(source, str(ROOT / place.path), "exec", dont_inherit=True)
    (found,) = (code for code in _codes(whole) if _place(code) == place)
    return found


type _Function = ast.FunctionDef | ast.AsyncFunctionDef


def _outermost(node: ast.AST, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], _Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield names, child
        else:
            inner = (*names, child.name) if isinstance(child, ast.ClassDef) else names
            yield from _outermost(child, inner)


class Functions:
    """All functions of the project that are imported now."""

    def __init__(self) -> None:
        self._by_place = defaultdict[Place, list[FunctionType]](list)
        gc.unfreeze()  # what is frozen is not among the objects
        for each in gc.get_objects():
            if isinstance(each, FunctionType) and each.__code__.co_filename.startswith(f"{ROOT}/"):
                self._by_place[_place(each.__code__)].append(each)
        gc.freeze()

    def patch(self, mutant: Mutant, found: Found) -> bool:
        """Give the function, and those made in it during an import, the code of the mutant; False if none is here."""
        patched = False
        for code in _codes(_code_at(mutant.source, found.place)):
            for function in self._by_place.get(_place(code), ()):
                if function.__code__.co_freevars == code.co_freevars:
                    function.__code__ = code
                    patched = True
        return patched


def _place(code: CodeType) -> Place:
    return Place(code.co_filename[len(f"{ROOT}/") :], code.co_qualname, code.co_firstlineno)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
