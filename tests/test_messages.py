"""Every text that a person can meet is in ``messages.txt``, so that it can be read as a whole.

To accept a change, read it, then run: python tests/test_messages.py >tests/messages.txt
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LISTED = Path(__file__).with_name("messages.txt")
_SCRIPTS = {ROOT / "storage" / "acme_storage" / "redis_scripts.py"}  # Lua, which no user meets
# What plain English does not say, and what it says instead.
ODD = {
    r"\b(?:nobody|whoever|whichever|however many)\b": "say who, or which",
    r"\b(?:is|are|was|were|has|have) had\b": "say who has it, or issues it",
    r"\bto be had\b|\bbe had of\b": "say who has it, or issues it",
    r"\bis to be\b|\bare to be\b": "say who does it, and when",
    r"\bleft alone\b": "retry in",
    r"\bthere is none (?:that|which)\b": "say what is missing",
    r"\b(?:stands|lies) (?:in|at|on|there|under|behind)\b": "is",
    r"\blooked at\b": "read, checked, polled",
    r", for (?:it|they|he|we|there|that|no)\b": "because",
}


def texts(source: str) -> Iterator[str]:
    """Yield each string of three words or more of a module, on one line; docstrings aside."""
    tree = ast.parse(source)
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            skipped.update(id(part) for part in node.values)
    strings = [
        (node.lineno, node.col_offset, _text(node))
        for node in ast.walk(tree)
        if id(node) not in skipped and isinstance(node, ast.JoinedStr | ast.Constant)
    ]
    for _, _, text in sorted(strings):
        if " " in text and len(re.findall(r"[A-Za-z]{2,}", text)) >= 3:
            yield text


def _text(node: ast.JoinedStr | ast.Constant) -> str:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    found = (part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "…" for part in parts)
    return " ".join("".join(found).split())


def listing() -> str:
    """Return all texts of the addon and the storage, by module."""
    blocks = []
    for folder in (ROOT / "addons", ROOT / "storage"):
        for file in sorted(set(folder.rglob("*.py")) - _SCRIPTS):
            if lines := list(texts(file.read_text(encoding="utf-8"))):
                blocks.append("\n    ".join([f"{file.relative_to(folder)}", *lines]))
    return "\n\n".join(blocks) + "\n"


def test_listing_is_current() -> None:
    """A text that changes is read by its author, beside all others."""
    assert listing() == LISTED.read_text(encoding="utf-8"), "run: python tests/test_messages.py >tests/messages.txt"


@pytest.mark.parametrize("odd", ODD)
def test_text_is_plain_english(odd: str) -> None:
    """Short, direct sentences: subject, verb, what to do."""
    lines = LISTED.read_text(encoding="utf-8").splitlines()
    assert [line.strip() for line in lines if re.search(odd, line, re.IGNORECASE)] == [], ODD[odd]


def test_strings_are_found_and_docstrings_are_not() -> None:
    source = '"""A docstring of it."""\nx = f"one {y} two three"\nz = ("four five " "six")\nw = "two words"\n'
    assert list(texts(source)) == ["one … two three", "four five six"]


if __name__ == "__main__":
    print(listing(), end="")
