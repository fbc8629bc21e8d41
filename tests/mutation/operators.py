"""The ways to make a line wrong.

Knows Python's syntax; must not know the project. Each operator yields edits of the places it knows; texts for people
(logs, messages, docstrings) and types are left alone.
"""

import ast
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .mutants import Mutant, read

_COMPARE = {
    ast.Lt: ("<", "<=", ">="),  # the operator, then what differs at the bound only
    ast.LtE: ("<=", "<", ">"),
    ast.Gt: (">", ">=", "<="),
    ast.GtE: (">=", ">", "<"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
_ARITHMETIC = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}
_OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any"}
_CLEANERS = {"lower", "strip", "lstrip", "rstrip", "casefold"}
_FOR_PEOPLE = {"logger", "fields", "warnings"}
_ROUGH = 100  # from here on a number is not made one more: 1,000 or 1,001 of something means the same


@dataclass(frozen=True)
class Edit:
    """The text of a node, or of what lies between two, becomes another."""

    start: int
    end: int
    text: str
    kind: str


class Source:
    """A module as bytes and as a tree: offsets of nodes."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.tree = ast.parse(content)
        self._starts = [0]
        for line in content.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def start(self, node: ast.AST) -> int:
        return int(self._starts[node.lineno - 1] + node.col_offset)  # type: ignore[attr-defined]  # statements, expressions

    def end(self, node: ast.AST) -> int:
        return int(self._starts[node.end_lineno - 1] + node.end_col_offset)  # type: ignore[attr-defined]  # the same

    def text(self, node: ast.AST) -> str:
        return self.content[self.start(node) : self.end(node)].decode()

    def replaced(self, node: ast.AST, text: str, kind: str) -> Edit:
        return Edit(self.start(node), self.end(node), text, kind)

    def between(self, left: ast.AST, right: ast.AST, old: str, new: str, kind: str) -> Iterator[Edit]:
        """Replace the operator between two expressions."""
        start, end = self.end(left), self.start(right)
        pattern = rf"\b{old.replace(' ', r'\s+')}\b" if old[0].isalpha() else re.escape(old)
        text, count = re.subn(pattern, new, self.content[start:end].decode(), count=1)
        if count:
            yield Edit(start, end, text, kind)


def mutants_of(path: str) -> list[Mutant]:
    """Return every mutant of a module, in the order of its lines."""
    content, found = read(path), []
    for edit in sorted(edits_of(content), key=lambda edit: (edit.start, edit.end, edit.text)):
        old = content[edit.start : edit.end].decode()
        mutant = Mutant(path, edit.start, old, edit.text, edit.kind)
        if old != edit.text and _compiles(mutant):
            found.append(mutant)
    return found


def edits_of(content: bytes) -> set[Edit]:
    """Return all edits of a module's source; some compile to nothing new, or not at all."""
    source = Source(content)
    return {edit for node in _nodes(source.tree) for operator in _OPERATORS for edit in operator(source, node)}


def _compiles(mutant: Mutant) -> bool:
    try:
        compile(mutant.source, mutant.path, "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Walk what runs: no types, texts for people, decorators, asserts."""
    if _is_for_people(node):
        return
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "bases", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _nodes(child)


def _is_for_people(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr() | ast.Assert() | ast.TypeAlias() | ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant()) | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name)) | ast.Name(id=name)):
            return name in _FOR_PEOPLE
        case ast.Expr(value=ast.Call() as call):
            return _is_for_people(call)
    return False


def _compare(source: Source, node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.Compare):
        for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            old, *others = _COMPARE[type(op)]
            for new in others[1:] if _is_clock(left) or _is_clock(right) else others:
                yield from source.between(left, right, old, new, "comparison")


