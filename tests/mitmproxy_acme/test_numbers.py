"""Every number that the code decides by is in ``tests/numbers.txt``: bounds, waits, lifetimes, sizes, defaults.

Most of them no test can tell from the next number: whether 1,000 or 1,001 names are remembered. A change of one is read
in that list beside all others. To accept it: python -m tests.mitmproxy_acme.test_numbers >tests/numbers.txt
"""

import ast
import dataclasses
import enum
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LISTED = ROOT / "tests" / "numbers.txt"
# What is in them is in docs/reference/openapi.json.
_DOCUMENTS = ("admin/api/openapi.py", "admin/api/schemas.py")
_WIDTH = 110


def listing() -> str:
    """Return all numbers of the addon and the storage, by module, as the modules have them when they are imported."""
    blocks = []
    for folder in (ROOT / "addons", ROOT / "storage"):
        for file in sorted(folder.glob("*/**/*.py")):
            path = file.relative_to(folder).as_posix()
            if file.name != "__main__.py" and not path.endswith(_DOCUMENTS):
                module = importlib.import_module(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
                if lines := list(_numbers(ast.parse(file.read_text(encoding="utf-8")), vars(module), "")):
                    blocks.append("\n    ".join([path, *lines]))
    return "\n\n".join(blocks) + "\n"


def _numbers(node: ast.Module | ast.ClassDef, values: Mapping[str, Any], within: str) -> Iterator[str]:
    """Yield a line for each constant, default of a field and default of an argument that has a number in it."""
    for statement in node.body:
        if isinstance(statement, ast.ClassDef):
            members = vars(values[statement.name])
            yield from _numbers(statement, members | _field_defaults(members), f"{statement.name}.")
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _argument_defaults(within + statement.name, values[statement.name])
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            for name in _targets(statement):
                if name in values and _has_number(value := values[name]):
                    yield from _lines(f"{within}{name} =", value)


def _targets(statement: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]


def _field_defaults(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a class with slots, which has descriptors in their place."""
    fields: Mapping[str, Any] = members.get("__dataclass_fields__", {})
    return {name: field.default for name, field in fields.items()}


def _argument_defaults(name: str, value: Any) -> Iterator[str]:
    function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    if callable(function):
        for argument in inspect.signature(function).parameters.values():
            if argument.default is not argument.empty and _has_number(argument.default):
                yield f"{name}({argument.name}={_text(argument.default)})"


def _has_number(value: object) -> bool:
    match value:
        case enum.Enum() | type():
            return False
        case int() | float():
            return True
        case re.Pattern(pattern=str() as pattern):
            return re.search(r"\d", pattern) is not None
        case tuple() | list() | set() | frozenset():
            return any(map(_has_number, value))
        case dict() as items:
            return any(_has_number(each) for pair in items.items() for each in pair)
        case _ if dataclasses.is_dataclass(value):
            return any(map(_has_number, _fields(value).values()))
    return False


def _lines(head: str, value: object) -> Iterator[str]:
    """Write a collection that is too long for a line with a line for each item."""
    line = f"{head} {_text(value)}"
    if len(line) <= _WIDTH or not isinstance(value, dict | tuple | list):
        yield line
        return
    yield head
    for item in value.items() if isinstance(value, dict) else value:
        yield f"    {': '.join(map(_text, item)) if isinstance(value, dict) else _text(item)}"


def _text(value: object) -> str:
    match value:
        case type():
            return value.__name__
        case bool() | enum.Enum():
            return str(value)
        case int() | float():
            return f"{value:_}"
        case re.Pattern(pattern=str() as pattern):
            return pattern
        case dict() as items:
            return f"{{{', '.join(f'{_text(key)}: {_text(each)}' for key, each in items.items())}}}"
        case set() | frozenset():
            return f"{{{', '.join(sorted(map(_text, value)))}}}"
        case tuple() | list():
            return f"({', '.join(map(_text, value))})"
        case _ if dataclasses.is_dataclass(value):
            shown = (f"{name}={_text(each)}" for name, each in _fields(value).items() if not _is_prose(each))
            return f"{type(value).__name__}({', '.join(shown)})"
    return repr(value)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _is_prose(value: object) -> bool:
    """Say whether it is a text for people, which messages.txt has."""
    return isinstance(value, str) and " " in value


def test_every_number_is_listed() -> None:
    """The code has these numbers, and no other."""
    current = listing() == LISTED.read_text(encoding="utf-8")
    assert current, "run: python -m tests.mitmproxy_acme.test_numbers >tests/numbers.txt"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("_WAIT = 3_600.0", "_WAIT = 3_600.0"),
        ("_FIRST, _LAST = 1, 20", "_LAST = 20"),
        ("_TABLE = {'a': (1, None)}", "_TABLE = {'a': (1, None)}"),
        ("_NAME = re.compile('[a-z]{1,63}')", "_NAME = [a-z]{1,63}"),
        ("@dataclass(slots=True)\nclass A:\n    size: int = 5", "A.size = 5"),
        ("class A:\n    @classmethod\n    def f(cls, *, most: int = 7) -> None: ...", "A.f(most=7)"),
        ("async def f(fast=True): ...", "f(fast=True)"),
    ],
)
def test_number_is_found_wherever_it_is_kept(source: str, line: str) -> None:
    """Constants, patterns, and defaults of fields and of arguments."""
    values: dict[str, Any] = {"re": re, "dataclass": dataclasses.dataclass}
    exec(source, values)
    assert line in list(_numbers(ast.parse(source), values, ""))


def test_what_has_no_number_is_not_listed() -> None:
    source = "_NAME = 'a 1'\n_NONE = None\ndef f(text=''): ..."
    values: dict[str, Any] = {}
    exec(source, values)
    assert list(_numbers(ast.parse(source), values, "")) == []


if __name__ == "__main__":
    print(listing(), end="")