def _is_clock(node: ast.expr) -> bool:
    """Say whether it is the machine's clock, which is never exactly at a bound."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="time"), attr="monotonic" | "time")):
            return True
    return False


def _condition(source: Source, node: ast.AST) -> Iterator[Edit]:
    tests = list[ast.expr]()
    match node:
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            tests.append(test)
        case ast.comprehension(ifs=ifs):
            tests += ifs
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield source.replaced(node, f"bool({source.text(operand)})", "negation")
    for test in tests:
        if isinstance(test, ast.Constant):
            continue  # while True
        if not isinstance(test, ast.UnaryOp):
            yield source.replaced(test, f"not ({source.text(test)})", "negation")
        yield source.replaced(test, "False", "condition")
        yield source.replaced(test, "True", "condition")


def _boolean(source: Source, node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.BoolOp):
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in itertools.pairwise(node.values):
            yield from source.between(left, right, old, new, "and/or")
        for dropped in node.values:
            rest = f" {old} ".join(f"({source.text(value)})" for value in node.values if value is not dropped)
            yield source.replaced(node, f"({rest})", "operand dropped")


def _constant(source: Source, node: ast.AST) -> Iterator[Edit]:
    if not isinstance(node, ast.Constant):
        return
    value = node.value
    if isinstance(value, bool):
        yield source.replaced(node, str(not value), "constant")
    elif isinstance(value, int | float):
        more = {value + 1} if abs(value) < _ROUGH else set()
        others = more | {value * 20, value // 2 if isinstance(value, int) else value / 2}
        for other in sorted(others - {value}):
            yield source.replaced(node, repr(other), "constant")


def _statement(source: Source, node: ast.AST) -> Iterator[Edit]:
    """Remove a statement, or what it returns."""
    match node:
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and not value.value):
            yield source.replaced(node, "return None", "return")
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield source.replaced(node, "pass", "call removed")
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.Delete():
            yield source.replaced(node, "pass", "assignment removed")
        case ast.AugAssign():
            yield source.replaced(node, "pass", "assignment removed")
        case ast.Raise():
            yield source.replaced(node, "pass", "raise removed")
        case ast.Break():
            yield source.replaced(node, "continue", "loop")
        case ast.Continue():
            yield source.replaced(node, "break", "loop")


def _error(source: Source, node: ast.AST) -> Iterator[Edit]:
    """Raise another exception, catch none or fewer."""
    match node:
        case ast.Raise(exc=ast.Call(func=function) as call):
            if not source.text(function).startswith("RuntimeError"):
                yield source.replaced(call, 'RuntimeError("mutant")', "exception")
        case ast.ExceptHandler(type=ast.Tuple(elts=caught) as whole):
            for dropped in caught:
                rest = ", ".join(source.text(each) for each in caught if each is not dropped)
                yield source.replaced(whole, f"({rest},)", "exception")
        case ast.ExceptHandler(type=ast.expr() as caught):
            yield source.replaced(caught, "ZeroDivisionError", "exception")
        case ast.Call(func=function, args=[_, *_]) if source.text(function).endswith("suppress"):
            yield source.replaced(node, f"{source.text(function)}()", "exception")


def _arithmetic(source: Source, node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC and not _is_text(node.left):
        old, new = _ARITHMETIC[type(node.op)]
        yield from source.between(node.left, node.right, old, new, "arithmetic")
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield source.replaced(node, source.text(node.operand), "arithmetic")


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def _call(source: Source, node: ast.AST) -> Iterator[Edit]:
    if not isinstance(node, ast.Call):
        return
    match node.func:
        case ast.Name(id=name) if name in _OPPOSITES:
            yield source.replaced(node.func, _OPPOSITES[name], "min/max")
            if len(node.args) == 2 and not node.keywords:
                for kept in node.args:
                    yield source.replaced(node, f"({source.text(kept)})", "min/max")
        case ast.Attribute(value=value, attr=name) if name in _CLEANERS and not node.args:
            yield source.replaced(node, source.text(value), "call dropped")
        case ast.Attribute(attr="shield" | "wait_for") if node.args:
            yield source.replaced(node, f"({source.text(node.args[0])})", "asyncio")
        case ast.Attribute(value=ast.Name(id="asyncio"), attr="timeout") if node.args:
            yield source.replaced(node.args[0], "None", "asyncio")
    yield from _keywords(source, node)


def _keywords(source: Source, call: ast.Call) -> Iterator[Edit]:
    for keyword in call.keywords:
        if keyword.arg is not None and not _is_name_of_task(source, call, keyword):
            before, after = source.start(keyword), source.end(keyword)
            rest = re.match(rb"\s*,\s*", source.content[after:])
            yield Edit(before, after + (rest.end() if rest else 0), "", "argument dropped")


def _is_name_of_task(source: Source, call: ast.Call, keyword: ast.keyword) -> bool:
    """Say whether it is a text for people: a debugger shows the names of tasks and threads."""
    is_task = source.text(call.func).endswith(("create_task", "Thread"))
    return isinstance(keyword.value, ast.JoinedStr) or (is_task and keyword.arg == "name")


def _slice(source: Source, node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.Slice):
        for bound in (node.lower, node.upper):
            if bound is not None:
                yield source.replaced(bound, "", "slice")


def _order(source: Source, node: ast.AST) -> Iterator[Edit]:
    """Swap two calls."""
    for field in ("body", "orelse", "finalbody"):
        body = getattr(node, field, [])
        for first, second in itertools.pairwise(body) if isinstance(body, list) else ():
            if isinstance(first, ast.Expr) and isinstance(second, ast.Expr):
                if _is_for_people(first) or _is_for_people(second):
                    continue
                between = source.content[source.end(first) : source.start(second)].decode()
                if "#" not in between:
                    text = source.text(second) + between + source.text(first)
                    yield Edit(source.start(first), source.end(second), text, "order")


def _augmented(source: Source, node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC:
        old, new = _ARITHMETIC[type(node.op)]
        yield from source.between(node.target, node.value, old, new, "arithmetic")


type _Operator = Callable[[Source, ast.AST], Iterator[Edit]]
_OPERATORS: tuple[_Operator, ...] = (
    _compare,
    _condition,
    _boolean,
    _constant,
    _statement,
    _error,
    _arithmetic,
    _call,
    _slice,
    _order,
    _augmented,
)
